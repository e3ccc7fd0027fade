"""Where an exchange meets its trace. Without tracing every function here is an `is None` and nothing else.

Knows the exchange and `observe.Trace`; what a span holds is decided there.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.model import Token
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute
    from gateway.proxy.upstream import UpstreamConnection


def tokens(x: Exchange, prepared: PreparedRoute) -> Awaitable[tuple[Token, ...]]:
    """Return the route's tokens when they are there; the wait is a span."""
    work = prepared.get_tokens()
    return work if x.trace is None else x.trace.timed("token", work)


def connection(x: Exchange, prepared: PreparedRoute) -> Awaitable[UpstreamConnection]:
    """Return a connection when there is one, opened or come free; the wait is a span."""
    work = prepared.pool.acquire(x.client_name or "", fresh=x.resent)
    return work if x.trace is None else x.trace.timed("connect", work)


def answered(x: Exchange, prepared: PreparedRoute) -> None:
    """End the span of one sending, with the vendor's status or with the exception that is on its way out."""
    if x.trace is not None:
        x.trace.answered(x.vendor_status, x.attempts, prepared.route.upstream, sys.exception())


def end(x: Exchange) -> bytes | tuple[str, bool] | None:
    """End the request's span; return the id of its trace, and whether anybody records that trace.

    Without tracing of our own, it is what the app's `traceparent` says.
    """
    trace = x.trace
    if trace is None:
        return x.inbound.traceparent if x.inbound is not None else None
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
