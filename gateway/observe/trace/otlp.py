"""Sends spans to a collector by OTLP over HTTP. The only module that knows OpenTelemetry.

OpenTelemetry is an optional extra (`tracing`), imported only if `tracing.otlp` is set. Spans
wait in a bounded queue and are sent in batches by a separate thread. If the collector is slow or fails, spans are
dropped and counted; requests never wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from yarl import URL

from gateway import __version__
from gateway.errors import GatepassError
from gateway.observe.log.setup import get_logger
from gateway.observe.trace.spans import Tracer, drop

if TYPE_CHECKING:
    from gateway.model import Tracing as Settings
    from gateway.observe.trace.spans import Span

QUEUE = 4096
"""Spans in the queue at most; beyond it, new spans are dropped."""
BATCH = 512
INTERVAL = 1.0
"""Seconds between two batches."""
TIMEOUT = 5.0
"""Seconds for one batch, retries included."""
CLOSE_TIMEOUT = 2.0

_log = get_logger("gatepass.tracing")


class TracingUnavailable(GatepassError):
    """`tracing.otlp` is set, but OpenTelemetry is not installed."""


class Tracing:
    """The exporter of the current configuration, if there is one."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._exporter: Exporter | None = None

    def use(self, settings: Settings | None) -> Tracer | None:
        """Return the tracer for these settings, None for None. Equal settings keep the current tracer.

        Raises TracingUnavailable if the extra is missing; the previous exporter then stays in use.
        """
        if settings != self._settings:
            before, self._exporter = self._exporter, Exporter(settings) if settings is not None else None
            self._settings = settings
            if before is not None:
                before.end()
        return self._exporter.tracer if self._exporter is not None else None

    async def close(self) -> None:
        """Send the rest, for at most `CLOSE_TIMEOUT` seconds."""
        exporter, self._exporter, self._settings = self._exporter, None, None
        if exporter is not None:
            await asyncio.to_thread(exporter.close)


class Exporter:
    """Sends spans to the collector at `tracing.otlp`.

    Raises TracingUnavailable if the extra is missing.
    """

    def __init__(self, tracing: Settings) -> None:
        try:
            self._otel = _OpenTelemetry(tracing)
        except ImportError as error:
            raise TracingUnavailable(
                "tracing needs packages that are not installed: the extra `tracing` of the wheel"
            ) from error
        self.tracer = Tracer(tracing.sample, self._take)
        self._spans: deque[Span] = deque()
        self._closed = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="gatepass-traces", daemon=True)
        self._thread.start()

    def _take(self, span: Span) -> None:
        if len(self._spans) < QUEUE:
            self._spans.append(span)
        else:
            drop(1)

    def end(self) -> None:
        """Accept no more spans; send the rest in the background."""
        self._closed.set()

    def close(self) -> None:
        """Send the rest, for at most `CLOSE_TIMEOUT` seconds."""
        self.end()
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            self._send_all()
        self._send_all()
        self._otel.close()

    def _send_all(self) -> None:
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(BATCH, len(self._spans)))]
            sent = self._otel.send(batch)
            if not sent:
                drop(len(batch))
            if sent is self._failing:  # log each change once
                (_log.info if sent else _log.warning)("traces_sent_again" if sent else "traces_not_sent")
            self._failing = not sent


class _OpenTelemetry:
    """OpenTelemetry's types and exporter, imported on construction."""

    def __init__(self, tracing: Settings) -> None:
        from opentelemetry import trace  # noqa: PLC0415  optional
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        from gateway.observe.trace.session import collector_session  # noqa: PLC0415

        url = URL(tracing.otlp)
        endpoint = url.with_path("/v1/traces") if url.path in {"", "/"} else url
        self._span: Any = ReadableSpan
        self._trace: Any = trace
        self._success = SpanExportResult.SUCCESS
        self._resource = Resource.create({"service.name": tracing.service, "service.version": __version__})
        self._scope = InstrumentationScope("gatepass", __version__)
        self._exporter = OTLPSpanExporter(
            endpoint=str(endpoint), timeout=TIMEOUT, session=collector_session(tracing.egress, url.raw_host or "")
        )
        kinds = trace.SpanKind
        self._kinds = {"server": kinds.SERVER, "client": kinds.CLIENT, "internal": kinds.INTERNAL}

    def send(self, spans: list[Span]) -> bool:
        """Send one batch; return whether the collector accepted it."""
        return self._exporter.export([self._readable(span) for span in spans]) is self._success

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> Any:
        trace = self._trace
        code = trace.StatusCode.ERROR if span.error else trace.StatusCode.UNSET
        attributes = {**span.attributes, "error.type": span.error} if span.error else dict(span.attributes)
        return self._span(
            name=span.name,
            context=self._context(span.trace_id, span.span_id, remote=False),
            parent=self._context(span.trace_id, span.parent_id, remote=span.kind == "server"),
            resource=self._resource,
            attributes=attributes,
            kind=self._kinds[span.kind],
            status=trace.Status(code),
            start_time=span.started,
            end_time=span.ended,
            instrumentation_scope=self._scope,
        )

    def _context(self, trace_id: str, span_id: str | None, *, remote: bool) -> Any:
        if span_id is None:
            return None
        flags = self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED)
        return self._trace.SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags)
