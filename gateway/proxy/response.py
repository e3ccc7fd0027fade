"""A vendor's response head: what the app gets, and what is dropped. Pure."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import BadRequest, UpstreamMalformed
from gateway.model.http import ANSWER_FIELDS
from gateway.proxy.fields import (
    CACHE_CONTROL,
    CONNECTION,
    CONTROL,
    CONTROLS,
    DATE,
    DROP,
    FRAMING,
    KEEP_ALIVE,
    NO_COLON,
    PASS,
    TWO_FRAMINGS,
    UPGRADE,
    Head,
    drop_nominated,
    is_torn,
    nominated,
    read_framing,
    values,
    verdicts_down,
)

_VERSION: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?\Z")
_TIMEOUT: Final = re.compile(rb"""(?:^|[,;\s])timeout\s*=\s*"?([0-9]{1,9})(?![^",;\s])""", re.IGNORECASE)
_DOWN = verdicts_down()
_KEPT: Final = frozenset({PASS, DATE})
_FIELD_LIMIT: Final = 16 * 1024


class Outbound(Head):
    """A vendor's response head, understood. `connection` is in lower case."""

    cache_control: bool = False
    """There is a `Cache-Control` field."""
    date: bool = False
    """There is a `Date` field."""
    upgrade: bytes | None = None
    """The value of `Upgrade`."""
    idle_timeout: int | None = None
    """Seconds after which the vendor closes an idle connection, as its `Keep-Alive` field says."""

    def __init__(self, code: int, status_line: bytes) -> None:
        super().__init__()
        self.code = code
        self.status_line = status_line
        """`HTTP/1.1 code reason`, the reason's bytes as the vendor sent them."""

    def value(self, name: bytes) -> str:
        """Return the value of the first field of this name, which is in lower case; empty without one."""
        return next(iter(values(self.lines, name)), "")


def check_answer_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise UpstreamMalformed if `part` cannot be the beginning of a valid response head.

    Its first `seen` bytes were checked before.
    """
    if not part.startswith(_VERSION[: len(part)]) or is_torn(part, seen):
        raise UpstreamMalformed(reason="the answer does not begin like an HTTP/1.1 response")


def read_response(head: bytes) -> Outbound:
    """Parse a vendor's head, given without its final empty line.

    Raises UpstreamMalformed if it is not valid HTTP/1, or could split an answer or smuggle one.
    """
    status_line, *fields = head.split(b"\r\n")
    outbound = _read_status_line(status_line)
    if len(fields) > ANSWER_FIELDS:
        raise UpstreamMalformed(reason="too many fields in the response head")
    lines, steady = outbound.lines, _DOWN.steady
    try:
        for line in fields:
            verdict = steady.get(line)
            if verdict is None:
                verdict = _read_field(outbound, line)
            if verdict == PASS:
                lines.append(line)
            elif verdict == DATE:
                outbound.date = True
                lines.append(line)
    except BadRequest as error:
        raise UpstreamMalformed(reason=error.detail) from None
    if outbound.connection:
        _read_connection(outbound)
    if outbound.chunked and outbound.length is not None:
        raise UpstreamMalformed(reason=TWO_FRAMINGS)
    return outbound


def _read_status_line(line: bytes) -> Outbound:
    if line == b"HTTP/1.1 200 OK":
        return Outbound(200, line)
    parts = _STATUS_LINE.match(line)
    if parts is None or len(line.translate(None, CONTROLS)) != len(line):
        raise UpstreamMalformed(reason="the status line is not one of HTTP/1.1")
    minor, code, reason = parts.groups()
    head = Outbound(int(code), b"HTTP/1.1 %b %b" % (code, reason or b""))
    head.keep_alive = minor == b"1"  # an HTTP/1.0 connection is not used again, whatever it says
    return head


def _read_field(head: Outbound, line: bytes) -> int:
    """Read a line that is not cached; return PASS if the app gets it, DATE if it is the `Date` field, else DROP."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadRequest(NO_COLON)
    verdict = _DOWN[name]
    if len(value.translate(None, CONTROLS)) != len(value):
        raise BadRequest(CONTROL)
    if len(line) > _FIELD_LIMIT:
        raise BadRequest("A field is too large")
    value = value.strip(b" \t")
    if verdict in _KEPT:
        _DOWN.remember(line, name, verdict)
        return verdict
    if verdict in FRAMING:
        read_framing(head, verdict, value)
    elif verdict == CACHE_CONTROL:
        head.cache_control = True
        return PASS
    elif verdict == CONNECTION:
        if value.lower() == b"keep-alive":  # the default of HTTP/1.1
            _DOWN.remember(line, name, DROP)
        else:
            head.connection += b"," + value.lower()
    elif verdict != DROP:
        _read_hop_field(head, verdict, value)
    return DROP


def _read_hop_field(head: Outbound, verdict: int, value: bytes) -> None:
    """Read a field about the vendor's connection."""
    if verdict == UPGRADE:
        head.upgrade = value
    elif verdict == KEEP_ALIVE:  # as `timeout=5, max=100` (RFC 2068 §19.7.1.1)
        match = _TIMEOUT.search(value)
        head.idle_timeout = int(match[1]) if match is not None else None


def _read_connection(head: Outbound) -> None:
    named = nominated(head.connection)
    if b"close" in named:
        head.keep_alive = False
    drop_nominated(head.lines, named - {b"keep-alive", b"close", b"upgrade", b"date", b"cache-control"})
