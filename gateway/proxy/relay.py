"""Sends the vendor's response head and body to the app, streamed, in the framing that the app's HTTP version allows.

Nothing is decompressed and no redirect is followed. Added are `Via`, the request id, a missing `Date`, and
`Cache-Control` on routes that inject (RFC 9111 §3.5). Framing is written anew, trailers are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import UpstreamMalformed
from gateway.proxy import echo
from gateway.proxy.fields import CHUNKED_LINE, UPGRADE_LINES, VIA
from gateway.proxy.problem import date_line
from gateway.proxy.upload import LAST_CHUNK, chunk
from gateway.proxy.wire import AT_ONCE, HIGH_WATER_TLS

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute
    from gateway.proxy.response import Outbound
    from gateway.proxy.upstream import UpstreamConnection

_NO_BODY: Final = frozenset({204, 304})
_VIA: Final = b"Via: 1.1 " + VIA
_VIA_AND_ID: Final = _VIA + b"\r\nX-Request-Id: "
_PRIVATE: Final = b"Cache-Control: private, no-store"


def switching(x: Exchange, prepared: PreparedRoute, head: Outbound) -> None:
    """Write the head of a 101 response; the bytes behind it are the tunnel's."""
    if head.upgrade is None or head.upgrade.lower() != b"websocket":
        raise UpstreamMalformed(reason="101 without Upgrade: websocket")
    if prepared.route.echo_guard:
        echo.mask_head(head, prepared.echoes(x.tokens), prepared.metrics)
    x.head_sent = True
    lines = (head.status_line, *head.lines, _VIA_AND_ID + x.written_id, UPGRADE_LINES, b"", b"")
    x.client.write(b"\r\n".join(lines))


def begin(x: Exchange, prepared: PreparedRoute, upstream: UpstreamConnection, head: Outbound, body: Body) -> bool:
    """Write the head and the body bytes that have arrived; return whether that was all. `stream` writes the rest."""
    if prepared.route.echo_guard:
        _guard(x, prepared, head)
    lines = [head.status_line, *head.lines, _VIA_AND_ID + x.written_id]
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
    if x.chunked or len(data) > AT_ONCE:
        _write_pieces(x, b"\r\n".join(lines), data, whole=whole)
    else:
        x.client.write(b"\r\n".join(lines) + data)
    return whole


def _write_pieces(x: Exchange, head: bytes, data: bytes, *, whole: bool) -> None:
    if x.chunked:
        x.client.write_pieces(head, *(chunk(data) if data else ()), LAST_CHUNK if whole else b"")
    else:
        x.client.write_pieces(head, data)


def _guard(x: Exchange, prepared: PreparedRoute, head: Outbound) -> None:
    """Mask our tokens in the fields, and set up the guard that masks them in the body."""
    echoes = prepared.echoes(x.tokens)
    echo.mask_head(head, echoes, prepared.metrics)
    x.guard = echo.BodyGuard(echoes, prepared.metrics)


def _frame(x: Exchange, lines: list[bytes], head: Outbound, *, bodyless: bool) -> bool:
    """Append the framing for the app; return whether the body is chunked."""
    if head.length is not None and head.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: no Content-Length in a 204
        lines.append(b"Content-Length: %d" % head.length)
        return False
    if bodyless:
        return False
    if x.request.http_1_1:
        lines.append(CHUNKED_LINE)
        return True
    x.keep_alive = False  # in HTTP/1.0 only the end of the connection ends such a body
    return False


async def _write_in_parts(x: Exchange, data: bytes) -> None:
    """Write to an app over TLS no more than it reads, so that a slow one does not make us hold its bytes twice."""
    client, view = x.client, memoryview(data)
    for start in range(0, len(data), HIGH_WATER_TLS):
        if client.writing_paused:
            client.active = True
            await client.drain()
        part = view[start : start + HIGH_WATER_TLS]
        client.write_pieces(*(chunk(part) if x.chunked else (part,)))


async def stream(x: Exchange, body: Body) -> None:
    """Write the rest of a body as it arrives. Raises Aborted or another ExchangeError if the body breaks off."""
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
        if client.encrypts and len(data) > HIGH_WATER_TLS:
            await _write_in_parts(x, data)
        else:
            client.write_pieces(*(chunk(data) if x.chunked else (data,)))
    if x.chunked:
        client.write(LAST_CHUNK)
