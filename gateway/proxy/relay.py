"""The way back: a vendor's response head and body to the app, streamed, in the framing that the app understands.

Nothing is decompressed and no redirect is followed. Added are `Via`, the request id, a missing `Date`, and
`Cache-Control` on routes that inject (RFC 9111 §3.5); framing is written anew. Trailers are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import UpstreamMalformed
from gateway.proxy.fields import VIA
from gateway.proxy.problem import date_line
from gateway.proxy.upload import LAST_CHUNK, chunk
from gateway.proxy.wire import AT_ONCE

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute
    from gateway.proxy.response import Outbound
    from gateway.proxy.upstream import UpstreamConnection

_NO_BODY: Final = frozenset({204, 304})
_VIA: Final = b"Via: 1.1 " + VIA
_PRIVATE: Final = b"Cache-Control: private, no-store"


def switching(x: Exchange, head: Outbound) -> None:
    """Write the head of a 101; the tunnel does the rest."""
    if head.upgrade is None or head.upgrade.lower() != b"websocket":
        raise UpstreamMalformed(reason="101 without Upgrade: websocket")
    x.head_sent = True
    lines = (head.status_line, *head.lines, _VIA, b"Connection: Upgrade\r\nUpgrade: websocket", b"", b"")
    x.client.write(b"\r\n".join(lines))


def begin(x: Exchange, prepared: PreparedRoute, upstream: UpstreamConnection, head: Outbound, body: Body) -> bool:
    """Write the head and what is there of the body; return whether that was all. `stream` writes the rest."""
    lines = [head.status_line, *head.lines, x.our_fields]
    if not head.date:
        lines.append(date_line())
    if prepared.private and not head.cache_control:
        lines.append(_PRIVATE)
    bodyless = x.is_head or head.code in _NO_BODY
    x.chunked = _frame(x, lines, head, bodyless=bodyless)
    if not head.keep_alive or (head.length is None and not head.chunked and not bodyless):
        upstream.dirty = True
    if not x.keep_alive:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    data = b"" if bodyless else body.take_some()
    whole = bodyless or body.drained
    if not whole:
        upstream.watch_silence()
    if x.prefetched and not bodyless:
        data = x.prefetched + data
    if x.guard is not None:
        data = x.guard.feed(data, last=whole)
    x.head_sent = True
    x.bytes_out = len(data)
    if x.chunked:
        x.client.write_pieces(b"\r\n".join(lines), *(chunk(data) if data else ()), LAST_CHUNK if whole else b"")
    elif len(data) > AT_ONCE:
        x.client.write_pieces(b"\r\n".join(lines), data)
    else:
        x.client.write(b"\r\n".join(lines) + data)
    return whole


def _frame(x: Exchange, lines: list[bytes], head: Outbound, *, bodyless: bool) -> bool:
    """Append the framing for the app; return whether the body is chunked."""
    if head.length is not None and head.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: no Content-Length in a 204
        lines.append(b"Content-Length: %d" % head.length)
        return False
    if bodyless:
        return False
    if x.request.http_1_1:
        lines.append(b"Transfer-Encoding: chunked")
        return True
    x.keep_alive = False  # HTTP/1.0 knows the end of such a body only by the end of the connection
    return False


async def stream(x: Exchange, body: Body) -> None:
    """Write the rest of a body as it comes; raises what the vendor's connection ends with if it breaks off."""
    client = x.client
    while True:
        if client.writing_paused:
            client.active = True
            await client.drain()
        data = await body.read()
        ended = not data
        if x.guard is not None:
            data = x.guard.feed(data, last=ended)
        if not data:
            if ended:
                break
            continue
        x.bytes_out += len(data)
        client.write_pieces(*(chunk(data) if x.chunked else (data,)))
    if x.chunked:
        client.write(LAST_CHUNK)
