"""What goes up and what comes down: heads understood by tables. Pure: no I/O, no `async`.

Hop-by-hop fields and what `Connection` nominates are dropped first (RFC 9110 §7.6.1), *then* the route's header is
injected, so that no client can strip it. Framing is never copied: it is written anew from what was understood
(RFC 9112 §6). Names are looked at with `_` read as `-`, because servers behind CGI and WSGI do not tell them apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.errors import BadRequest, HeadersTooLarge, UpstreamMalformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model import Limits, Route

VIA = b"gatepass"
"""Our pseudonym in `Via` (RFC 9110 §7.6.3) and in `Proxy-Status` (RFC 9209)."""
TARGET_LIMIT = 16 * 1024
"""Bytes of a request target: identity vendors put whole JWTs into queries."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROLS = bytes(set(range(0x20)) - {0x09} | {0x7F})
_CONTROLS_BUT_CR_LF = bytes(set(_CONTROLS) - set(b"\r\n"))
_CONTROL = "The head holds a control byte, or a line that does not end with CR LF"
_VERSION = b"HTTP/1."
_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?\Z")
_METHODS = {
    name.encode("ascii"): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI", "QUERY", "SEARCH"),
        *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE"),
        *("NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK"),
        "UNSUBSCRIBE",
    )
}
"""Methods of the IANA registry and a few of old standing; what nobody has heard of is refused."""

# What is done with a field, by its name. Everything that is not PASS or DROP is looked at by a branch below.
(
    PASS, DROP, HOST, CONNECTION, LENGTH, CODING, EXPECT, UPGRADE, KEY, AUTHORIZATION, REQUEST_ID, TRACEPARENT, DATE,
    CACHE_CONTROL,
) = range(14)  # fmt: skip

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
    b"traceparent": TRACEPARENT,
}
_MEANING_DOWN = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"x-request-id": DROP,
    b"proxy-authenticate": DROP,
    b"date": DATE,
    b"cache-control": CACHE_CONTROL,
}
_MOST_NAMES = 512
"""Verdicts remembered per table; names come from clients and vendors, so memory for them is bounded."""
_STEADY_NAMES = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-ranges", b"cache-control",
    b"connection", b"content-type", b"date", b"host", b"pragma", b"server", b"strict-transport-security",
    b"user-agent", b"vary", b"via", b"x-content-type-options", b"x-frame-options",
})  # fmt: skip
"""Fields whose lines come again and again and hold nothing about a person: they are understood once."""
_STEADY_SIZE = 200
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
    meaning = _MEANING_UP | dict.fromkeys(injected, DROP)
    if route.origin is not None:
        kept.discard(b"origin")
    if route.authorization == "inject":
        meaning |= {b"authorization": AUTHORIZATION}
    return Verdicts(meaning, (*_NEVER_UP, *stripped), frozenset(kept), (b"x-forwarded-",))


def verdicts_nowhere() -> Verdicts:
    """Return the verdicts for a request that no route takes: its head must be right all the same."""
    return Verdicts(_MEANING_UP)


class RequestHead:
    """A request's head, its lines apart; what its fields mean is told by the route that it is for (`read_request`)."""

    __slots__ = ("fields", "http_1_1", "method", "size", "target")

    def __init__(self, head: bytes) -> None:
        """Take a head without the empty line behind it. Raises BadRequest for what is no HTTP/1 request line."""
        first, *self.fields = head.split(b"\r\n")
        self.size = len(head) + 4
        """Bytes of the head, the empty line included."""
        try:
            method, target, version = first.split(b" ")
            self.method = _METHODS[method]
            self.target = target.decode("ascii")
        except (ValueError, KeyError):
            raise BadRequest("The request line is not one of HTTP/1.1") from None
        self.http_1_1 = version == b"HTTP/1.1"
        if not self.http_1_1 and version != b"HTTP/1.0":
            raise BadRequest("The HTTP version is neither 1.0 nor 1.1")
        if len(target) > TARGET_LIMIT:
            raise HeadersTooLarge(f"A request target may hold {TARGET_LIMIT} bytes")

    def values(self, name: bytes) -> list[str]:
        """Return the values of all fields of this name, which is in lower case."""
        return values(self.fields, name)


def values(fields: Sequence[bytes], name: bytes) -> list[str]:
    """Return the values of the fields of this name, which is in lower case, among `name: value` lines."""
    parts = (line.partition(b":") for line in fields if line[: len(name)].lower() == name)
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


def check_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise BadRequest if `part`, the beginning of a request's head, cannot become one any more.

    Its first `seen` bytes were found to be right before: a head that comes byte by byte is looked at once.
    """
    if _is_torn(part, seen):
        raise BadRequest(_CONTROL)
    end = part.find(b"\r\n")
    if end >= 0 and end + 2 > seen:
        RequestHead(bytes(part[:end]))


def check_answer_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise UpstreamMalformed if `part`, the beginning of a response's head, cannot become one any more.

    Its first `seen` bytes were found to be right before.
    """
    if not part.startswith(_VERSION[: len(part)]) or _is_torn(part, seen):
        raise UpstreamMalformed(reason="what came is not the beginning of an HTTP/1.1 response")


