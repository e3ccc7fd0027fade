"""Writes log lines from a bounded buffer on one thread, so that no request ever waits for standard output.

Knows bytes and a stream, nothing of events. If the stream is slow or closed, lines that do not fit are dropped whole
and counted. The thread sleeps while the buffer is empty, and collects lines for `INTERVAL` before it writes. Lines are
copied into reused pages, because new memory for each line would cost more than rendering the line.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
from typing import IO, Any

INTERVAL = 0.05
"""Seconds from the first line of a batch until it is written."""
BUFFER_BYTES = 8 * 1024 * 1024
"""Bytes of the buffer; beyond it, new lines are dropped."""
PAGE = 64 * 1024
"""Bytes of one page; a longer line gets its own page."""
SPARE = 16
"""Empty pages that are kept for reuse."""
CLOSE_TIMEOUT = 1.0
"""Seconds that `close` waits for a stream that blocks."""

_NEWLINE = ord("\n")
_dropped = 0  # of the process, not of a writer: a counter must not go back when logging is reconfigured
_dropped_lock = threading.Lock()


def dropped_events() -> int:
    """Return how many lines this process has dropped."""
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
    """Accepts whole lines from any thread and writes them in order on its own thread.

    A stream with a file descriptor is written with `os.write`, because a thread that hangs inside a buffered stream
    would keep the interpreter from exiting. Any other stream gets text.
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
        self._writing = 0
        self._unfinished = memoryview(b"")
        """The rest of a line whose beginning was written before the disk was full."""
        self._closed = False
        self._has_lines = threading.Event()
        self._flush_now = threading.Event()
        self._empty = threading.Event()
        self._empty.set()
        self._thread = threading.Thread(target=self._run, name="gatepass-logs", daemon=True)
        self._thread.start()

    def write(self, text: bytes, lines: int = 1) -> None:
        """Buffer lines, which include their newlines. Never blocks; drops and counts lines that do not fit."""
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
            self._has_lines.set()

    def _append(self, text: bytes, lines: int) -> None:
        """Copy lines to the end of the buffer. Called with the lock held."""
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
        """Write everything now; wait at most `timeout` seconds. Return whether all was written."""
        self._flush_now.set()
        written = self._empty.wait(timeout)
        self._flush_now.clear()
        return written

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write the rest for at most `timeout` seconds; drop and count what remains then."""
        with self._lock:
            self._closed = True
        self._flush_now.set()
        self._has_lines.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._lock:
                lost, self._pages = sum(page.lines for page in self._pages) + self._writing, []
                self._writing = 0
            _drop(lost)

    def _run(self) -> None:
        while not self._closed:
            self._has_lines.wait()
            self._flush_now.wait(self._interval)
            self._has_lines.clear()
            self._put_all()
        self._put_all()

    def _put_all(self) -> None:
        with self._lock:
            pages, self._pages = self._pages, []
            self._writing = sum(page.lines for page in pages)
        for page in pages:
            self._done_with(page, self._write_page(page))
        with self._lock:
            if not self._pages:
                self._empty.set()

    def _write_page(self, page: _Page) -> int:
        """Write a page; return how many of its lines were lost, because the stream is closed or its disk is full."""
        left = page.view[: page.used]
        try:
            self._unfinished = self._put(self._unfinished)
            left = self._put(left) if not self._unfinished else left
        except ValueError:
            return page.lines
        written = page.used - len(left)
        if not left or not written:
            return page.lines if left else 0
        if page.view[written - 1] == _NEWLINE:
            return bytes(left).count(b"\n")
        # Half a line is in the file: keep the rest, so that the next write completes the line.
        line, _, rest = bytes(left).partition(b"\n")
        self._unfinished = memoryview(line + b"\n")
        return rest.count(b"\n")

    def _done_with(self, page: _Page, lost: int) -> None:
        with self._lock:
            lost = min(lost, self._writing)  # `close` may have counted them already
            self._writing = max(0, self._writing - page.lines)
            self._size -= page.used
            if len(page.view) == PAGE and len(self._spare) < SPARE:
                page.used = page.lines = 0
                self._spare.append(page)
        if lost:
            _drop(lost)

    def _put(self, view: memoryview) -> memoryview:
        """Write bytes; return those that could not be written. Raises ValueError for a closed stream of text."""
        if self._fd is None:
            if view:
                self._stream.write(bytes(view).decode("utf-8", "replace"))
                self._stream.flush()
            return view[:0]
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError:
                break
        return view


def _descriptor(stream: IO[Any]) -> int | None:
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        stream.flush()
        return stream.fileno()
    return None
