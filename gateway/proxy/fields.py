"""What the heads of requests and answers have in common: fields, and tables of what is done with them. Pure.

Hop-by-hop fields and what `Connection` nominates are dropped first (RFC 9110 §7.6.1), *then* the route's header is
injected, so that no client can strip it. Framing is never copied: it is written anew from what was understood
(RFC 9112 §6). Names are looked at with `_` read as `-`, because servers behind CGI and WSGI do not tell them apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model import Route
    from gateway.proxy.request import Inbound
    from gateway.proxy.response import Outbound

VIA: Final = b"gatepass"
"""Our pseudonym in `Via` (RFC 9110 §7.6.3) and in `Proxy-Status` (RFC 9209)."""
CONTROLS: Final = bytes(set(range(0x20)) - {0x09} | {0x7F})
"""Bytes that no field holds: every control byte but tab; a CR or LF alone, too (RFC 9110 §5.5, RFC 9112 §2.2)."""
CONTROL: Final = "The head holds a control byte, or a line that does not end with CR LF"
_CONTROLS_BUT_CR_LF: Final = bytes(set(CONTROLS) - set(b"\r\n"))
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")

# What is done with a field, by its name. Everything that is not PASS or DROP is looked at where a head is read.
PASS: Final = 0
DROP: Final = 1
HOST: Final = 2
CONNECTION: Final = 3
LENGTH: Final = 4
CODING: Final = 5
EXPECT: Final = 6
UPGRADE: Final = 7
KEY: Final = 8
AUTHORIZATION: Final = 9
REQUEST_ID: Final = 10
TRACEPARENT: Final = 11
DATE: Final = 12
CACHE_CONTROL: Final = 13

_HOP_BY_HOP: Final = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"http2-settings")
_NEVER_UP: Final = (b"proxy-authorization", b"cookie", b"forwarded", b"origin", b"referer", b"x-real-ip")
MEANING_UP: Final = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-gatepass-key": KEY,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
}
MEANING_DOWN: Final = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"x-request-id": DROP,
    b"proxy-authenticate": DROP,
    b"date": DATE,
    b"cache-control": CACHE_CONTROL,
}
_MOST_NAMES: Final = 512
"""Verdicts remembered per table; names come from clients and vendors, so memory for them is bounded."""
_STEADY_NAMES: Final = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-ranges", b"cache-control",
    b"connection", b"content-type", b"date", b"host", b"pragma", b"server", b"strict-transport-security",
    b"user-agent", b"vary", b"via", b"x-content-type-options", b"x-frame-options",
})  # fmt: skip
"""Fields whose lines come again and again and hold nothing about a person: they are understood once."""
_STEADY_SIZE: Final = 200
"""Bytes of the longest line, and of the longest name, that is remembered."""


class Verdicts(dict[bytes, int]):
    """Field name as written → what to do with it. Remembers what it has worked out, up to a bound.

    `steady` has whole lines: of fields that come again and again with the same value, and hold no secret.
    """

    def __init__(
        self,
        meaning: dict[bytes, int],
        dropped: Iterable[bytes] = (),
        kept: frozenset[bytes] = frozenset(),
        prefixes: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__()
        self.steady: dict[bytes, int] = {}
        self._meaning = dict.fromkeys((*_HOP_BY_HOP, *dropped), DROP) | meaning
        for name in kept:
            self._meaning.pop(name, None)
        self._prefixes = prefixes
        self._kept = kept

    def __missing__(self, raw: bytes) -> int:
        name = raw.lower()
        verdict = self._meaning.get(name)
        if verdict is None:
            alias = name.replace(b"_", b"-")
            risky = alias != name and alias in self._meaning
            unwanted = risky or alias.startswith(self._prefixes)
            verdict = DROP if unwanted and name not in self._kept else PASS
        if _TOKEN.match(raw) is None:
            raise BadRequest("A header field name holds a byte that is not allowed")
        if len(self) < _MOST_NAMES and len(raw) <= _STEADY_SIZE:
            self[raw] = verdict
        return verdict

    def remember(self, line: bytes, name: bytes, verdict: int) -> None:
        """Have `line`, which was found to be right, understood at first sight the next time."""
        if len(line) <= _STEADY_SIZE and name.lower() in _STEADY_NAMES:
            if len(self.steady) >= _MOST_NAMES:
                self.steady.clear()
            self.steady[line] = verdict


def verdicts_up(route: Route) -> Verdicts:
    """Return what happens to an app's fields on this route."""
    injected = [injection.header.lower().encode("latin-1") for injection in route.injections]
    stripped = [name.encode("latin-1") for name in route.strip_headers]
    stripped += [b"accept-encoding"] * route.echo_guard  # a compressed answer could not be looked into
    kept = {name.encode("latin-1") for name in route.pass_headers} - set(injected)
    meaning = MEANING_UP | dict.fromkeys(injected, DROP)
    if route.origin is not None:
        kept.discard(b"origin")
    if route.authorization == "inject":
        meaning |= {b"authorization": AUTHORIZATION}
    return Verdicts(meaning, (*_NEVER_UP, *stripped), frozenset(kept), (b"x-forwarded-",))


def verdicts_nowhere() -> Verdicts:
    """Return the verdicts for a request that no route takes: its head must be right all the same."""
    return Verdicts(MEANING_UP)


def values(fields: Sequence[bytes], name: bytes) -> list[str]:
    """Return the values of the fields of this name, which is in lower case, among `name: value` lines."""
    parts = [line.partition(b":") for line in fields if line[: len(name)].lower() == name]
    return [
        value.strip(b" \t").decode("utf-8", "surrogateescape") for found, _, value in parts if len(found) == len(name)
    ]


def find_end(part: bytearray, data: bytes) -> tuple[int, bytes]:
    """Return where the head ends that began with `part` and goes on with `data`, and all its bytes.

    Negative while it has no end: then `part` holds what has come of it so far (RFC 9112 §2.1).
    """
    if not part:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            part += data
        return end, data
    start = max(0, len(part) - 3)
    part += data
    end = part.find(b"\r\n\r\n", start)
    return end, bytes(part) if end >= 0 else data


def is_torn(part: bytes | bytearray, seen: int) -> bool:
    """Whether a control byte, or a CR or LF that is no line end, stands behind the first `seen` bytes of a head."""
    start = seen - 1 if part[seen - 1 : seen] == b"\r" else seen
    piece = part[start:].removesuffix(b"\r")
    ends = piece.count(b"\r\n")
    lone = piece.count(b"\r") != ends or piece.count(b"\n") != ends
    return lone or len(piece.translate(None, _CONTROLS_BUT_CR_LF)) != len(piece)


def nominated(connection: bytes) -> set[bytes]:
    """Return what `Connection`, in lower case, names: options, and fields that are for this connection alone."""
    return {token.strip() for token in connection.split(b",")} - {b""}


def drop_nominated(lines: list[bytes], names: set[bytes]) -> None:
    """Take the fields of these names out of `lines`."""
    if names:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in names]


def read_framing(found: Inbound | Outbound, verdict: int, value: bytes) -> str:
    """Take a framing field; return what is wrong with it, or nothing (RFC 9112 §6.1, §6.2)."""
    if verdict == LENGTH:
        if found.length is not None or _LENGTH.match(value) is None:
            return "Content-Length is not one number"
        found.length = int(value)
    else:
        if found.chunked or value.lower() != b"chunked":
            return "Transfer-Encoding is not exactly chunked"
        found.chunked = True
    return ""
