"""Counts in a small JSON file: written whole and atomically, at most once a second, and when the gateway stops.

A process that is killed loses what it settled in its last second or so. A call that was under way then counts as made:
its vendor may have charged for it. One gateway per file; several share counts through a store of their own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.access.counters import Counter, MemoryCounters
from gateway.errors import StateError
from gateway.observe import get_logger

if TYPE_CHECKING:
    from gateway.model import Clock
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")
FORMAT = 1
INTERVAL = 1.0
"""Seconds between a change and its writing, and so between two writings."""
MOST_BYTES = 16 * 1024 * 1024


class FileCounters(MemoryCounters):
    """Counts that survive a restart."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics) -> None:
        super().__init__()
        self._path = path
        self._clock = clock
        self._metrics = metrics
        self._due = False
        self._writing: asyncio.Task[None] | None = None
        self._failed = False
        self._stopped = False

    def start(self) -> None:
        """Read the file, and write it back: a folder that takes no file is a mistake now, not after a day's counts."""
        for counter in self._read():
            self._counters[counter.key] = counter
        try:
            _write(self._path, self._text())
        except OSError as error:
            raise StateError(f"the state file {self._path} cannot be written: {_words(error)}") from None

    def _read(self) -> list[Counter]:
        try:
            if self._path.stat().st_size > MOST_BYTES:
                raise StateError(f"the state file {self._path} is too large to be one")
            document = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"the state file {self._path} cannot be read: {_words(error)}") from None
        except orjson.JSONDecodeError:
            raise StateError(f"the state file {self._path} is not JSON; {_WAY_OUT}") from None
        try:
            return _counters(document)
        except (KeyError, TypeError, ValueError):
            raise StateError(f"the state file {self._path} is not one of this version; {_WAY_OUT}") from None

    def _text(self) -> bytes:
        rows = [
            {
                "client": counter.key[0],
                "route": counter.key[1],
                "period": counter.key[2],
                "used": counter.used + counter.reserved,
                "warned": counter.warned,
            }
            for counter in self._counters.values()
        ]
        return orjson.dumps({"format": FORMAT, "counts": rows}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def changed(self) -> None:
        """Write within `INTERVAL`."""
        if not self._due and not self._stopped:
            self._due = True
            self._clock.call_later(INTERVAL, self._begin)

    def _begin(self) -> None:
        if self._stopped:
            return
        if self._writing is not None and not self._writing.done():  # a slow disk: again after it
            self._clock.call_later(INTERVAL, self._begin)
            return
        self._due = False
        self._writing = asyncio.get_running_loop().create_task(self._write(self._text()))

    async def _write(self, text: bytes) -> None:
        try:
            await asyncio.to_thread(_write, self._path, text)
        except OSError as error:
            self._metrics.state_written("failed")
            if not self._failed:
                _log.error("state_not_written", file=str(self._path), reason=_words(error))
            self._failed = True
            self.changed()
        else:
            self._metrics.state_written("ok")
            self._failed = False

    async def stop(self) -> None:
        """Write a last time."""
        if self._stopped:
            return
        self._stopped = True
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        await self._write(self._text())


_WAY_OUT = "mend it, or move it away to begin at zero"


def _counters(document: Any) -> list[Counter]:
    if document["format"] != FORMAT:
        raise ValueError
    found = []
    for row in document["counts"]:
        key, used = (row["client"], row["route"], row["period"]), row["used"]
        if not all(isinstance(part, str) for part in key) or type(used) is not int or used < 0:
            raise ValueError
        found.append(Counter(key, used, warned=row["warned"] is True))
    return found


def _write(path: Path, text: bytes) -> None:
    """Write to a neighbour, flush it to the disk, and put it in the place of the file (POSIX rename is atomic)."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _words(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
