"""A vendor's response head, understood: what goes back to the app, and what ends here. Pure."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import BadRequest, UpstreamMalformed
from gateway.proxy.fields import (
    CACHE_CONTROL,
    CONNECTION,
    CONTROL,
    CONTROLS,
    DATE,
    DROP,
    MEANING_DOWN,
    PASS,
    UPGRADE,
    Verdicts,
    drop_nominated,
    is_torn,
    nominated,
    read_framing,
    values,
)

_VERSION: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?\Z")
_DOWN = Verdicts(MEANING_DOWN)
_KEPT: Final = frozenset({PASS, DATE})
_MOST_FIELDS: Final = 200
_FIELD_LIMIT: Final = 16 * 1024


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


def check_answer_beginning(part: bytes | bytearray, seen: int = 0) -> None:
    """Raise UpstreamMalformed if `part`, the beginning of a response's head, cannot become one any more.

    Its first `seen` bytes were found to be right before.
    """
    if not part.startswith(_VERSION[: len(part)]) or is_torn(part, seen):
        raise UpstreamMalformed(reason="what came is not the beginning of an HTTP/1.1 response")


def read_response(head: bytes) -> Outbound:
    """Understand a vendor's head, without the empty line behind it.

    Raises UpstreamMalformed for what is none, and for what could split or smuggle.
    """
    status_line, *fields = head.split(b"\r\n")
    found = _read_status_line(status_line)
    if len(fields) > _MOST_FIELDS:
        raise UpstreamMalformed(reason="too many fields in the response head")
    lines, steady = found.lines, _DOWN.steady
    try:
        for line in fields:
            verdict = steady.get(line)
            if verdict is None:
                verdict = _read_field(found, line)
            if verdict == PASS:
                lines.append(line)
            elif verdict == DATE:
                found.date = True
                lines.append(line)
    except BadRequest as error:
        raise UpstreamMalformed(reason=error.detail) from None
    if found.connection:
        _read_connection(found)
    if found.chunked and found.length is not None:
        raise UpstreamMalformed(reason="Content-Length and Transfer-Encoding together")
    return found


def _read_status_line(line: bytes) -> Outbound:
    if line == b"HTTP/1.1 200 OK":
        return Outbound(200, line)
    parts = _STATUS_LINE.match(line)
    if parts is None or len(line.translate(None, CONTROLS)) != len(line):
        raise UpstreamMalformed(reason="the status line is not one of HTTP/1.1")
    minor, code, reason = parts.groups()
    found = Outbound(int(code), b"HTTP/1.1 %b %b" % (code, reason or b""))
    found.keep_alive = minor == b"1"  # what HTTP/1.0 says of its framing is not trusted with a second request
    return found


def _read_field(found: Outbound, line: bytes) -> int:
    """Understand a line that is not a steady one; return PASS if it goes on to the app, DATE if it is that."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadRequest("A header field has no colon")
    verdict = _DOWN[name]
    if len(value.translate(None, CONTROLS)) != len(value):
        raise BadRequest(CONTROL)
    if len(line) > _FIELD_LIMIT:
        raise BadRequest("A field is too large")
    value = value.strip(b" \t")
    if verdict in _KEPT:
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
    elif verdict != DROP and (problem := read_framing(found, verdict, value)):
        raise BadRequest(problem)
    return DROP


def _read_connection(found: Outbound) -> None:
    named = nominated(found.connection)
    if b"close" in named:
        found.keep_alive = False
    drop_nominated(found.lines, named - {b"keep-alive", b"close", b"upgrade", b"date", b"cache-control"})
