"""How other servers read a path, and what a pattern means. Independent of the gateway's code, which it checks.

`SERVERS` maps a name to a reader, which returns the path that the server's application gets for a request's path. A
reader is as lenient as the framework of its name can be configured. `glob` is the meaning of patterns, plain and slow.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random


def _resolved(segments: Iterable[str]) -> str:
    """Resolve dot segments and drop empty ones."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept)


def wsgi(path: str) -> str:
    """Werkzeug on a WSGI server: PATH_INFO is decoded once, and slashes are merged."""
    return _resolved(unquote_to_bytes(path).decode("utf-8", "replace").split("/"))


def servlet(path: str) -> str:
    """Tomcat with encodedSolidusHandling=decode: removes the parameters of each segment, decodes, and resolves."""
    bare = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    return _resolved(unquote(bare).split("/"))


def late_parameters(path: str) -> str:
    """A framework behind a proxy that decodes: removes parameters after decoding."""
    return _resolved(segment.partition(";")[0] for segment in unquote(path).split("/"))


def segments(path: str) -> str:
    """A router that splits first, then decodes each segment: an encoded slash is data, shown as a backslash here."""
    return _resolved(unquote(segment).replace("/", "\\") for segment in path.split("/"))


def windows(path: str) -> str:
    """Files on Windows: backslashes separate; case, and dots and blanks at the end of a name, are ignored."""
    plain = unquote(path).replace("\\", "/").lower()
    return _resolved(segment if segment in {".", ".."} else segment.rstrip(". ") for segment in plain.split("/"))


def twice(path: str) -> str:
    """Two servers, one behind the other, that both decode."""
    return _resolved(unquote(unquote(path)).split("/"))


SERVERS: dict[str, Callable[[str], str]] = {
    each.__name__: each for each in (wsgi, servlet, late_parameters, segments, windows, twice)
}


def glob(pattern: str, path: str) -> bool:
    """Whether a pattern names a path: `*` within a segment, `**` anything, `**/` also no segment, and a free slash."""

    @cache
    def fits(at: int, place: int) -> bool:
        if at == len(pattern):
            return path[place:] in {"", "/"}
        if pattern.startswith("/**", at) and at + 3 == len(pattern) and path[place:] == "":
            return True
        if pattern.startswith("**", at):
            behind = at + 2
            if any(fits(behind, end) for end in range(place, len(path) + 1)):
                return True
            whole = at > 0 and pattern[at - 1] == "/" and pattern[behind : behind + 1] == "/"
            return whole and fits(behind + 1, place)
        if pattern[at] == "*":
            end = path.find("/", place)
            return any(fits(at + 1, stop) for stop in range(place, (len(path) if end < 0 else end) + 1))
        return path[place : place + 1] == pattern[at] and fits(at + 1, place + 1)

    return fits(0, 0)


# ----------------------------------------------------------------------------------------------------------- spellings

_TRICKS = (
    lambda text, _: text.replace("/", "%2F", 1),
    lambda text, _: text.replace("/", "//", 1),
    lambda text, _: text.replace("/", "/%2f", 1),
    lambda text, _: text.replace("/", "/;x/", 1),
    lambda text, _: text.replace("/", "/;x=%2F/", 1),
    lambda text, _: text.replace("/", "/./", 1),
    lambda text, _: text.replace("/", "/x/../", 1),
    lambda text, _: text.replace("/", "/x%2f..%2f", 1),
    lambda text, _: text.replace("/", "\\", 1),
    lambda text, _: text.replace("/", "/.%20/", 1),
    lambda text, _: text + ";v=1",
    lambda text, _: text + "%3Bv=1",
    lambda text, _: text + ".",
    lambda text, _: text + "%20",
    lambda text, _: text + "%2e%20.",
    lambda text, _: text + "/",
    lambda text, _: text + "%2F",
    lambda text, _: text.swapcase(),
    lambda text, _: text.replace("%", "%25"),
    lambda text, random: _escaped(text, random, 0.3),
    lambda text, random: _escaped(text.replace("%", "%25"), random, 0.6),
    lambda text, random: _at(text, random, ";a=b"),
    lambda text, random: _at(text, random, "%3Ba"),
    lambda text, random: _at(text, random, "%20"),
    lambda text, random: _at(text, random, "."),
    lambda text, random: _at(text, random, "%2Fb"),
    lambda text, random: _at(text, random, "%2fa%2Fb"),
)
"""Changes that an attacker makes to a path. Several of them, one after the other, make a spelling."""


def _escaped(text: str, random: Random, share: float) -> str:
    """Encode some characters that are not part of an escape."""
    return re.sub(
        r"%..|.", lambda one: one[0] if one[0][0] == "%" or random.random() > share else f"%{ord(one[0]):02x}", text
    )


def _at(text: str, random: Random, piece: str) -> str:
    """Append something to a segment."""
    places = [place for place, _ in enumerate(text) if place and text[place] == "/"] + [len(text)]
    place = random.choice(places)
    return text[:place] + piece + text[place:]


def spelling(path: str, random: Random) -> str:
    """Return a spelling of the path that some server reads as `path`, or almost."""
    for _ in range(random.randint(1, 3)):
        path = random.choice(_TRICKS)(path, random)
    return path


def named_by(pattern: str, random: Random) -> str:
    """Return a path that the pattern matches."""
    fill = {"**": ["", "x", "a/b", "q/r/s"], "*": ["x", "a1", "z-z"]}
    path = re.sub(r"\*\*?", lambda wild: random.choice(fill[wild[0]]), pattern)
    return re.sub("/{2,}", "/", path) or "/"


def read_pattern(pattern: str, server: Callable[[str], str]) -> str:
    """Return the pattern as the server reads the paths that it matches; wildcards stay unchanged."""
    marks = {"**": "wildwild", "*": "wildone"}
    marked = re.sub(r"\*\*?", lambda wild: marks[wild[0]], pattern)
    return server(marked).replace("wildwild", "**").replace("wildone", "*")


def reaches(pattern: str, path: str) -> str | None:
    """Return a server that reads `path` as a path that the pattern denies; None if no server does."""
    for name, server in SERVERS.items():
        rule, seen = read_pattern(pattern, server), server(path)
        if glob(rule, seen) or (name == "windows" and glob(rule.lower(), seen.lower())):
            return name
    return None
