"""The echo guard: masks our token where a vendor's answer repeats it: in a field, the reason, or the body's beginning.

For endpoints that send the request's fields back (debugging aids, some error pages). A mask has the length of what it
covers, so lengths and framing stay valid. The guard finds the token plain, in hex and in base64 at any alignment: in
the bytes as they are, without NUL bytes (UTF-16, UTF-32), and with escapes undone, several layers deep (percent, JSON
and JavaScript escapes, HTML references). It cannot find a token that is compressed, or one half of a token, so routes
with the guard ask vendors for plain and whole answers. It searches every body, because `Content-Encoding` may be wrong.
"""

from __future__ import annotations

import re
from html.entities import html5
from typing import TYPE_CHECKING, Final

from gateway.observe import forms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model import Token
    from gateway.observe import RouteMetrics
    from gateway.proxy.response import Outbound

    View = tuple[bytes, list[int]]

GUARDED: Final = 64 * 1024
"""Bytes of a body that are searched."""
LAYERS: Final = 3
"""How many layers of escapes are undone."""
_WIDEST: Final = 10
"""Bytes of the longest escape of one character that is expected, as in `\\\\u002B` or `&amp;#x2B;`."""
_SHORTEST: Final = 4
"""Bytes of the shortest token that is masked; a shorter one would mask half of the text."""
_NULS: Final = re.compile(rb"\x00+")
_ESCAPE: Final = re.compile(
    rb"%(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|\\(?:u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|x[0-9A-Fa-f]{2}|[^0-9A-Za-z\s])"
    rb"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,31});"
)
_UNFINISHED: Final = re.compile(rb"(?:%u?[0-9A-Fa-f]{0,4}|\\(?:[ux]\{?[0-9A-Fa-f]{0,6})?|&#?[0-9A-Za-z]{0,31})\Z")
_LONGEST_ESCAPE: Final = 34
"""Bytes, of a reference by name."""
_ASCII: Final = 128
_ASTERISK: Final = 42


def echoes_of(token: Token) -> tuple[bytes, ...]:
    """Return what to search for, the longest first."""
    value = token.value.reveal()
    echoes = {text.encode("utf-8", "surrogateescape") for text in (*forms(value), value)}
    return tuple(sorted((each for each in echoes if len(each) >= _SHORTEST), key=len, reverse=True))


