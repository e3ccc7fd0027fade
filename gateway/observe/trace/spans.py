"""The trace of a request: W3C Trace Context, read, started or passed on, and the spans of one exchange.

Knows nothing of OpenTelemetry: a finished span is a plain tuple that goes to the exporter (`otlp.py`), so a request
pays only for a few additions. Without a `Tracer`, the data plane pays for one `is None`. Spans contain names from the
configuration, numbers and error codes; never a path, a query, a header or a token.

https://www.w3.org/TR/trace-context/ · OpenTelemetry semantic conventions for HTTP spans.
"""

from __future__ import annotations

import re
import time
from random import getrandbits, random
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from gateway.errors import ExchangeError, UpstreamReset
from gateway.model.http import COMMON_METHODS
from gateway.observe.redaction.redact import shown_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.model import Upstream

Kind = Literal["server", "client", "internal"]
Value = str | int | float | bool
T = TypeVar("T")

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
_NOTHING: Mapping[str, Value] = {}
_dropped = 0  # of the process, as for log lines


def dropped_spans() -> int:
    """Return how many spans this process has dropped."""
    return _dropped


def drop(spans: int) -> None:
    """Count dropped spans."""
    global _dropped  # noqa: PLW0603  global state lives here and is this one number
    _dropped += spans


class Span(NamedTuple):
    """One finished span. Instants are nanoseconds since the epoch; `error` is empty on success."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent_id: str | None
    started: int
    ended: int
    attributes: Mapping[str, Value]
    error: str


class Parent(NamedTuple):
    """The content of a `traceparent` field."""

    trace_id: str
    span_id: str
    sampled: bool


def read_traceparent(value: str) -> Parent | None:
    """Return the parsed field; None if it is invalid, which counts as absent (Trace Context §3.2.2)."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if more and version == "00":
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


class Tracer:
    """Decides which requests are recorded: those that their caller records, and a share of the others.

    Args:
        sample: share of the requests without a `traceparent` that are recorded, 0 to 1.
        export: receives each finished span; must not block.
    """

    def __init__(self, sample: float, export: Callable[[Span], None]) -> None:
        self._sample = sample
        self._export = export

    def begin(self, parents: Sequence[str], started: float) -> Trace:
        """Return the trace of a request with these `traceparent` fields.

        `started` is the monotonic instant of its start.
        """
        parent = read_traceparent(parents[0]) if len(parents) == 1 else None
        sampled = random() < self._sample if parent is None else parent.sampled  # noqa: S311  no secret hangs on it
        trace = Trace(parent, sampled, started, self._export)
        trace.given = bool(parents)
        return trace


class Trace:
    """The trace of one exchange. Its arguments are monotonic instants."""

    __slots__ = (
        "_base", "_export", "_parent", "_started", "_vendor", "_vendor_at", "given", "sampled", "span_id", "trace_id",
    )  # fmt: skip

    def __init__(self, parent: Parent | None, sampled: bool, started: float, export: Callable[[Span], None]) -> None:
        self.trace_id = f"{getrandbits(128) or 1:032x}" if parent is None else parent.trace_id
        self.sampled = sampled
        self.given = True
        """Whether the request had `traceparent` fields, valid or not."""
        self.span_id = _new_id() if sampled else ""
        self._parent = parent
        self._started = started
        self._base = time.time_ns() - int((time.monotonic() - started) * 1e9) if sampled else 0
        self._export = export
        self._vendor: str | None = None
        self._vendor_at = 0.0

    def upward(self, lines: list[bytes]) -> None:
        """Set the `traceparent` for the vendor among the request's fields.

        If the trace is not recorded here, the app's field passes unchanged, so that the app's trace stays connected.
        """
        if not self.sampled and self._parent is not None:
            return
        if self.given:
            lines[:] = [line for line in lines if not _is_traceparent(line)]
        self._vendor = _new_id()
        self._vendor_at = time.monotonic()
        lines.append(f"traceparent: 00-{self.trace_id}-{self._vendor}-{'01' if self.sampled else '00'}".encode())

    async def timed(self, name: str, work: Awaitable[T]) -> T:
        """Await `work` inside a span."""
        started = time.monotonic()
        try:
            result = await work
        except BaseException as error:
            self._record(name, started, _error_of(error))
            raise
        self._record(name, started, "")
        return result

    def answered(self, status: int, attempt: int, upstream: Upstream, error: BaseException | None) -> None:
        """End the span of one attempt: with the vendor's status, or with the error if the status is 0."""
        vendor, self._vendor = self._vendor, None
        if vendor is None or not self.sampled:
            return
        attributes: dict[str, Value] = {"server.address": upstream.host, "server.port": upstream.port}
        if status:
            attributes["http.response.status_code"] = status
        if attempt > 1:
            attributes["http.request.resend_count"] = attempt - 1
        failed = _error_of(error) if error is not None else _error_in(status)
        self._record("vendor", self._vendor_at, failed, kind="client", said=attributes, span_id=vendor)

    def request(
        self, *, method: str, route: str | None, prefix: str | None, client: str | None, status: int, code: str,
        request_id: str,
    ) -> None:  # fmt: skip
        """End the span of the request; `code` is the gateway's error, empty for the vendor's own answer."""
        if not self.sampled:
            return
        method = method if method in COMMON_METHODS else "_OTHER"
        said: dict[str, Value | None] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "http.route": prefix,
            "gatepass.route": route,
            "gatepass.client": client,
            "gatepass.code": code or None,
            "gatepass.request_id": shown_id(request_id),
        }
        attributes = {key: value for key, value in said.items() if value is not None}
        name = f"{method} {prefix}" if prefix is not None else method
        error = code or (str(status) if status >= 500 else "")  # noqa: PLR2004  a server's span: 4xx is the app's
        parent = self._parent.span_id if self._parent is not None else None
        self._export(
            Span(name, "server", self.trace_id, self.span_id, parent, self._base, self._now(), attributes, error)
        )

    def _record(
        self, name: str, started: float, error: str, *, kind: Kind = "internal", said: Mapping[str, Value] = _NOTHING,
        span_id: str = "",
    ) -> None:  # fmt: skip
        if not self.sampled:
            return
        began = self._base + int((started - self._started) * 1e9)
        span_id = span_id or _new_id()
        self._export(Span(name, kind, self.trace_id, span_id, self.span_id, began, self._now(), said, error))

    def _now(self) -> int:
        return self._base + int((time.monotonic() - self._started) * 1e9)


def _new_id() -> str:
    return f"{getrandbits(64) or 1:016x}"


def _is_traceparent(line: bytes) -> bool:
    return line[:12].lower() == b"traceparent:"


def _error_in(status: int) -> str:
    if not status:
        return UpstreamReset.code
    return str(status) if status >= 400 else ""  # noqa: PLR2004  a client's span: every refusal counts


def _error_of(error: BaseException) -> str:
    return error.code if isinstance(error, ExchangeError) else type(error).__name__
