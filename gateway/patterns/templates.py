"""Path templates of a route, which stand for a path in the log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES: Final = re.compile(r"(\{[^{}/]*\})")


class Templates:
    """The templates of one route, as `/info/{id}`. The most literal template that fits a path represents it."""

    __slots__ = ("_pattern", "_templates")

    def __init__(self, templates: Iterable[str]) -> None:
        ordered = sorted(templates, key=lambda template: len(_NAMES.findall(template)))
        parts = [
            "".join("[^/]+" if _NAMES.fullmatch(piece) else re.escape(piece) for piece in _NAMES.split(template))
            for template in ordered
        ]
        self._pattern = re.compile("|".join(f"({part})/?\\Z" for part in parts) or "(?!)")
        self._templates: dict[int | None, str] = dict(enumerate(ordered, 1))
        """By the number of the template's group in the pattern."""

    def match(self, path: str) -> str | None:
        """Return the template that fits `path` (below the prefix, without query), or None."""
        fit = self._pattern.match(path)
        return None if fit is None else self._templates.get(fit.lastindex)
