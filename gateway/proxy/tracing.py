"""Records an exchange's spans. Without tracing, each costs one `is None`.

Knows the exchange and `observe.Trace`, which decides what a span contains.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.model import Token
    from gateway.observe import Trace
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute
    from gateway.proxy.upstream import UpstreamConnection


def tokens(x: Exchange, prepared: PreparedRoute) -> Awaitable[tuple[Token, ...]]:
    """Wait for the route's tokens and return them; the wait is a span."""
    work = prepared.get_tokens()
    return work if x.trace is None else x.trace.timed("token", work)


def connection(x: Exchange, prepared: PreparedRoute) -> Awaitable[UpstreamConnection]:
    """Wait for a connection, new or idle, and return it; the wait is a span."""
    work = prepared.pool.acquire(x.client_name or "", fresh=x.resent)
    return work if x.trace is None else x.trace.timed("connect", work)


def answered(trace: Trace, x: Exchange, prepared: PreparedRoute) -> None:
    """End the span of one attempt, with the vendor's status or with the exception that is being raised."""
    trace.answered(x.vendor_status, x.attempts, prepared.route.upstream, sys.exception())


def end(trace: Trace, x: Exchange) -> tuple[str, bool]:
    """End the request's span; return its trace id, and whether the trace is recorded."""
    route = x.prepared.route if x.prepared is not None else None
    trace.request(
        method=x.request.method,
        route=route.name if route is not None else None,
        prefix=route.prefix if route is not None else None,
        client=x.client_name,
        status=x.status,
        code=x.code,
        request_id=x.request_id,
    )
    return trace.trace_id, trace.sampled
