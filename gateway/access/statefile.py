"""Counts that survive a restart: in memory, and in a file that is written at most once a second, and at the end.

What is written is the difference that this process has made, added to what is in the file under a lock. So the counts
of a process that hands over to its successor, and those of the successor, are added. A call counts in the file from its
beginning, because its vendor may charge for it even if this process is killed.

While two processes serve the same port during an upgrade, calls are reserved in the file itself, so that together they
never exceed a budget. The event loop waits for that, so far from the limit several calls are leased at a time, and
after a failure the file is left alone for a second.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from gateway.access.budgets import period_of
from gateway.access.counters import Counter, CounterKey, Listener, MemoryCounters, RateState, Sharing, Terms
from gateway.access.countsfile import CountsFile, Row, Rows, merged
from gateway.errors import StateError
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.model import Clock
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")
INTERVAL: Final = 1.0
"""Seconds between two writes of the file, while counts change, unless another interval is given."""
FIRST: Final = 0.05
"""Seconds between a change and its write, if none was written within the interval."""
LOCK_AT_START: Final = 5.0
"""Most seconds for which the start waits for a lock that another process holds."""
LOCK: Final = 2.0
"""Most seconds for which a write waits for the lock; it is tried again after the interval, and given up at the end."""
LOCK_FOR_CALL: Final = 0.1
"""Most seconds for which a call waits for the lock, during an upgrade."""
MOST_LEASED: Final = 64
"""Calls that are leased at a time at most, during an upgrade."""
_LEASED_PART: Final = 16
"""A lease takes at most this part of what is left of a budget: the last calls are reserved one by one."""
_DAY: Final = 86_400.0


class FileCounters:
    """A `CounterStore` that survives a restart."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics, interval: float = INTERVAL) -> None:
        """Start without counts. `interval` is the time in seconds between two writes, while counts change."""
        self._interval = interval
        self._memory = MemoryCounters()
        self.sharing = Sharing(self._reserve)
        self._file = CountsFile(path)
        self._clock = clock
        self._metrics = metrics
        self._on_learned: Callable[[], object] = _nothing
        self._known: dict[CounterKey, int] = {}
        """The calls in the file as last read or written, our own included."""
        self._due = False
        self._written_at = clock.monotonic() - interval
        self._writing: asyncio.Task[None] | None = None
        self._failed = False
        self._stopped = True
        """Nothing is written before the file was read, or after the last write."""
        self._predecessor: int | None = None
        self._no_file_before = 0.0
        """Instant before which no call is reserved in the file, because that has just failed."""

    def follow(self, listener: Listener) -> None:
        """Tell `listener` when counts of other processes have been added."""
        self._on_learned = listener.counts_learned

    async def ready(self) -> None:
        """Return at once."""

    def start(self) -> None:
        """Read the file and write it back, so that a folder that cannot be written is an error now, not later."""
        try:
            self._learn(self._file.add({}, current=self._current(), wait=LOCK_AT_START), {})
        except OSError as error:
            raise StateError(f"the state file {self._file.path} cannot be used: {_words(error)}") from None
        self._stopped = False

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter, the same object every time."""
        return self._memory.counter(key)

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""
        return self._memory.all()

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""
        return self._memory.rate_state(client, route)

    def limit(self, counter: Counter, terms: Terms) -> None:
        """Set the limit of the counter."""
        self._memory.limit(counter, terms)

    def more(self, counter: Counter) -> bool:
        """Return False: nobody else has a part of the budget."""
        return self._memory.more(counter)

    def asked(self, counter: Counter) -> asyncio.Task[None] | None:
        """Return None: there is nobody to ask."""
        return self._memory.asked(counter)

    def is_away(self, counter: Counter) -> bool:
        """Return False: there is no shared store."""
        return self._memory.is_away(counter)

    async def gather(self, month: str) -> bool:
        """Return True: there are no other instances."""
        return await self._memory.gather(month)

    # -------------------------------------------------------------------------------------------------------- upgrades

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Reserve each call in the file from now on, because another process serves the same clients; or stop that.

        `predecessor` is the process whose end stops it, too.
        """
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        self._predecessor = predecessor
        self.sharing.on = on and not self._stopped
        self._end_leases()
        if self.sharing.on:
            self._write_now()
            self.changed()

    def _reserve(self, counter: Counter, hard: int) -> bool:
        """Reserve a call in the file, unless all processes together have used up `hard`. May block for a moment."""
        reserved, now = counter.reserved, self._clock.monotonic()
        if counter.leased:
            counter.leased -= 1
            counter.reserved = reserved + 1
            return True
        try:
            if now >= self._no_file_before:
                return self._reserve_in_file(counter, hard)
        except (OSError, StateError) as error:
            self._report(error)
            self._no_file_before = self._clock.monotonic() + INTERVAL
            counter.reserved, counter.leased = reserved, 0
        if counter.used + reserved >= hard:  # decide by what is known here
            return False
        counter.reserved = reserved + 1
        return True

    def _reserve_in_file(self, counter: Counter, hard: int) -> bool:
        with self._file.locked(LOCK_FOR_CALL, self._in_file()) as before:
            self._learn(before, {})
            left = hard - counter.used - counter.reserved
            if left <= 0:
                return False
            counter.reserved += 1
            counter.leased = min(MOST_LEASED, (left - 1) // _LEASED_PART)
            made = self._made()
            self._learn(self._file.write(merged(before, made), current=self._current(), flush=False), made)
        return True

    def _end_leases(self) -> None:
        """Give back what was leased and has not begun; the next write takes it out of the file."""
        for counter in self._memory.counters.values():
            counter.leased = 0

    # --------------------------------------------------------------------------------------------------------- writing

    def _learn(self, rows: Rows, made: Mapping[CounterKey, Row]) -> None:
        """Add what other processes have counted since; `made` is what we have just added."""
        others = False
        for key, row in rows.items():
            counter = self._memory.counters.get(key)
            if counter is None:
                counter = self._memory.counters[key] = Counter(key)
            mine = made[key].calls if key in made else 0
            added = row.calls - self._known.get(key, 0) - mine
            counter.used += added
            others = others or added != 0
            counter.warned = counter.warned or row.warned
            self._known[key] = row.calls
        for key in self._known.keys() - rows.keys():
            del self._known[key]
        if others:
            self._on_learned()

    def _made(self) -> Rows:
        """Return what has changed here since the file was last written."""
        return {
            key: Row(counter.used + counter.reserved + counter.leased - self._known.get(key, 0), counter.warned)
            for key, counter in self._memory.counters.items()
        }

    def _in_file(self) -> Rows:
        """Return what was in the file as last read or written."""
        counters = self._memory.counters
        return {key: Row(calls, key in counters and counters[key].warned) for key, calls in self._known.items()}

    def _current(self) -> set[str]:
        wall = self._clock.wall()
        return {period_of(per, at)[0] for per in ("day", "month") for at in (wall, wall - _DAY)}

    def changed(self) -> None:
        """Write within the interval; soon, if nothing was written for as long."""
        if not self._due and not self._stopped:
            self._due = True
            self._clock.call_later(max(FIRST, self._written_at + self._interval - self._clock.monotonic()), self._begin)

    def _begin(self) -> None:
        if self._stopped:
            return
        if self._writing is not None and not self._writing.done():  # a slow disk: again later
            self._clock.call_later(self._interval, self._begin)
            return
        self._due = False
        self._written_at = self._clock.monotonic()
        if self._predecessor is not None and os.getppid() != self._predecessor:
            self._predecessor, self.sharing.on = None, False
        self._end_leases()
        if not self.sharing.on:
            self._writing = asyncio.get_running_loop().create_task(self._write())
            return
        self._write_now()  # not in a thread: a call may be reserved at any time
        self.changed()

    def _write_now(self) -> None:
        made = self._made()
        try:
            with self._file.locked(LOCK_FOR_CALL, self._in_file()) as before:
                rows = self._file.write(merged(before, made), current=self._current(), flush=False)
        except (OSError, StateError) as error:
            self._report(error)
        else:
            self._learned(rows, made)

    async def _write(self) -> None:
        made, current = self._made(), self._current()
        try:
            rows = await asyncio.to_thread(self._file.add, made, current=current, wait=LOCK, known=self._in_file())
        except (OSError, StateError) as error:
            self._report(error)
            self.changed()
        else:
            self._learned(rows, made)

    def _learned(self, rows: Rows, made: Rows) -> None:
        self._learn(rows, made)
        self._metrics.state_written("ok")
        self._failed = False
        if self._file.missing:
            self._file.missing = False
            hint = "stop the gateway before you remove the file, to begin at zero"
            _log.warning("state_file_restored", file=str(self._file.path), hint=hint)

    def _report(self, error: OSError | StateError) -> None:
        self._metrics.state_written("failed")
        if not self._failed:
            reason = _words(error) if isinstance(error, OSError) else str(error)
            _log.error("state_not_written", file=str(self._file.path), reason=reason)
        self._failed = True

    async def stop(self) -> None:
        """Write a last time; give up if the file stays locked for `LOCK` seconds."""
        if self._stopped:
            return
        self._stopped = True
        self.sharing.on = False
        self._end_leases()
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        await self._write()


def _nothing() -> None:
    """Stand for a listener where there is none."""


def _words(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
