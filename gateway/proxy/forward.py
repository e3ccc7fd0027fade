"""Send an app's request to the vendor with the injected token, and decide when a request may be sent twice.

The counterpart of `relay.py`. Framing is generated from the parsed request, never copied (RFC 9112 §6). The injected
fields follow the app's own, from which `fields.py` has removed everything that could be mistaken for them.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.model.http import IDEMPOTENT_METHODS
from gateway.proxy.fields import CHUNKED_LINE, UPGRADE_LINES, values
from gateway.proxy.upload import NoUpload, ReplayBudget, Upload

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute
    from gateway.proxy.response import Outbound
    from gateway.proxy.upstream import UpstreamConnection

_CONNECTION_LOGIN: Final = re.compile(
    r"(?:^|,)[ \t]*(?:negotiate|ntlm|kerberos|nego2)(?![!#$%&'*+.^`|~\w-])", re.IGNORECASE
)
"""A login or a challenge of a scheme that authenticates a connection instead of a request."""


def upload(x: Exchange, prepared: PreparedRoute, budget: ReplayBudget) -> Upload:
    """Return the request's body, ready to be sent; buffered for a replay if the route allows one."""
    route = prepared.route
    return Upload(
        x.client,
        x.body,
        chunked=x.inbound.chunked,
        limit=route.max_body,
        keep_up_to=route.replay.up_to if may_replay(x, prepared) else 0,
        budget=budget,
    )


def send(x: Exchange, prepared: PreparedRoute, body: Upload | NoUpload, upstream: UpstreamConnection) -> None:
    """Write the head and as much of the body as has arrived."""
    x.attempts += 1
    x.vendor_status = 0
    x.sent_at = monotonic()
    upstream.begin(prepared.route.timeouts, head=x.is_head, spent=x.sent_at - x.started)
    asks = x.inbound.expects_continue and not body.whole
    head, start = _head(x, prepared, asks=asks), body.start(upstream, ask=asks)
    upstream.write_pieces(head, *start) if start else upstream.write(head)
    if body.sent:
        upstream.await_head()


def _head(x: Exchange, prepared: PreparedRoute, *, asks: bool) -> bytes:
    inbound = x.inbound
    lines = [x.request.method.encode("ascii") + b" " + x.target + prepared.fixed, *inbound.lines]
    lines += prepared.lines(x.tokens)
    lines.append(prepared.via_and_id + x.written_id)  # behind the app's own `Via` (RFC 9110 §7.6.3)
    if inbound.chunked:
        lines.append(CHUNKED_LINE)
    elif inbound.length is not None:
        lines.append(b"Content-Length: %d" % inbound.length)
    if asks:
        lines.append(b"Expect: 100-continue")
    if inbound.websocket and prepared.route.websocket:
        lines.append(UPGRADE_LINES)
    if prepared.route.forwarded != "off":
        lines.append(forwarded_line(prepared.route.forwarded, x.remote, "".join(x.request.values(b"host"))))
    if x.trace is not None:
        x.trace.upward(lines)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def logs_in_connection(x: Exchange, head: Outbound) -> bool:
    """Whether the app's login may belong to the vendor's connection: NTLM's and Negotiate's do (RFC 4559 §6).

    Whoever used such a connection next would be answered as this app.
    """
    return (
        any(_CONNECTION_LOGIN.match(value) for value in x.request.values(b"authorization"))
        or any(_CONNECTION_LOGIN.search(value) for value in values(head.lines, b"www-authenticate"))
        or head.value(b"persistent-auth").lower() == "true"
    )


def may_replay(x: Exchange, prepared: PreparedRoute) -> bool:
    """Whether the route allows this method to be sent again after the vendor refused the token."""
    methods = prepared.route.replay.methods
    return methods == "all" or (methods == "idempotent" and x.request.method in IDEMPOTENT_METHODS)


def may_resend(x: Exchange, upstream: UpstreamConnection, body: Upload | NoUpload) -> bool:
    """Whether a reused connection closed without an answer and the method allows a retry (RFC 9110 §9.2.2)."""
    stale = upstream.exchanges > 1 and upstream.silent
    return stale and body.replayable and not x.resent and x.request.method in IDEMPOTENT_METHODS


def forwarded_line(kind: str, remote: str, host: str) -> bytes:
    """Return the field that names the app's address to the vendor (RFC 7239 §4, or the older X-Forwarded-For)."""
    if kind == "rfc7239":
        node = f'"[{remote}]"' if ":" in remote else remote
        return f'Forwarded: for={node};host="{host}"'.encode("latin-1")
    return f"X-Forwarded-For: {remote}".encode("latin-1")
