"""The way out for log lines: a bounded buffer and one thread that writes it, so that no request ever waits for stdout.

Knows bytes and a stream, nothing of events. A slow or closed stream costs lines, never time: what does not fit is
dropped whole and counted. The thread sleeps while there is nothing to write, and gathers for `INTERVAL` when there is.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
from typing import IO, Any

INTERVAL = 0.05
"""Seconds between the first line of a batch and its writing."""
BUFFER_BYTES = 8 * 1024 * 1024
"""Bytes of lines that wait at most; beyond it new lines are dropped."""
CLOSE_TIMEOUT = 1.0
"""Seconds that `close` waits for a stream that does not take the rest."""

_dropped = 0  # of the process, over all writers: the counter of the metrics outlives a reconfiguration
_dropped_lock = threading.Lock()


def dropped_events() -> int:
    """Return how many lines this process has lost so far."""
    return _dropped


def _drop(lines: int) -> None:
    global _dropped  # noqa: PLW0603  global state lives here and is this one number
    with _dropped_lock:
        _dropped += lines


class Writer:
    """Takes whole lines from any thread, writes them in order from its own.

    A stream with a file descriptor is written through it (a thread that hangs inside a buffered stream would keep
    the interpreter from ending); any other stream gets text.
    """

    def __init__(self, stream: IO[Any], *, limit: int = BUFFER_BYTES, interval: float = INTERVAL) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._limit = limit
        self._interval = interval
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._in_hand = 0
        self._closed = False
        self._something = threading.Event()
        self._hurry = threading.Event()
        self._empty = threading.Event()
        self._empty.set()
        self._thread = threading.Thread(target=self._run, name="gatepass-logs", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, its newline included. Never blocks; drops and counts when the buffer is full or closed."""
        with self._lock:
            if self._closed or self._size + len(line) > self._limit:
                fits = False
            else:
                fits = True
                first = not self._lines
                if first:
                    self._empty.clear()
                self._lines.append(line)
                self._size += len(line)
        if not fits:
            _drop(1)
        elif first:
            self._something.set()

    def flush(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Have everything written now and wait for it, at most `timeout` seconds; return whether it was."""
        self._hurry.set()
        written = self._empty.wait(timeout)
        self._hurry.clear()
        return written

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write what is left, at most `timeout` seconds long; what remains then is dropped and counted."""
        with self._lock:
            self._closed = True
        self._hurry.set()
        self._something.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._lock:
                lost, self._lines = len(self._lines) + self._in_hand, []
                self._in_hand = 0
            _drop(lost)

    def _run(self) -> None:
        while not self._closed:
            self._something.wait()
            self._hurry.wait(self._interval)
            self._something.clear()
            self._put_all()
        self._put_all()

    def _put_all(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            self._in_hand = len(lines)
        if not lines:
            return
        try:
            self._put(b"".join(lines))
        except (OSError, ValueError):  # closed by the other end, or by us: nobody is left to tell but the counter
            with self._lock:
                lost, self._in_hand = self._in_hand, 0
            _drop(lost)
        with self._lock:
            self._in_hand = 0
            self._size -= sum(map(len, lines))
            if not self._lines:
                self._empty.set()

    def _put(self, data: bytes) -> None:
        if self._fd is None:
            self._stream.write(data.decode("utf-8", "replace"))
            self._stream.flush()
            return
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                select.select([], [self._fd], [])


def _descriptor(stream: IO[Any]) -> int | None:
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        stream.flush()
        return stream.fileno()
    return None
