"""Counts and logs requests that have ended, in batches.

A batch is several times cheaper than the same work after each request, because code and data stay in the processor's
caches. An exchange adds one entry when it ends. A batch is processed when it is full or `INTERVAL` after its first
entry; earlier when metrics are read or the log is closed. Called only from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from gateway.model.http import COMMON_METHODS, SERVER_ERROR
from gateway.observe.log.access import LineRenderer, LineTemplate, printed_id, write
from gateway.observe.log.setup import current_sink, flush_before_closing, get_logger, stop_flushing
from gateway.observe.trace.spans import read_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.observe.log.setup import Sink
    from gateway.observe.metrics.children import ClientMetrics, RouteMetrics
    from gateway.observe.metrics.registry import Metrics

    Key = tuple[
        RouteMetrics | None,
        ClientMetrics | None,
        str,  # the method
        str | None,  # the template that the path fits
        int,  # the vendor's status
        int,  # the status that the app was told
        str,  # the gateway's error code
        int,  # attempts
        str | None,  # the token's fingerprint
        str,  # the app's address
        str,  # the reason of a failure, empty for a success
    ]
    Later = Callable[[float, Callable[[], None]], object]
    Traced = bytes | tuple[str, bool] | None
    Entry = tuple[
        Key,
        str,  # the request's id
        bool,  # whether the app has given it
        Traced,
        float,  # monotonic instant of its beginning
        float,  # of its end
        float | None,  # seconds that the vendor took
        int,  # bytes of body in
        int,  # bytes of body out
    ]

_own = get_logger("gatepass")
INTERVAL: Final = 0.05
"""Most seconds that an entry waits."""
BATCH: Final = 64
"""Entries of one batch: few enough not to delay the requests being served."""


_USUAL_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""The usual form of `traceparent`; the last bit means that the trace is recorded."""
_MOST_ROWS: Final = 1024
"""Rows that are kept."""


def _on_the_loop(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


class _Row:
    """What requests with the same key share: their counters, and the constant parts of their log line."""

    __slots__ = ("child", "client", "outcome", "route", "template")

    def __init__(self, key: Key) -> None:
        route, client, method, path, vendor_status, status, code, attempts, fingerprint, remote, reason = key
        if route is not None and not reason and not code and status >= SERVER_ERROR:
            reason = f"{route.upstream} answered {status}"
        self.route = route
        self.child = route.child(method, status, code) if route is not None else None
        self.outcome = client.outcome(vendor_status, status, code) if client is not None else None
        self.template = LineTemplate(
            route.name if route is not None else None,
            client.name if client is not None else None,
            method, path, status, code, reason, attempts, fingerprint, remote,
        )  # fmt: skip


class Journal:
    """Counts and logs requests that have ended."""

    __slots__ = ("_due", "_entries", "_later", "_log", "_metrics", "_rows")

    def __init__(self, metrics: Metrics, later: Later = _on_the_loop) -> None:
        """Start empty. `later` calls a function after some seconds."""
        self._metrics = metrics
        self._later = later
        self._log = LineRenderer()
        self._entries: list[Entry] = []
        self._due = False
        """Whether a flush is scheduled."""
        self._rows: dict[Key, _Row] = {}
        metrics.before_reading.append(self.flush)
        flush_before_closing(self)

    def add(self, entry: Entry) -> None:
        """Add an exchange that has ended. The hot path.

        Its trace is the app's `traceparent`, or the id of a trace that we started and whether it is recorded.
        """
        entries = self._entries
        entries.append(entry)
        if len(entries) >= BATCH:
            self.flush()
        elif not self._due:
            self._due = True
            self._later(INTERVAL, self._on_timer)

    def _on_timer(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        """Count and log all entries."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        sink, since, lines = current_sink(), time() - monotonic(), []
        for entry in entries:
            try:
                line = self._written(entry, since, sink)
            except Exception as error:  # noqa: BLE001 - lose one entry, not the whole batch
                _own.exception("request_not_logged", error=type(error).__name__)
            else:
                if line is not None:
                    lines.append(line)
        if sink is not None and lines:
            write(sink, lines)

    def _written(self, entry: Entry, since: float, sink: Sink | None) -> bytes | None:
        """Count an entry; return its log line, None if it gets none. `since`: wall clock minus monotonic clock."""
        key, request_id, given, traced, started, ended, upstream_seconds, bytes_in, bytes_out = entry
        row = self._rows.get(key)
        if row is None:
            row = self._row(key)
        trace_id, recorded = None, False
        if traced is not None:
            trace_id, recorded = traced if isinstance(traced, tuple) else _app_trace(traced)
        seconds = ended - started
        if row.outcome is not None:
            row.outcome.value += 1
        if row.route is not None and row.child is not None:
            exemplar = trace_id if recorded else None
            row.route.count(row.child, seconds, upstream_seconds, bytes_in, bytes_out, exemplar)
        else:
            self._metrics.refused(key[6])
        if sink is None or not row.template.wanted(sink):
            return None
        shown = printed_id(request_id) if given else request_id
        return self._log.line(
            row.template, since + ended, shown, trace_id, seconds, upstream_seconds, bytes_in, bytes_out
        )

    def _row(self, key: Key) -> _Row:
        """Return a new row. It is kept unless an app invented its method."""
        row = _Row(key)
        if key[2] in COMMON_METHODS:
            if len(self._rows) >= _MOST_ROWS:
                self._rows.clear()
            self._rows[key] = row
        return row

    def forget(self) -> None:
        """Drop all rows, because after a reload their counters may no longer exist."""
        self.flush()
        self._rows.clear()

    def close(self) -> None:
        """Process all entries and flush the log, for at most one second. The log stays open."""
        self.flush()
        stop_flushing(self)
        sink = current_sink()
        if sink is not None:
            sink.writer.flush()


def _app_trace(traceparent: bytes) -> tuple[str | None, bool]:
    usual = _USUAL_TRACEPARENT.fullmatch(traceparent)
    if usual is not None:
        return usual[1].decode(), traceparent[-1] in b"13579bdf"
    parent = read_traceparent(traceparent.decode("latin-1"))
    return (None, False) if parent is None else (parent.trace_id, parent.sampled)
