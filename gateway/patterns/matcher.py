"""Matches texts with patterns in linear time, whatever the pattern. Pure.

Patterns hold `STAR` (anything within a segment) and `GLOBSTAR` (anything). `/**/` also matches a single slash, `/**` at
the end also matches nothing, and any pattern admits a slash at the end. A pattern whose regular expression cannot
backtrack becomes one; any other is matched for all positions of the text at once, with the positions as bits of an
integer: one operation per character of the *pattern* (Baeza-Yates and Gonnet 1992; Myers 1999, for `STAR`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.patterns.readings import GLOBSTAR, STAR

if TYPE_CHECKING:
    from collections.abc import Iterable

_SOME_SEGMENTS: Final = "\x04"
"""Stands for any number of whole segments, none included: what `**/` means behind a slash."""
_REST: Final = "\x05"
"""Stands for nothing, or a slash and anything: what `/**` means at the end."""
_WILD: Final = re.compile(f"([{STAR}{GLOBSTAR}{_SOME_SEGMENTS}{_REST}])")
_EXPRESSIONS: Final = {STAR: "[^/]*", GLOBSTAR: ".*", _SOME_SEGMENTS: "(?:.*/)?", _REST: "(?:/.*)?"}
_LANE: Final = 8
"""Bits for each position of a text: a byte, because bytes become an integer at once."""


class Matcher:
    """Any number of patterns; knows whether one of them matches a text."""

    __slots__ = ("_expression", "_others")

    def __init__(self, patterns: Iterable[str]) -> None:
        pieces = [_pieces(pattern) for pattern in dict.fromkeys(patterns)]
        quick = ["".join(_EXPRESSIONS.get(each, re.escape(each)) for each in one) for one in pieces if _is_quick(one)]
        self._expression = re.compile(f"(?:{'|'.join(quick)})/?\\Z", re.DOTALL) if quick else None
        self._others = tuple([_Bits(one) for one in pieces if not _is_quick(one)])

    def matches(self, text: str) -> bool:
        """Whether a pattern matches the whole text."""
        expression = self._expression
        if expression is not None and expression.match(text) is not None:
            return True
        return bool(self._others) and any(other.matches(text) for other in self._others)


def _pieces(pattern: str) -> list[str]:
    """Return the literal texts and wildcards of a pattern, one after the other."""
    pattern = re.sub(f"[{STAR}{GLOBSTAR}]*{GLOBSTAR}[{STAR}{GLOBSTAR}]*", GLOBSTAR, pattern)
    pattern = re.sub(f"{STAR}+", STAR, pattern)
    pattern = re.sub(f"(?<=/){GLOBSTAR}/", _SOME_SEGMENTS, pattern)
    pattern = re.sub(f"/{_SOME_SEGMENTS}*{GLOBSTAR}\\Z", _REST, pattern)
    return [piece for piece in _WILD.split(pattern) if piece]


def _is_quick(pieces: list[str]) -> bool:
    """Whether the regular expression of a pattern takes linear time.

    That is so with one `STAR` in a segment, since there is one way to match it, and with one wildcard that crosses
    segments, since only text without wildcards follows.
    """
    shape = "".join(piece if piece in _EXPRESSIONS else re.sub(r"[^/]+", "x", piece) for piece in pieces)
    crossing = [index for index, char in enumerate(shape) if char in (GLOBSTAR, _SOME_SEGMENTS, _REST)]
    if crossing and STAR in shape[crossing[0] :]:
        return False
    return len(crossing) <= 1 and all(segment.count(STAR) <= 1 for segment in shape.split("/"))


class _Bits:
    """One pattern, matched at all positions of a text at once."""

    __slots__ = ("_pieces", "_start", "_tables")

    def __init__(self, pieces: list[str]) -> None:
        anchored = pieces[0] not in _EXPRESSIONS
        self._start = pieces[0] if anchored else ""
        self._pieces = [
            each.encode("utf-8") if each not in _EXPRESSIONS else each for each in (pieces[1:] if anchored else pieces)
        ]
        literals = {byte for each in self._pieces if isinstance(each, bytes) for byte in each} | {ord("/")}
        self._tables = {byte: bytes([int(other == byte) for other in range(256)]) for byte in literals}

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        if not text.startswith(self._start):
            return False
        data = text[len(self._start) :].encode("utf-8")
        end = 1 << len(data) * _LANE
        lanes = int.from_bytes(b"\1" * (len(data) + 1), "little")
        where: dict[int, int] = {}
        slashes = self._where(ord("/"), data, where)
        inside = (lanes - end - slashes) * 0xFF
        places = 1
        for piece in self._pieces:
            places = self._after(piece, places, data, (slashes, inside, lanes), where)
            if not places:
                return False
        return bool((places | (places & slashes) << _LANE) & end)

    def _where(self, byte: int, data: bytes, where: dict[int, int]) -> int:
        """Return at which positions of `data` the byte is; `where` remembers that for each byte."""
        places = where.get(byte)
        if places is None:
            places = where[byte] = int.from_bytes(data.translate(self._tables[byte]), "little")
        return places

    def _after(
        self, piece: str | bytes, places: int, data: bytes, masks: tuple[int, int, int], where: dict[int, int]
    ) -> int:
        """Return where the piece may end that begins at one of `places`."""
        slashes, inside, lanes = masks
        if isinstance(piece, bytes):
            for byte in piece:
                places = (places & self._where(byte, data, where)) << _LANE
                if not places:
                    break
            return places
        if piece == STAR:
            # The carry of the addition runs from each place to the end of its segment.
            return ((((places & inside) + inside) ^ inside) | places) & lanes
        behind = places if piece != _REST else (places & slashes) << _LANE
        anywhere = lanes & -(behind & -behind)
        if piece == GLOBSTAR:
            return anywhere
        if piece == _REST:
            return places | anywhere
        return places | (anywhere & slashes) << _LANE