class BodyGuard:
    """Masks tokens in a body that arrives in pieces; holds back only bytes that may be the beginning of a token."""

    __slots__ = ("_echoes", "_held", "_left", "_metrics", "_seen")

    def __init__(self, echoes: tuple[bytes, ...], metrics: RouteMetrics) -> None:
        self._echoes = echoes
        self._metrics = metrics
        self._left = GUARDED if echoes else 0
        self._held = b""
        self._seen = False

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Return what may be sent to the app now; with `last`, everything."""
        if self._left <= 0 and not self._held:
            return data
        before = len(self._held)
        data = self._held + data
        window = before + self._left + len(self._echoes[0]) * _WIDEST
        masked, keep = _mask_and_hold(data[:window], self._echoes)
        masked += data[window:]
        if masked != data and not self._seen:
            self._seen = True
            self._metrics.echoed("body")
        self._left -= len(data) - before
        if last or self._left <= 0:
            keep = 0
        self._held = masked[len(masked) - keep :]
        return masked[: len(masked) - keep]


def mask(data: bytes, echoes: Iterable[bytes]) -> bytes:
    """Return `data` with every echo replaced by as many asterisks, in whatever escapes it is written."""
    return _mask_and_hold(data, tuple(echoes))[0]


def _mask_and_hold(data: bytes, echoes: tuple[bytes, ...]) -> tuple[bytes, int]:
    """Return `data` masked, and how many bytes at its end may be the beginning of an echo."""
    for echo in echoes:
        if echo in data:
            data = data.replace(echo, b"*" * len(echo))
    keep = _unsure(data, echoes)
    views: list[Callable[[bytes], View]] = []
    text = data
    if b"\0" in text:
        views.append(_without_nuls)
        text = _NULS.sub(b"", text)
        data, keep = _mask_in_view(data, text, views, echoes, keep)
    for _ in range(LAYERS):
        plain = _ESCAPE.sub(_meant, text)
        if plain == text:
            break
        views.append(_unescaped)
        text = plain
        data, keep = _mask_in_view(data, text, views, echoes, keep)
    return data, keep


def _mask_in_view(
    data: bytes, text: bytes, views: list[Callable[[bytes], View]], echoes: tuple[bytes, ...], keep: int
) -> tuple[bytes, int]:
    """Mask in `data` what its view `text` shows; return it, and how many bytes of its end to hold back."""
    unsure = _unsure(text, echoes)
    hits = [echo for echo in echoes if echo in text]
    if not hits and not unsure:
        return data, keep
    places = _places(data, views)
    masked = bytearray(data)
    for echo in hits:
        at = text.find(echo)
        while at >= 0:
            begin, end = places[at], places[at + len(echo)]
            # Between two characters of UTF-16 there are NUL bytes, which stay; an escape is masked whole.
            masked[begin:end] = bytes([_ASTERISK if byte else 0 for byte in data[begin:end]])
            at = text.find(echo, at + len(echo))
    if unsure:
        keep = max(keep, len(data) - places[len(text) - unsure])
    return bytes(masked), keep


def _unsure(text: bytes, echoes: tuple[bytes, ...]) -> int:
    """Return how many bytes at the end of `text` may be the beginning of an echo, or of an escape inside one."""
    unfinished = _UNFINISHED.search(text, max(0, len(text) - _LONGEST_ESCAPE))
    end = unfinished.start() if unfinished is not None else len(text)
    return len(text) - end + _beginning(text[:end], echoes)


def _places(data: bytes, views: list[Callable[[bytes], View]]) -> list[int]:
    """Return for each byte of the last view where it begins in `data`, and the end of `data`."""
    places = list(range(len(data) + 1))
    for view in views:
        data, inner = view(data)
        places = [places[index] for index in inner]
    return places


def _without_nuls(data: bytes) -> View:
    return _NULS.sub(b"", data), [index for index, byte in enumerate(data) if byte] + [len(data)]


def _unescaped(data: bytes) -> View:
    pieces: list[bytes] = []
    places: list[int] = []
    at = 0
    for escape in _ESCAPE.finditer(data):
        pieces += [data[at : escape.start()], meant := _meant(escape)]
        places += [*range(at, escape.start()), *[escape.start()] * len(meant)]
        at = escape.end()
    pieces.append(data[at:])
    places += range(at, len(data) + 1)
    return b"".join(pieces), places


def _meant(escape: re.Match[bytes]) -> bytes:
    """Return the ASCII character that an escape means; the escape itself if it means another one."""
    text = escape[0]
    if text[:1] == b"&":
        if text[1:2] != b"#":
            char = html5.get(text[1:].decode("ascii"), "")
            return char.encode("ascii") if len(char) == 1 and char.isascii() else text
        code = int(text[3:-1], 16) if text[2:3] in b"xX" else int(text[2:-1])
    elif text[1:2] in b"ux" or text[:1] == b"%":
        code = int(text.strip(b"%\\ux{}"), 16)
    else:
        return text[1:]
    return bytes([code]) if 0 < code < _ASCII else text


def _beginning(data: bytes, echoes: Iterable[bytes]) -> int:
    """Return how many bytes at the end of `data` may be the beginning of an echo."""
    longest = 0
    for echo in echoes:
        at = data.find(echo[:1], max(0, len(data) - len(echo) + 1))
        while 0 <= at < len(data) - longest:
            if echo.startswith(data[at:]):
                longest = len(data) - at
                break
            at = data.find(echo[:1], at + 1)
    return longest


def mask_head(head: Outbound, echoes: tuple[bytes, ...], metrics: RouteMetrics) -> None:
    """Mask the reason and the fields of an answer."""
    reason = mask(head.status_line, echoes)
    lines = [mask(line, echoes) for line in head.lines]
    if lines != head.lines or reason != head.status_line:
        head.lines[:] = lines
        head.status_line = reason
        metrics.echoed("header")
