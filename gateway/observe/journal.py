"""Requests that have ended, to be counted and logged a few at a time.

What is done for one request after another is done with code and data that are still in the processor's caches; spread
among the requests themselves the same work takes several times as long. So an exchange leaves one entry here when it
ends, and a batch is written up when it is full, or within `INTERVAL` of its first entry; sooner when somebody looks at
the metrics, or the log is closed. Called from the loop's thread alone.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from gateway.model.http import COMMON_METHODS
from gateway.observe.log.access import AccessLog, Shape, printed_id, write
from gateway.observe.log.setup import before_closing, current_sink, get_logger, nothing_more
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
    ]
    Later = Callable[[float, Callable[[], None]], object]
    Traced = bytes | tuple[str, bool] | None
    Entry = tuple[
        Key,
        str,  # the reason of a failure
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
"""Seconds within which an entry is written up."""
BATCH: Final = 64
"""Entries that are written up at once: few enough that a request in between does not notice."""


_USUAL: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""A `traceparent` as nearly all are; the last bit says that somebody records the trace."""
_MOST_ROWS: Final = 1024
"""Kinds of request whose row is kept."""


def _on_the_loop(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


class _Row:
    """What requests of one kind have in common: where they are counted, and their line."""

    __slots__ = ("child", "client", "outcome", "route", "shape")

    def __init__(self, key: Key, reason: str) -> None:
        route, client, method, path, vendor_status, status, code, attempts, fingerprint, remote = key
        self.route = route
        self.child = route.child(method, status, code) if route is not None else None
        self.outcome = client.outcome(vendor_status, status, code) if client is not None else None
        self.shape = Shape(
            route.name if route is not None else None,
            client.name if client is not None else None,
            method, path, status, code, reason, attempts, fingerprint, remote,
        )  # fmt: skip


class Journal:
    """Counts and logs what has ended."""

    __slots__ = ("_due", "_entries", "_later", "_log", "_metrics", "_rows")

    def __init__(self, metrics: Metrics, later: Later = _on_the_loop) -> None:
        """Begin empty; `later` calls something so many seconds from now."""
        self._metrics = metrics
        self._later = later
        self._log = AccessLog()
        self._entries: list[Entry] = []
        self._due = False
        """A look at what is left over is planned."""
        self._rows: dict[Key, _Row] = {}
        metrics.before_reading.append(self.write_up)
        before_closing(self)

    def add(self, entry: Entry) -> None:
        """Take note of an exchange that has ended. The hot path.

        Its trace is what the app's `traceparent` says, or the id of one of ours and whether that is recorded.
        """
        entries = self._entries
        entries.append(entry)
        if len(entries) >= BATCH:
            self.write_up()
        elif not self._due:
            self._due = True
            self._later(INTERVAL, self._look)

    def _look(self) -> None:
        self._due = False
        self.write_up()

    def write_up(self) -> None:
        """Count and log what has been noted so far."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        sink, since, lines = current_sink(), time() - monotonic(), []
        for entry in entries:
            try:
                line = self._written(entry, since, sink)
            except Exception as error:  # noqa: BLE001 - one entry is lost, not those of others
                _own.exception("request_not_logged", error=type(error).__name__)
            else:
                if line is not None:
                    lines.append(line)
        if sink is not None and lines:
            write(sink, lines)

    def _written(self, entry: Entry, since: float, sink: Sink | None) -> bytes | None:
        """Count an entry; return its line if one is wanted. `since` is the wall clock at the monotonic zero."""
        key, reason, request_id, given, traced, started, ended, upstream_seconds, bytes_in, bytes_out = entry
        row = self._rows.get(key) if not reason else None
        if row is None:
            row = self._row(key, reason)
        trace_id, recorded = None, False
        if traced is not None:
            trace_id, recorded = traced if isinstance(traced, tuple) else _of_the_app(traced)
        seconds = ended - started
        if row.outcome is not None:
            row.outcome.value += 1
        if row.route is not None and row.child is not None:
            exemplar = trace_id if recorded else None
            row.route.count(row.child, seconds, upstream_seconds, bytes_in, bytes_out, exemplar)
        else:
            self._metrics.refused(key[6])
        if sink is None or not row.shape.wanted(sink):
            return None
        shown = printed_id(request_id) if given else request_id
        return self._log.line(row.shape, since + ended, shown, trace_id, seconds, upstream_seconds, bytes_in, bytes_out)

    def _row(self, key: Key, reason: str) -> _Row:
        """Make a row; kept unless a reason is in it, or a method that any app may invent."""
        row = _Row(key, reason)
        if not reason and key[2] in COMMON_METHODS:
            if len(self._rows) >= _MOST_ROWS:
                self._rows.clear()
            self._rows[key] = row
        return row

    def forget(self) -> None:
        """Forget where requests were counted: a configuration has come in which that may have no place."""
        self.write_up()
        self._rows.clear()

    def close(self) -> None:
        """Write up the rest, and write out what waits in the log, for a second at most. The log itself stays open."""
        self.write_up()
        nothing_more(self)
        sink = current_sink()
        if sink is not None:
            sink.writer.flush()


def _of_the_app(traceparent: bytes) -> tuple[str | None, bool]:
    usual = _USUAL.fullmatch(traceparent)
    if usual is not None:
        return usual[1].decode(), traceparent[-1] in b"13579bdf"
    parent = read_traceparent(traceparent.decode("latin-1"))
    return (None, False) if parent is None else (parent.trace_id, parent.sampled)
