"""Detects changed files. Stamps are read on threads, so that a hanging file system does not stop the event loop.

A file that does not answer keeps its last stamp, and is not read again until the pending read has ended. That does not
affect other files.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Stamp = tuple[int, ...]
PATIENCE = 1.0
"""Seconds that one reading of all stamps may take."""


def stamp(path: Path) -> Stamp:
    """Return device, inode, size and times of change of content and inode (ns); empty for a missing file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def changed_at(mark: Stamp) -> int:
    """Return when a file was last changed or replaced, in nanoseconds since the epoch."""
    return max(mark[3:], default=0)


class _Reading:
    """One reading, on a thread that is left behind if a file does not answer."""

    def __init__(self, paths: Iterable[Path], read: Callable[[Path], Stamp], threads: Threads) -> None:
        self.stamps: dict[Path, Stamp] = {}
        self.at: Path | None = None
        """The file that is being read; None after the last one."""
        self._paths = list(paths)
        self._read = read
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        threads.run(self._run)

    def _run(self) -> None:
        for path in self._paths:
            self.at = path
            self.stamps[path] = self._read(path)
        self.at = None
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            return  # the event loop has closed since

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Stamps:
    """The latest stamps of files."""

    def __init__(self, read: Callable[[Path], Stamp] = stamp) -> None:
        self._read = read
        self._known: dict[Path, Stamp] = {}
        self._threads = Threads("gatepass-stamps")
        self._hanging: list[_Reading] = []

    async def of(self, paths: Iterable[Path]) -> dict[Path, Stamp]:
        """Return the stamps of files; for a file that does not answer within a second, its last known stamp."""
        wanted = list(dict.fromkeys(paths))
        self._hanging = [each for each in self._hanging if each.at is not None]
        silent = {each.at for each in self._hanging}
        reading = _Reading((path for path in wanted if path not in silent), self._read, self._threads)
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(reading.done)
        except TimeoutError:
            self._hanging.append(reading)
        self._known = {path: self._known.get(path, ()) for path in wanted} | dict(reading.stamps)
        return {path: self._known[path] for path in wanted}
