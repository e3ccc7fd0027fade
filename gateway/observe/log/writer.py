"""The way out for log lines: a bounded buffer and one thread that writes it, so that no request ever waits for stdout.

Knows bytes and a stream, nothing of events. A slow or closed stream costs lines, never time: what does not fit is
dropped whole and counted. The thread sleeps while there is nothing to write, and gathers for `INTERVAL` when there is.
Lines are copied into pages that are used again: kept as they come, each would touch new memory, which costs more than
making the line.
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
PAGE = 64 * 1024
"""Bytes of one page of lines; a longer line gets a page of its own."""
SPARE = 16
"""Pages that are kept for the next lines."""
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


class _Page:
    __slots__ = ("lines", "used", "view")

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.used = self.lines = 0


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
        self._pages: list[_Page] = []
        self._spare: list[_Page] = []
        self._size = 0
        self._in_hand = 0
        self._closed = False
        self._something = threading.Event()
        self._hurry = threading.Event()
        self._empty = threading.Event()
        self._empty.set()
        self._thread = threading.Thread(target=self._run, name="gatepass-logs", daemon=True)
        self._thread.start()

    def write(self, text: bytes, lines: int = 1) -> None:
        """Queue lines, newlines included. Never blocks; drops and counts them when the buffer is full or closed."""
        with self._lock:
            if self._closed or self._size + len(text) > self._limit:
                fits = False
            else:
                fits = True
                first = not self._pages
                if first:
                    self._empty.clear()
                self._append(text, lines)
        if not fits:
            _drop(lines)
        elif first:
            self._something.set()

    def _append(self, text: bytes, lines: int) -> None:
        """Copy lines behind the others; called with the lock held."""
        size = len(text)
        page = self._pages[-1] if self._pages else None
        if page is None or page.used + size > len(page.view):
            page = self._spare.pop() if self._spare and size <= PAGE else _Page(max(PAGE, size))
            self._pages.append(page)
        page.view[page.used : page.used + size] = text
        page.used += size
        page.lines += lines
        self._size += size

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
                lost, self._pages = sum(page.lines for page in self._pages) + self._in_hand, []
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
            pages, self._pages = self._pages, []
            self._in_hand = sum(page.lines for page in pages)
        for page in pages:
            try:
                self._put(page.view[: page.used])
                lost = 0
            except (OSError, ValueError):  # closed by the other end, or by us: nobody is left to tell but the counter
                lost = page.lines
            self._done_with(page, lost)
        with self._lock:
            if not self._pages:
                self._empty.set()

    def _done_with(self, page: _Page, lost: int) -> None:
        with self._lock:
            lost = min(lost, self._in_hand)  # `close` may have given them up already
            self._in_hand = max(0, self._in_hand - page.lines)
            self._size -= page.used
            if len(page.view) == PAGE and len(self._spare) < SPARE:
                page.used = page.lines = 0
                self._spare.append(page)
        if lost:
            _drop(lost)

    def _put(self, view: memoryview) -> None:
        if self._fd is None:
            self._stream.write(bytes(view).decode("utf-8", "replace"))
            self._stream.flush()
            return
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
