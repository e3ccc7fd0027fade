"""Request target → route and outbound path, or a rejection. Pure: no I/O, no `async`, no clock.

The path that is matched is the path that is sent. A path that two servers could read differently (dot segments, empty
segments, backslashes, double encoding, control bytes; RFC 3986 §6, RFC 9112 §3.2) is rejected before a token is used;
every other path passes byte for byte. An absolute-form target never chooses the upstream.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gateway.errors import PathRefused, RouteNotFound
from gateway.patterns import AllowPatterns, DenyPatterns, is_plain, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")

_AUTHORITY: Final = re.compile(
    r"https?://(?:[^/?#@]*@)?(?:[A-Z0-9._~%!$&'()*+,;=-]+|\[[0-9A-F:.]+\])(?::[0-9]*)?(?=[/?#]|\Z)", re.IGNORECASE
)
"""With a host, as RFC 9110 §4.2.1 demands; the same characters as in `Host`."""


def split_target(target: str) -> tuple[str, str]:
    """Return the path and the query (with its question mark, or empty) of a request target.

    Accepts origin-form and absolute-form (whose authority is dropped, RFC 9112 §3.2.2). Raises PathRefused for
    asterisk-form, authority-form, no valid host in an absolute one, a fragment, or bytes outside visible ASCII.
    """
    if not target.startswith("/"):
        authority = _AUTHORITY.match(target)
        if authority is None:
            raise PathRefused("The request target is neither a path nor a URL with a host")
        target = target[authority.end() :]
        if not target.startswith("/"):
            target = "/" + target
    if "#" in target:
        raise PathRefused("The request target holds a fragment")
    path, mark, query = target.partition("?")
    if mark and not (query.isascii() and query.isprintable()):
        raise PathRefused("The query holds a byte that is not visible ASCII")
    return path, mark + query


def check_path(path: str) -> bool:
    """Return whether the path has only one reading. Raises PathRefused, with the reason, if servers disagree on it."""
    if is_plain(path):
        return True
    reason = refusal(path)
    if reason is not None:
        raise PathRefused(f"The path holds {reason}")
    return False


class PathRules:
    """A route's `allow` and `deny` patterns, for paths below its prefix. Deny wins."""

    __slots__ = ("_allow", "_deny")

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._allow = AllowPatterns(allow) if allow else None
        self._deny = DenyPatterns(deny) if deny else None

    def check(self, path: str, *, plain: bool = False) -> None:
        """Raise PathRefused if `path` (below the prefix, without query) is denied or not allowed.

        `plain`: the path is known to have only one reading.
        """
        deny, allow = self._deny, self._allow
        if deny is not None and deny.name(path or "/", plain=plain):
            raise PathRefused("The route denies this path")
        if allow is not None and not allow.name(path or "/", plain=plain):
            raise PathRefused("The route does not allow this path")


LOST_PREFIX: Final = (
    "No route has the prefix of this path. If your base URL has one, the client dropped it:"
    " give it paths without a leading slash, or use a host name of the route"
)


def host_of(values: Sequence[str]) -> str:
    """Return the host of a `Host` field in lower case, without port and final dot; empty unless there is one field."""
    if len(values) != 1:
        return ""
    host = values[0].lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).rstrip(".")


def with_prefix(path: str, prefix: str) -> str:
    """Return a path as it is with a route's prefix, which is optional if the host name selects the route."""
    return path if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"} else prefix + path


class RouteTable(Generic[T]):
    """Maps prefixes to values; the longest matching prefix wins. Whole segments, case-sensitive."""

    __slots__ = ("_by_first",)

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._by_first: dict[str, list[tuple[str, int, T]]] = {}
        for prefix, value in sorted(entries, key=lambda entry: -len(entry[0])):
            self._by_first.setdefault(prefix.split("/", 2)[1], []).append((prefix, len(prefix), value))

    def match(self, path: str) -> tuple[T, str]:
        """Return the value of the longest matching prefix and the rest of the path.

        The rest is empty or starts with a slash. Raises RouteNotFound.
        """
        cut = path.find("/", 1)
        for prefix, size, value in self._by_first.get(path[1:] if cut < 0 else path[1:cut], ()):
            rest = path[size:]
            if (not rest or rest[0] == "/") and path.startswith(prefix):
                return value, rest
        raise RouteNotFound(LOST_PREFIX)
