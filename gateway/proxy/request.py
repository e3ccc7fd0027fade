"""An app's request head, sorted by the table of its route: what the vendor gets, and what is for the gateway. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest, HeadersTooLarge
from gateway.model.http import METHODS
from gateway.proxy.fields import (
    AUTHORIZATION,
    CONNECTION,
    CONTROL,
    CONTROLS,
    DROP,
    EXPECT,
    FRAMING,
    HOST,
    INJECTED,
    KEY,
    NO_COLON,
    PASS,
    REQUEST_ID,
    TRACEPARENT,
    TWO_FRAMINGS,
    UPGRADE,
    VIA_FIELD,
    Head,
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
"""Bytes of the longest request target: identity vendors put whole JWTs into queries."""
_SANE_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_TLS_RECORD: Final = b"\x16"
"""First byte of a TLS handshake (RFC 8446 §5.1); no request begins with it."""
_METHODS: Final = {name.encode("ascii"): name for name in METHODS}
"""Method as written → its name as text; any other method is rejected."""


class RequestHead:
    """A request line, parsed, and the lines of the fields, which `read_request` interprets once the route is known."""

    __slots__ = ("fields", "http_1_1", "method", "size", "target")

    def __init__(self, head: bytes) -> None:
        """Parse a head, given without its final empty line. Raises BadRequest if the request line is not HTTP/1."""
        first, *self.fields = head.split(b"\r\n")
        self.size = len(head) + 4
        """Bytes of the head, including the empty line."""
        try:
            method, target, version = first.split(b" ")
            self.method = _METHODS[method]
            self.target = target.decode("ascii")
        except (ValueError, KeyError):
            raise BadRequest("The request line is not one of HTTP/1.1", reason=_reason(head)) from None
        self.http_1_1 = version == b"HTTP/1.1"
        if not self.http_1_1 and version != b"HTTP/1.0":
            raise BadRequest("The HTTP version is neither 1.0 nor 1.1")
        if len(target) > TARGET_LIMIT:
            raise HeadersTooLarge(f"A request target may hold {TARGET_LIMIT} bytes")

    def values(self, name: bytes) -> list[str]:
        """Return the values of all fields of this name, which is in lower case."""
        return values(self.fields, name)


def _reason(head: bytes | bytearray) -> str:
    """Return what was sent instead of a request, if it is recognised, for the log."""
    return "a TLS handshake on a port without TLS" if head[:1] == _TLS_RECORD else ""


def check_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise BadRequest if `part` cannot be the beginning of a valid request head.

    Its first `seen` bytes were checked before, so a head that arrives byte by byte is checked once.
    """
    if part[:1] == _TLS_RECORD:
        raise BadRequest(reason=_reason(part))
    if is_torn(part, seen):
        raise BadRequest(CONTROL)
    end = part.find(b"\r\n")
    if end >= 0 and end + 2 > seen:
        RequestHead(bytes(part[:end]))


class Inbound(Head):
    """An app's request head, understood: what is passed on, and what is for the gateway."""

    key: bytes | None = None
    bearer: bytes | None = None
    injected: bytes | None = None
    """The app's own value of a header that the route injects: a key or pass may stand there."""
    request_id: bytes | None = None
    traceparent: bytes | None = None
    """The app's `traceparent`; empty if it sent several."""
    expects_continue: bool = False
    via: bytes = b""
    """The values of all `Via` fields, joined by commas."""
    websocket: bool = False
    upgrade: bool = False
    """Asks for any upgrade."""
    hosts: int = 0
    """How many `Host` fields there are."""


UNREAD: Final = Inbound()
"""The head of a request whose fields have not been read, or not successfully."""
UNREAD.keep_alive = False


def read_for_log(head: RequestHead) -> Inbound:
    """Return what the log shows of a head that was rejected unread: the request id and the trace."""
    inbound = Inbound()
    inbound.keep_alive = False
    for line in head.fields:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        if name.lower() == b"x-request-id" and _SANE_ID.match(value) is not None:
            inbound.request_id = value
        elif name.lower() == b"traceparent":
            inbound.traceparent = value if inbound.traceparent is None else b""
    return inbound


