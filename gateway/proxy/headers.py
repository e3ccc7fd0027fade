"""What goes up and what comes down: header rules as tables. Pure: no I/O, no `async`.

Hop-by-hop fields and what `Connection` nominates are dropped first (RFC 9110 §7.6.1), *then* the route's header is
injected, so that no client can strip it. Framing is never copied: it is written anew from what the parser understood
(RFC 9112 §6). Names are looked at with `_` read as `-`, because servers behind CGI and WSGI do not tell them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import BadRequest, HeadersTooLarge, UpstreamMalformed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.http import HttpVersion, RawRequestMessage, RawResponseMessage

    from gateway.model import Limits, Route

RawHeaders = tuple[tuple[bytes, bytes], ...]

VIA = b"gatepass"
"""Our pseudonym in `Via` (RFC 9110 §7.6.3) and in `Proxy-Status` (RFC 9209)."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROLS = bytes(set(range(0x20)) - {0x09, 0x0A, 0x0D} | {0x7F})
_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")

# What is done with a field, by its name. Everything that is not PASS is looked at by a branch below.
PASS, DROP, HOST, CONNECTION, LENGTH, CODING, EXPECT, UPGRADE, KEY, AUTHORIZATION, REQUEST_ID = range(11)

_HOP_BY_HOP = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"http2-settings")
_NEVER_UP = (b"proxy-authorization", b"cookie", b"forwarded", b"origin", b"referer", b"x-real-ip")
_MEANING_UP = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-gatepass-key": KEY,
    b"x-request-id": REQUEST_ID,
}
_MEANING_DOWN = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"x-request-id": DROP,
    b"proxy-authenticate": DROP,
}
_AROUND = len(b"  HTTP/1.1\r\n\r\n")
"""Bytes of a head that belong to no field, beside method and target."""
_MOST_NAMES = 512
"""Verdicts remembered per table; names come from clients and vendors, so memory for them is bounded."""


