"""What `deny` and `allow` mean: patterns, compared with every reading of a path. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.patterns.matcher import Matcher
from gateway.patterns.readings import GLOBSTAR, STAR, distinct_readings, folded, readings

if TYPE_CHECKING:
    from collections.abc import Iterable

_CUT: Final = re.compile(r"[?#].*|::\$.*", re.DOTALL)
"""Where some servers end a decoded path: at a query or fragment, or at the name of an NTFS stream."""


class DenyPatterns:
    """Names a path if any of its readings matches any reading of a pattern, in any case.

    A reading also ends at an encoded `?` or `#`, because some servers decode before they look for the query, and at
    `::$`, because Windows opens the same file.
    """

    __slots__ = ("_matcher",)

    def __init__(self, patterns: Iterable[str]) -> None:
        read = [reading for pattern in patterns for reading in _read(pattern)]
        self._matcher = Matcher([folded(reading).rstrip("/") or "/" for reading in read])

    def name(self, path: str, *, plain: bool = False) -> bool:
        """Whether a pattern names `path`. Raises PathRefused if the path takes too long to judge.

        `plain`: `path` is known to have only one reading (`is_plain`), which makes this cheap.
        """
        matcher = self._matcher
        if plain:
            return matcher.matches(folded(path))
        texts = dict.fromkeys(distinct_readings(path))
        texts |= dict.fromkeys([_CUT.sub("", text) for text in texts if "?" in text or "#" in text or "::$" in text])
        return any(matcher.matches(text) for text in dict.fromkeys([folded(text) for text in texts]))


class AllowPatterns:
    """Names a path if each of its readings matches a pattern that is read in the same way, case kept."""

    __slots__ = ("_all", "_by_reading", "_only")

    def __init__(self, patterns: Iterable[str]) -> None:
        read = [_read(pattern) for pattern in patterns]
        matchers: dict[tuple[str, ...], Matcher] = {}
        self._by_reading = [
            matchers.setdefault(patterns_read, Matcher(patterns_read)) for patterns_read in zip(*read, strict=True)
        ]
        """For each reading, the patterns read likewise; empty without patterns, which names nothing."""
        self._all = tuple(matchers.values()) or (Matcher(()),)
        self._only = self._all[0] if len(self._all) == 1 else None
        """The only matcher, if every pattern has only one reading."""

    def name(self, path: str, *, plain: bool = False) -> bool:
        """Whether the patterns name `path`, of which `plain` says what it does in `DenyPatterns.name`.

        Raises PathRefused if the path takes too long to judge.
        """
        only = self._only
        if only is not None:
            return only.matches(path) if plain else all(only.matches(text) for text in distinct_readings(path))
        if plain:
            return all(each.matches(path) for each in self._all)
        pairs = dict.fromkeys(zip(readings(path), self._by_reading, strict=True))
        return all(matcher.matches(text) for text, matcher in pairs)


def _read(pattern: str) -> tuple[str, ...]:
    """Return the readings of a pattern, with its wildcards as control characters."""
    return readings(pattern.replace("**", GLOBSTAR).replace("*", STAR))
