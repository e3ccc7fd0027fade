"""Requests that have ended, to be counted and logged a few at a time.

What is done for one request after another is done with code and data that are still in the processor's caches; spread
among the requests themselves the same work takes several times as long. So an exchange leaves one entry here when it
ends, and a batch is written up when it is full, or `INTERVAL` after its first entry; sooner when somebody looks at the
metrics, or the log is closed. Called from the loop's thread alone.
"""

from __future__ import annotations

import asyncio
from time import monotonic, time
from typing import TYPE_CHECKING

from gateway.observe.logs import before_closing
from gateway.observe.spans import read_traceparent

if TYPE_CHECKING:
    from gateway.observe.access import AccessLog
    from gateway.observe.bound import ClientMetrics, RouteMetrics
    from gateway.observe.metrics import Metrics

    Traced = bytes | tuple[str, bool] | None
    Entry = tuple[
        RouteMetrics | None,
        ClientMetrics | None,
        str,  # the request's id
        Traced,
        str,  # its method
        str | None,  # the template that its path fits
        int,  # the vendor's status
        int,  # the status that the app was told
        str,  # the gateway's error code
        str,  # the reason of a failure
        float,  # monotonic instant of its beginning
        float,  # of its end
        float | None,  # seconds that the vendor took
        int,  # bytes of body in
        int,  # bytes of body out
        int,  # attempts
        str | None,  # the token's fingerprint
        str,  # the app's address
    ]

INTERVAL = 0.05
"""Seconds between the first entry of a batch and its writing."""
BATCH = 64
"""Entries that are written up at once: few enough that a request in between does not notice."""


class Journal:
    """Counts and logs what has ended."""

    __slots__ = ("__weakref__", "_entries", "_log", "_metrics")

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self._metrics = metrics
        self._log = log
        self._entries: list[Entry] = []
        metrics.settle = self.write_up
        before_closing(self)

    def add(self, entry: Entry) -> None:
        """Take note of an exchange that has ended. The hot path.

        Its trace is what the app's `traceparent` says, or the id of one of ours and whether that is recorded.
        """
        entries = self._entries
        entries.append(entry)
        if len(entries) == 1:
            asyncio.get_running_loop().call_later(INTERVAL, self.write_up)
        elif len(entries) >= BATCH:
            self.write_up()

    def write_up(self) -> None:
        """Count and log what has been noted so far."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        since = time() - monotonic()
        lines: list[bytes] = []
        for (
            route, client, request_id, traced, method, path, vendor_status, status, code, reason,
            started, ended, upstream_seconds, bytes_in, bytes_out, attempts, fingerprint, remote,
        ) in entries:  # fmt: skip
            trace_id, recorded = None, False
            if traced is not None:
                trace_id, recorded = traced if type(traced) is tuple else _of_the_app(traced)
            seconds = ended - started
            if client is not None:
                client.ended(vendor_status, status, code)
            if route is None:
                self._metrics.refused(code)
            else:
                exemplar = trace_id if recorded else None
                route.request(method, status, code, seconds, upstream_seconds, bytes_in, bytes_out, exemplar)
            line = self._log.line(
                since + ended,
                request_id,
                trace_id,
                route.name if route is not None else None,
                client.name if client is not None else None,
                method,
                path,
                status,
                code,
                reason,
                seconds,
                upstream_seconds,
                bytes_in,
                bytes_out,
                attempts,
                fingerprint,
                remote,
            )
            if line is not None:
                lines.append(line)
        if lines:
            self._log.write(lines)

    def close(self) -> None:
        """Write up the rest, and write out what waits in the log, for a second at most."""
        self.write_up()
        self._log.close()


def _of_the_app(traceparent: bytes) -> tuple[str | None, bool]:
    parent = read_traceparent(traceparent.decode("latin-1"))
    return (None, False) if parent is None else (parent.trace_id, parent.sampled)