class Verdicts(dict[bytes, int]):
    """Field name as written → what to do with it. Remembers what it has worked out, up to a bound."""

    def __init__(
        self,
        meaning: dict[bytes, int],
        dropped: Iterable[bytes] = (),
        kept: frozenset[bytes] = frozenset(),
        prefixes: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__()
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
        if len(self) < _MOST_NAMES:
            self[raw] = verdict
        return verdict


def verdicts_up(route: Route) -> Verdicts:
    """Return what happens to an app's fields on this route."""
    injected = [injection.header.lower().encode("latin-1") for injection in route.injections]
    stripped = [name.encode("latin-1") for name in route.strip_headers]
    stripped += [b"accept-encoding"] * route.echo_guard  # a compressed answer could not be looked into
    kept = {name.encode("latin-1") for name in route.pass_headers} - set(injected)
    meaning = _MEANING_UP | dict.fromkeys(injected, DROP)
    if route.origin is not None:
        kept.discard(b"origin")
    if route.authorization == "inject":
        meaning |= {b"authorization": AUTHORIZATION}
    return Verdicts(meaning, (*_NEVER_UP, *stripped), frozenset(kept), (b"x-forwarded-",))


def verdicts_nowhere() -> Verdicts:
    """Return the verdicts for a request that no route takes: its head must be right all the same."""
    return Verdicts(_MEANING_UP)


def verdicts_down() -> Verdicts:
    """Return what happens to a vendor's fields."""
    return Verdicts(_MEANING_DOWN)


@dataclass(slots=True)
class Inbound:
    """An app's request head, understood: what is passed on, and what is for the gateway."""

    lines: list[bytes]
    """Fields that go up as they came, each `name: value`."""
    chunked: bool = False
    length: int | None = None
    key: bytes | None = None
    bearer: bytes | None = None
    request_id: bytes | None = None
    expects_continue: bool = False
    websocket: bool = False
    upgrade: bool = False
    """Asks for any upgrade: the parser may have swallowed what follows, so the connection is closed afterwards."""


def read_request(message: RawRequestMessage, verdicts: Verdicts, limits: Limits) -> Inbound:
    """Sort an app's header fields; raise BadRequest or HeadersTooLarge for what RFC 9112 does not allow.

    aiohttp's parser has already refused line folding, bare CR and LF, spaces before a colon, differing
    Content-Lengths and unknown codings; what it lets through is refused here.
    """
    found = Inbound([])
    lines, hosts, connection = found.lines, 0, b""
    size = len(message.method) + len(message.path) + _AROUND
    for name, value in message.raw_headers:
        size += len(name) + len(value) + 4
        verdict = verdicts[name]
        if verdict == PASS:
            lines.append(b"%b: %b" % (name, value))
        elif verdict == HOST:
            hosts += 1
            if _HOST.match(value) is None:
                raise BadRequest("The Host field is not a host")
        elif verdict == CONNECTION:
            connection = connection + b"," + value if connection else value
        elif verdict != DROP:
            _read_special(found, verdict, value)
    _check_request(message, found, hosts, size, limits)
    if found.websocket:
        bodyless = not found.chunked and not found.length
        found.websocket = message.upgrade and message.method == "GET" and bodyless
    if connection and connection.lower() not in _USUAL_CONNECTION:
        _drop_nominated(found, connection)
    return found


_USUAL_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade", b"keep-alive, upgrade"})


def _read_special(found: Inbound, verdict: int, value: bytes) -> None:
    if verdict in {LENGTH, CODING}:
        problem = _read_framing(found, verdict, value)
        if problem:
            raise BadRequest(problem)
    elif verdict == EXPECT:
        if value.lower() != b"100-continue":
            raise BadRequest("Expect is not 100-continue")
        found.expects_continue = True
    elif verdict == UPGRADE:
        found.websocket = not found.upgrade and value.lower() == b"websocket"
        found.upgrade = True
    elif verdict == KEY:
        # A second key is no key: which of the two would be judged must not depend on who reads.
        found.key = value if found.key is None else b""
    elif verdict == AUTHORIZATION:
        scheme, _, credentials = value.partition(b" ")
        found.bearer = credentials.strip() if found.bearer is None and scheme.lower() == b"bearer" else b""
    elif verdict == REQUEST_ID and _SANE_ID.match(value) is not None:
        found.request_id = value


def _check_request(message: RawRequestMessage, found: Inbound, hosts: int, size: int, limits: Limits) -> None:
    version = message.version
    if version != (1, 1):
        if version != (1, 0):
            raise BadRequest("The HTTP version is neither 1.0 nor 1.1")
        if found.chunked or hosts > 1:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding and at most one Host")
        found.expects_continue = found.websocket = False
    elif hosts != 1:
        raise BadRequest("The Host field must appear exactly once")
    if message.upgrade:  # CONNECT, too
        found.upgrade = True
    if found.chunked and found.length is not None:
        raise BadRequest("Content-Length and Transfer-Encoding together")
    if size > limits.head_bytes or len(message.raw_headers) > limits.fields:
        raise HeadersTooLarge(
            f"The head may hold {limits.fields} fields and {limits.head_bytes} bytes",
        )


def _drop_nominated(found: Inbound, connection: bytes) -> None:
    nominated = {token.strip().lower() for token in connection.split(b",")} - {b"keep-alive", b"close", b"upgrade", b""}
    if nominated:
        found.lines[:] = [line for line in found.lines if line.partition(b":")[0].lower() not in nominated]


def has_control(block: bytes, lines: int) -> bool:
    """Whether `block`, `lines` lines that we joined with CR LF, holds any other control byte than tab."""
    return (
        block.count(b"\n") != lines
        or block.count(b"\r") != lines
        or len(block.translate(None, _CONTROLS)) != len(block)
    )


@dataclass(slots=True)
class Outbound:
    """A vendor's response head, understood."""

    lines: list[bytes]
    chunked: bool = False
    length: int | None = None
    keep_alive: bool = True
    cache_control: bool = False
    date: bool = False
    upgrade: bytes | None = None


def read_response(message: RawResponseMessage, verdicts: Verdicts) -> Outbound:
    """Sort a vendor's header fields; raise UpstreamMalformed for what could split or smuggle.

    aiohttp's response parser is lenient on purpose; what it accepts is checked before it is written to an app.
    """
    found = Outbound([])
    lines, connection = found.lines, b""
    try:
        for name, value in message.raw_headers:
            verdict = verdicts[name]
            if verdict == PASS:
                lines.append(b"%b: %b" % (name, value))
            elif verdict == CONNECTION:
                connection += b"," + value.lower()
            elif verdict == UPGRADE:
                found.upgrade = value
            elif verdict != DROP and (problem := _read_framing(found, verdict, value)):
                raise UpstreamMalformed(reason=problem)
    except BadRequest as error:
        raise UpstreamMalformed(reason=error.detail) from None
    if message.version not in ((1, 1), (1, 0)) or not 100 <= message.code <= 599:  # noqa: PLR2004 - RFC 9110 §15
        raise UpstreamMalformed(reason="the status line is not HTTP/1.1")
    if found.chunked and found.length is not None:
        raise UpstreamMalformed(reason="Content-Length and Transfer-Encoding together")
    names = message.headers
    found.cache_control = "Cache-Control" in names
    found.date = "Date" in names
    # HTTP/1.0 has no chunked coding: whoever sends it so is not trusted with a second request (RFC 9112 §6.1).
    found.keep_alive = not message.should_close and not (found.chunked and message.version != (1, 1))
    if connection and connection != b",keep-alive":
        _drop_nominated_down(found, connection)
    return found


def _read_framing(found: Inbound | Outbound, verdict: int, value: bytes) -> str:
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


def _drop_nominated_down(found: Outbound, connection: bytes) -> None:
    nominated = {token.strip() for token in connection.split(b",")}
    if b"close" in nominated:
        found.keep_alive = False
    nominated -= {b"keep-alive", b"close", b"upgrade", b"date", b"cache-control", b""}
    if nominated:
        found.lines[:] = [line for line in found.lines if line.partition(b":")[0].lower() not in nominated]


def status_line(code: int, reason: str) -> bytes:
    """Return `HTTP/1.1 code reason`, the reason's bytes as the vendor sent them."""
    return b"HTTP/1.1 %d %b" % (code, reason.encode("utf-8", "surrogateescape"))


def forwarded_line(kind: str, remote: str, host: str) -> bytes:
    """Return the field that tells the vendor who called (RFC 7239 §4, or the older X-Forwarded-For)."""
    if kind == "rfc7239":
        node = f'"[{remote}]"' if ":" in remote else remote
        return f'Forwarded: for={node};host="{host}"'.encode("latin-1")
    return f"X-Forwarded-For: {remote}".encode("latin-1")


def http_1_1(version: HttpVersion) -> bool:
    """Whether the peer speaks HTTP/1.1 (chunked, persistent by default)."""
    return version == (1, 1)