def _is_torn(part: bytes | bytearray, seen: int) -> bool:
    """Whether a control byte, or a CR or LF that is no line end, stands behind the first `seen` bytes of a head."""
    start = seen - 1 if part[seen - 1 : seen] == b"\r" else seen
    piece = part[start:].removesuffix(b"\r")
    ends = piece.count(b"\r\n")
    lone = piece.count(b"\r") != ends or piece.count(b"\n") != ends
    return lone or len(piece.translate(None, _CONTROLS_BUT_CR_LF)) != len(piece)


def _has_control(line: bytes) -> bool:
    """Whether a line holds any other control byte than tab: a CR or LF alone, too (RFC 9110 §5.5, RFC 9112 §2.2)."""
    return len(line.translate(None, _CONTROLS)) != len(line)


class Inbound:
    """An app's request head, understood: what is passed on, and what is for the gateway."""

    chunked: bool = False
    length: int | None = None
    key: bytes | None = None
    bearer: bytes | None = None
    request_id: bytes | None = None
    traceparent: bytes | None = None
    """The app's trace; empty if it named several."""
    expects_continue: bool = False
    websocket: bool = False
    upgrade: bool = False
    """Asks for any upgrade."""
    keep_alive: bool = True
    hosts: int = 0
    connection: bytes = b""
    """What `Connection` says, all its fields together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        """Fields that go up, as they came."""


def read_request(head: RequestHead, verdicts: Verdicts, limits: Limits) -> Inbound:
    """Sort an app's header fields; raise BadRequest or HeadersTooLarge for what RFC 9112 does not allow."""
    if head.size > limits.head_bytes or len(head.fields) > limits.fields:
        raise HeadersTooLarge(f"The head may hold {limits.fields} fields and {limits.head_bytes} bytes")
    found = Inbound()
    lines, steady = found.lines, verdicts.steady
    for line in head.fields:
        verdict = steady.get(line)
        if verdict is None:
            verdict = _read_field(found, line, verdicts, limits.field_bytes)
        if verdict == PASS:
            lines.append(line)
        elif verdict == HOST:
            found.hosts += 1
    _check_request(head, found)
    if found.connection:
        _read_connection(found, found.connection.lower())
    return found


def _read_field(found: Inbound, line: bytes, verdicts: Verdicts, limit: int) -> int:
    """Understand a line that is not a steady one; return PASS if it goes up, HOST if it is that."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadRequest("A header field has no colon")
    verdict = verdicts[name]
    value = value.strip(b" \t")
    if len(value.translate(None, _CONTROLS)) != len(value):
        raise BadRequest(_CONTROL)
    if len(value) > limit or len(name) > limit:
        raise HeadersTooLarge(f"A field may hold {limit} bytes")
    if verdict == HOST and _HOST.match(value) is None:
        raise BadRequest("The Host field is not a host")
    if verdict <= HOST:
        verdicts.remember(line, name, verdict)
        return verdict
    if verdict == CONNECTION:
        if value == b"keep-alive":  # it goes without saying
            verdicts.remember(line, name, DROP)
        found.connection = found.connection + b"," + value if found.connection else value
    elif verdict == TRACEPARENT:
        found.traceparent = value if found.traceparent is None else b""
        return PASS
    else:
        _read_special(found, verdict, value)
    return DROP


def _read_special(found: Inbound, verdict: int, value: bytes) -> None:
    if verdict == KEY:
        # A second key is no key: which of the two would be judged must not depend on who reads.
        found.key = value if found.key is None else b""
    elif verdict == REQUEST_ID:
        found.request_id = value if _SANE_ID.match(value) is not None else found.request_id
    elif verdict == AUTHORIZATION:
        scheme, _, credentials = value.partition(b" ")
        found.bearer = credentials.strip() if found.bearer is None and scheme.lower() == b"bearer" else b""
    elif verdict == UPGRADE:
        found.websocket = not found.upgrade and value.lower() == b"websocket"
        found.upgrade = True
    elif verdict == EXPECT:
        if value.lower() != b"100-continue":
            raise BadRequest("Expect is not 100-continue")
        found.expects_continue = True
    elif problem := _read_framing(found, verdict, value):
        raise BadRequest(problem)


def _check_request(head: RequestHead, found: Inbound) -> None:
    if not head.http_1_1:
        if found.chunked or found.hosts > 1:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding and at most one Host")
        found.expects_continue = found.websocket = found.keep_alive = False
    elif found.hosts != 1:
        raise BadRequest("The Host field must appear exactly once")
    if found.chunked and found.length is not None:
        raise BadRequest("Content-Length and Transfer-Encoding together")
    if found.upgrade or head.method == "CONNECT":
        # An app may already speak its new protocol: what it says would be taken for requests.
        found.keep_alive = False
        asked = head.method == "GET" and not found.chunked and not found.length
        found.websocket = found.websocket and asked and bool(found.connection)


def _read_connection(found: Inbound, connection: bytes) -> None:
    nominated = {token.strip() for token in connection.split(b",")}
    if b"close" in nominated:
        found.keep_alive = False
    found.websocket = found.websocket and b"upgrade" in nominated
    nominated -= {b"keep-alive", b"close", b"upgrade", b""}
    if nominated:
        found.lines[:] = [line for line in found.lines if line.partition(b":")[0].lower() not in nominated]


class Outbound:
    """A vendor's response head, understood."""

    chunked: bool = False
    length: int | None = None
    keep_alive: bool = True
    cache_control: bool = False
    date: bool = False
    upgrade: bytes | None = None
    connection: bytes = b""
    """What `Connection` says, all its fields together, in lower case."""

    def __init__(self, code: int, status_line: bytes) -> None:
        self.code = code
        self.status_line = status_line
        """`HTTP/1.1 code reason`, the reason's bytes as the vendor sent them."""
        self.lines: list[bytes] = []
        """Fields that go on to the app, as they came."""

    def value(self, name: bytes) -> str:
        """Return the value of the first field of this name, which is in lower case; empty without one."""
        return next(iter(values(self.lines, name)), "")