def read_request(head: RequestHead, verdicts: Verdicts, limits: Limits) -> Inbound:
    """Sort an app's header fields. Raises BadRequest or HeadersTooLarge for what RFC 9112 does not allow."""
    if head.size > limits.head_bytes or len(head.fields) > limits.fields:
        raise HeadersTooLarge(f"The head may hold {limits.fields} fields and {limits.head_bytes} bytes")
    inbound = Inbound()
    lines, steady = inbound.lines, verdicts.steady
    for line in head.fields:
        verdict = steady.get(line)
        if verdict is None:
            verdict = _read_field(inbound, line, verdicts, limits.field_bytes)
        if verdict == PASS:
            lines.append(line)
        elif verdict == HOST:
            inbound.hosts += 1
    _check_request(head, inbound)
    if inbound.connection:
        _read_connection(inbound, inbound.connection.lower())
    return inbound


def _read_field(inbound: Inbound, line: bytes, verdicts: Verdicts, limit: int) -> int:
    """Read a line that is not cached; return PASS if the vendor gets it, HOST if it is the `Host` field, else DROP."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadRequest(NO_COLON)
    verdict = verdicts[name]
    value = value.strip(b" \t")
    if len(value.translate(None, CONTROLS)) != len(value):
        raise BadRequest(CONTROL)
    if len(line) > limit and max(len(name), len(value)) > limit:
        raise HeadersTooLarge(f"A field may hold {limit} bytes")
    if verdict <= HOST:
        if verdict == HOST and _HOST.match(value) is None:
            raise BadRequest("The Host field is not a host")
        verdicts.remember(line, name, verdict)
        return verdict
    if verdict == CONNECTION:
        if value == b"keep-alive":  # the default of HTTP/1.1
            verdicts.remember(line, name, DROP)
        inbound.connection = inbound.connection + b"," + value if inbound.connection else value
    elif verdict == TRACEPARENT:
        inbound.traceparent = value if inbound.traceparent is None else b""
        return PASS
    elif verdict == VIA_FIELD:
        inbound.via = inbound.via + b"," + value if inbound.via else value
        return PASS
    else:
        _read_special(inbound, verdict, value)
    return DROP


def _read_special(inbound: Inbound, verdict: int, value: bytes) -> None:
    if verdict == KEY:
        # Two keys count as a wrong one, because servers disagree about which of two fields counts.
        inbound.key = value if inbound.key is None else b""
    elif verdict in FRAMING:
        read_framing(inbound, verdict, value)
    elif verdict == INJECTED:
        inbound.injected = value if inbound.injected is None else b""
    elif verdict == REQUEST_ID:
        inbound.request_id = value if _SANE_ID.match(value) is not None else inbound.request_id
    elif verdict == AUTHORIZATION:
        scheme, _, credentials = value.partition(b" ")
        inbound.bearer = credentials.strip() if inbound.bearer is None and scheme.lower() == b"bearer" else b""
    elif verdict == UPGRADE:
        inbound.websocket = not inbound.upgrade and value.lower() == b"websocket"
        inbound.upgrade = True
    elif verdict == EXPECT:
        if value.lower() != b"100-continue":
            raise BadRequest("Expect is not 100-continue")
        inbound.expects_continue = True


def _check_request(head: RequestHead, inbound: Inbound) -> None:
    if not head.http_1_1:
        if inbound.chunked or inbound.hosts > 1:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding and at most one Host")
        inbound.expects_continue = inbound.websocket = inbound.keep_alive = False
    elif inbound.hosts != 1:
        raise BadRequest("The Host field must appear exactly once")
    if inbound.chunked and inbound.length is not None:
        raise BadRequest(TWO_FRAMINGS)
    if inbound.upgrade or head.method == "CONNECT":
        # The app may already be sending bytes of the new protocol, which must not be read as requests.
        inbound.keep_alive = False
        asked = head.method == "GET" and not inbound.chunked and not inbound.length
        inbound.websocket = inbound.websocket and asked and bool(inbound.connection)


def _read_connection(inbound: Inbound, connection: bytes) -> None:
    named = nominated(connection)
    if b"close" in named:
        inbound.keep_alive = False
    inbound.websocket = inbound.websocket and b"upgrade" in named
    drop_nominated(inbound.lines, named - {b"keep-alive", b"close", b"upgrade"})
