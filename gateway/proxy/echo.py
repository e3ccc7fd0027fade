"""The echo guard: masks our token where a vendor's answer repeats it, in a field or at the beginning of a text body.

For endpoints that send the request's fields back (debugging aids, some error pages). A mask has the length of what it
covers, so lengths and framing stay valid. The guard finds the token plain, percent-encoded, in JSON escapes, in hex and
in base64 at any alignment. It cannot search compressed bodies, so routes with the guard ask vendors for plain ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.observe import forms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model import Token
    from gateway.observe import RouteMetrics
    from gateway.proxy.response import Outbound

GUARDED: Final = 64 * 1024
"""Bytes of a body that are searched."""
_TEXT: Final = re.compile(
    r"text/|application/(?:[a-z0-9.+-]*(?:json|xml|yaml|javascript|html)|x-www-form-urlencoded|graphql)", re.IGNORECASE
)


def echoes_of(token: Token) -> tuple[bytes, ...]:
    """Return what to search for, the longest first."""
    echoes = {text.encode("utf-8", "surrogateescape") for text in forms(token.value.reveal())}
    echoes |= {text.replace(b"/", rb"\/") for text in echoes}  # as some JSON writers escape it
    return tuple(sorted(echoes, key=len, reverse=True))


class BodyGuard:
    """Masks tokens in a body that arrives in pieces; holds back only bytes that may be the beginning of a token."""

    __slots__ = ("_echoes", "_held", "_left", "_metrics", "_seen")

    def __init__(self, echoes: tuple[bytes, ...], metrics: RouteMetrics) -> None:
        self._echoes = echoes
        self._metrics = metrics
        self._left = GUARDED
        self._held = b""
        self._seen = False

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Return what may be sent to the app now; with `last`, everything."""
        if self._left <= 0 and not self._held:
            return data
        data = self._held + data
        window = len(self._held) + self._left + len(self._echoes[0])
        masked = mask(data[:window], self._echoes) + data[window:]
        if masked != data and not self._seen:
            self._seen = True
            self._metrics.echoed("body")
        self._left -= len(data) - len(self._held)
        keep = 0 if last or self._left <= 0 else _beginning(masked, self._echoes)
        self._held = masked[len(masked) - keep :]
        return masked[: len(masked) - keep]


def mask(data: bytes, echoes: Iterable[bytes]) -> bytes:
    """Return `data` with every echo replaced by as many asterisks."""
    for echo in echoes:
        if echo in data:
            data = data.replace(echo, b"*" * len(echo))
    return data


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
    """Mask the fields of an answer."""
    lines = [mask(line, echoes) for line in head.lines]
    if lines != head.lines:
        head.lines[:] = lines
        metrics.echoed("header")


def body_guard(head: Outbound, echoes: tuple[bytes, ...], metrics: RouteMetrics) -> BodyGuard | None:
    """Return a guard for the answer's body; None if it is not plain text."""
    plain = head.value(b"content-encoding").lower() in {"", "identity"}
    if plain and _TEXT.match(head.value(b"content-type")) is not None:
        return BodyGuard(echoes, metrics)
    return None