_DOWN = Verdicts(_MEANING_DOWN)
_KEPT_DOWN = frozenset({PASS, DATE})
_MOST_RESPONSE_FIELDS = 200
_RESPONSE_FIELD_LIMIT = 16 * 1024


def read_response(head: bytes) -> Outbound:
    """Understand a vendor's head, without the empty line behind it.

    Raises UpstreamMalformed for what is none, and for what could split or smuggle.
    """
    status_line, *fields = head.split(b"\r\n")
    found = _read_status_line(status_line)
    if len(fields) > _MOST_RESPONSE_FIELDS:
        raise UpstreamMalformed(reason="too many fields in the response head")
    lines, steady = found.lines, _DOWN.steady
    try:
        for line in fields:
            verdict = steady.get(line)
            if verdict is None:
                verdict = _read_answer_field(found, line)
            if verdict == PASS:
                lines.append(line)
            elif verdict == DATE:
                found.date = True
                lines.append(line)
    except BadRequest as error:
        raise UpstreamMalformed(reason=error.detail) from None
    if found.connection:
        _read_connection_down(found)
    if found.chunked and found.length is not None:
        raise UpstreamMalformed(reason="Content-Length and Transfer-Encoding together")
    return found


def _read_status_line(line: bytes) -> Outbound:
    if line == b"HTTP/1.1 200 OK":
        return Outbound(200, line)
    parts = _STATUS_LINE.match(line)
    if parts is None or _has_control(line):
        raise UpstreamMalformed(reason="the status line is not one of HTTP/1.1")
    minor, code, reason = parts.groups()
    found = Outbound(int(code), b"HTTP/1.1 %b %b" % (code, reason or b""))
    found.keep_alive = minor == b"1"  # what HTTP/1.0 says of its framing is not trusted with a second request
    return found


def _read_answer_field(found: Outbound, line: bytes) -> int:
    """Understand a line that is not a steady one; return PASS if it goes on to the app, DATE if it is that."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadRequest("A header field has no colon")
    verdict = _DOWN[name]
    if len(value.translate(None, _CONTROLS)) != len(value):
        raise BadRequest(_CONTROL)
    if len(line) > _RESPONSE_FIELD_LIMIT:
        raise BadRequest("A field is too large")
    value = value.strip(b" \t")
    if verdict in _KEPT_DOWN:
        _DOWN.remember(line, name, verdict)
        return verdict
    if verdict == CACHE_CONTROL:
        found.cache_control = True
        return PASS
    if verdict == CONNECTION:
        if value.lower() == b"keep-alive":  # it goes without saying
            _DOWN.remember(line, name, DROP)
        else:
            found.connection += b"," + value.lower()
    elif verdict == UPGRADE:
        found.upgrade = value
    elif verdict != DROP and (problem := _read_framing(found, verdict, value)):
        raise BadRequest(problem)
    return DROP


def _read_connection_down(found: Outbound) -> None:
    nominated = {token.strip() for token in found.connection.split(b",")}
    if b"close" in nominated:
        found.keep_alive = False
    nominated -= {b"keep-alive", b"close", b"upgrade", b"date", b"cache-control", b""}
    if nominated:
        found.lines[:] = [line for line in found.lines if line.partition(b":")[0].lower() not in nominated]


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


def forwarded_line(kind: str, remote: str, host: str) -> bytes:
    """Return the field that tells the vendor who called (RFC 7239 §4, or the older X-Forwarded-For)."""
    if kind == "rfc7239":
        node = f'"[{remote}]"' if ":" in remote else remote
        return f'Forwarded: for={node};host="{host}"'.encode("latin-1")
    return f"X-Forwarded-For: {remote}".encode("latin-1")
