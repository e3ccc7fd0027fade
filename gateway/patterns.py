"""Path patterns and path templates, compiled: `*` is anything within a segment, `**` anything at all, `{id}` a segment.

Pure text rules that routes and clients share; knows no route and no client. What is denied is looked at as the most
lenient server would read it, what is allowed must fit as it stands *and* decoded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

_PARAMETERS: Final = re.compile(r";[^/]*")
_PIECES: Final = re.compile(r"(\*\*?)")
_NAMES: Final = re.compile(r"(\{[^{}/]*\})")
ALLOWING, DENYING = 0, re.IGNORECASE
"""Flags for `compiled`: a server may take no notice of case, so what is denied is denied in any."""


def compiled(patterns: Iterable[str], flags: int) -> re.Pattern[str] | None:
    """Return one expression that matches what any of `patterns` means; None for no pattern."""
    parts = [
        "".join({"**": ".*", "*": "[^/]*"}.get(piece, re.escape(piece)) for piece in _PIECES.split(pattern))
        for pattern in patterns
    ]
    # `/oauth/**` also means `/oauth` itself: a prefix that is denied is denied whole.
    parts = [re.sub(r"/\.\*\Z", "(?:/.*)?", part) for part in parts]
    return re.compile(f"(?:{'|'.join(parts)})/?\\Z", flags | re.DOTALL) if parts else None


def decoded(path: str) -> str:
    """Return the path as a server sees it that decodes first."""
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path


def bare(path: str) -> str:
    """Return a decoded path as a server sees it that drops path parameters (RFC 3986 §3.3)."""
    return _PARAMETERS.sub("", path) if ";" in path else path


class Templates:
    """Path templates of a route: the most literal one that fits stands for the path, identifiers left out."""

    __slots__ = ("_pattern", "_templates")

    def __init__(self, templates: Iterable[str]) -> None:
        self._templates = tuple(sorted(templates, key=lambda template: len(_NAMES.findall(template))))
        parts = [
            "".join("[^/]+" if _NAMES.fullmatch(piece) else re.escape(piece) for piece in _NAMES.split(template))
            for template in self._templates
        ]
        self._pattern = re.compile("|".join(f"({part})/?\\Z" for part in parts)) if parts else None

    def match(self, path: str) -> str | None:
        """Return the template that `path` (below the prefix, without query) fits, or None."""
        found = self._pattern.match(path) if self._pattern is not None else None
        return self._templates[found.lastindex - 1] if found is not None and found.lastindex else None
