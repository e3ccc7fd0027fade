"""An app's request head, understood by the table of its route: what goes up, and what is for the gateway. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest, HeadersTooLarge
from gateway.proxy.fields import (
    AUTHORIZATION,
    CONNECTION,
    CONTROL,
    CONTROLS,
    DROP,
    EXPECT,
    HOST,
    KEY,
    PASS,
    REQUEST_ID,
    TRACEPARENT,
    UPGRADE,
    drop_nominated,
    is_torn,
    nominated,
    read_framing,
    values,
)

if TYPE_CHECKING:
    from gateway.model import Limits
    from gateway.proxy.fields import Verdicts

TARGET_LIMIT: Final = 16 * 1024
"""Bytes of a request target: identity vendors put whole JWTs into queries."""
_SANE_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_METHODS: Final = {
    name.encode("ascii"): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI", "QUERY", "SEARCH"),
        *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE"),
        *("NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK"),
        "UNSUBSCRIBE",
    )
}
"""Methods of the IANA registry and a few of old standing; what nobody has heard of is refused."""


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


def check_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise BadRequest if `part`, the beginning of a request's head, cannot become one any more.

    Its first `seen` bytes were found to be right before: a head that comes byte by byte is looked at once.
    """
    if is_torn(part, seen):
        raise BadRequest(CONTROL)
    end = part.find(b"\r\n")
    if end >= 0 and end + 2 > seen:
        RequestHead(bytes(part[:end]))


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
    if len(value.translate(None, CONTROLS)) != len(value):
        raise BadRequest(CONTROL)
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
    elif problem := read_framing(found, verdict, value):
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
    named = nominated(connection)
    if b"close" in named:
        found.keep_alive = False
    found.websocket = found.websocket and b"upgrade" in named
    drop_nominated(found.lines, named - {b"keep-alive", b"close", b"upgrade"})
