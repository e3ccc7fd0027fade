"""Counts in a small JSON file: written whole and atomically, at most once a second, and when the gateway stops.

What is written is the difference that this process has made, added to what stands in the file under a lock: so a
process that hands over to its successor and that successor lose nothing of each other. A process that is killed loses
what it settled in its last second or so; a call that was under way then counts as made, because its vendor may have
charged for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from gateway.access.counters import Counter, CounterKey, MemoryCounters, RateState
from gateway.errors import StateError
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.model import Clock
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")
FORMAT = 1
INTERVAL = 1.0
"""Seconds between a change and its writing, and so between two writings."""
MOST_BYTES = 16 * 1024 * 1024
PERIODS_KEPT = 2
_WAY_OUT = "mend it, or move it away to begin at zero"


class Row(NamedTuple):
    """One count as it stands in the file: calls made and under way, of all processes."""

    calls: int
    warned: bool


Rows = dict[CounterKey, Row]


class FileCounters:
    """Counts that survive a restart."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics) -> None:
        self._memory = MemoryCounters()
        self._path = path
        self._clock = clock
        self._metrics = metrics
        self._known: dict[CounterKey, int] = {}
        """What the file said last, our own part included."""
        self._due = False
        self._writing: asyncio.Task[None] | None = None
        self._failed = False
        self._stopped = True
        """Nothing is written before the file was read, or after the last time."""

    def start(self) -> None:
        """Read the file, and write it back: a folder that takes no file is a mistake now, not after a day's counts."""
        try:
            self._learn(_add(self._path, {}), {})
        except OSError as error:
            raise StateError(f"the state file {self._path} cannot be used: {_words(error)}") from None
        self._stopped = False

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter; forget the same budget's periods before the last one."""
        return self._memory.counter(key)

    def rate_state(self, client: str, route: str) -> RateState:
        """Return how a client stands on a route."""
        return self._memory.rate_state(client, route)

    def _learn(self, rows: Rows, made: Mapping[CounterKey, Row]) -> None:
        """Take over what others have added since; `made` is what we have just added."""
        for key, row in rows.items():
            counter = self._memory.counters.get(key)
            if counter is None:
                counter = self._memory.counters[key] = Counter(key)
            mine = made[key].calls if key in made else 0
            counter.used += row.calls - self._known.get(key, 0) - mine
            counter.warned = counter.warned or row.warned
            self._known[key] = row.calls
        for key in self._known.keys() - rows.keys():
            del self._known[key]

    def _made(self) -> Rows:
        """Return what has changed here since the file was last written."""
        return {
            key: Row(counter.used + counter.reserved - self._known.get(key, 0), counter.warned)
            for key, counter in self._memory.counters.items()
        }

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
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        made = self._made()
        try:
            self._learn(await asyncio.to_thread(_add, self._path, made), made)
        except (OSError, StateError) as error:
            self._metrics.state_written("failed")
            if not self._failed:
                reason = _words(error) if isinstance(error, OSError) else str(error)
                _log.error("state_not_written", file=str(self._path), reason=reason)
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
        await self._write()


# ------------------------------------------------------------------------------------------------------------ the file


def _add(path: Path, made: Mapping[CounterKey, Row]) -> Rows:
    """Add to the file and return what then stands in it. Raises OSError, and StateError for a file that is none."""
    with _locked(path):
        rows = _read(path)
        for key, row in made.items():
            before = rows.get(key, Row(0, warned=False))
            rows[key] = Row(max(0, before.calls + row.calls), before.warned or row.warned)
        rows = _recent(rows)
        _replace(path, _text(rows))
    return rows


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Rows:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StateError(f"the state file {path} is too large to be one; {_WAY_OUT}")
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except orjson.JSONDecodeError:
        raise StateError(f"the state file {path} is not JSON; {_WAY_OUT}") from None
    try:
        return _rows(document)
    except (KeyError, TypeError, ValueError):
        raise StateError(f"the state file {path} is none of this version; {_WAY_OUT}") from None


def _rows(document: Any) -> Rows:
    if document["format"] != FORMAT:
        raise ValueError
    found = {}
    for row in document["counts"]:
        key, calls = (row["client"], row["route"], row["period"]), row["calls"]
        if not all(isinstance(part, str) for part in key) or type(calls) is not int or calls < 0:
            raise ValueError
        found[key] = Row(calls, warned=row["warned"] is True)
    return found


def _recent(rows: Rows) -> Rows:
    """Return the rows without the periods that nobody counts in any more."""
    periods: dict[tuple[str, str, int], list[str]] = {}
    for client, route, period in sorted(rows):
        periods.setdefault((client, route, len(period)), []).append(period)
    kept = {(*key[:2], period) for key, found in periods.items() for period in found[-PERIODS_KEPT:]}
    return {key: row for key, row in rows.items() if key in kept}


def _text(rows: Rows) -> bytes:
    counts = [
        {"client": key[0], "route": key[1], "period": key[2], "calls": row.calls, "warned": row.warned}
        for key, row in sorted(rows.items())
    ]
    return orjson.dumps({"format": FORMAT, "counts": counts}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _replace(path: Path, text: bytes) -> None:
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
