"""The state file of an instance with a shared store: what it was granted and has counted, for after a restart.

The file has an entry for each process that has used it: its field in the store, and its counts. A process that starts
takes the first entry that no running process uses. A process that uses an entry holds a lock beside the file
(`.NAME.FIELD.lock`), which the system releases even after kill -9. After a crash, calls may have been made that the
file does not have, so everything that the entry was granted counts as spent. During an upgrade the successor takes
another entry.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.access.budgets import period_of
from gateway.access.countsfile import FORMAT, CountsFile, Row, Rows, listed, recent
from gateway.errors import StateError
from gateway.model import Field
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.access.counters import CounterKey, MemoryCounters
    from gateway.access.escrow import Escrow
    from gateway.access.shared_usage import SharedUsage
    from gateway.model import Clock
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")
LOCK_AT_START: Final = 5.0
"""Most seconds for which the start waits for the lock of the file."""
LOCK: Final = 2.0
"""Most seconds for which a later write waits for it."""
MOST_ENTRIES: Final = 8
"""Entries that the file keeps."""
_PRIVATE: Final = 0o600
_DAY: Final = 86_400.0


@dataclass
class Entry:
    """One process's part of the file."""

    name: str
    rows: Rows = field(default_factory=dict)
    granted: dict[CounterKey, tuple[int, int]] = field(default_factory=dict)
    """Calls granted, and how many of these a crash has stranded."""
    stopped: bool = False
    """Whether the process ended in order, so that its counts are exact."""


class FieldsFile:
    """The state file of one instance."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics) -> None:
        self.is_due = False
        """Whether counts have changed since the last write."""
        self.usage: SharedUsage | None = None
        """Knows the usage that was not sent to the store yet."""
        self._file = CountsFile(path)
        self._clock = clock
        self._metrics = metrics
        self._own = Entry("")
        self._others: list[Entry] = []
        self._lock: int | None = None
        self._failed = False

    def start(self, name: str, memory: MemoryCounters) -> str:
        """Take a free entry, or make one called `name`; add usage that was not sent to the store to `memory`.

        Returns the entry's name. Raises StateError if the file cannot be read or written.
        """
        try:
            with self._file.opened(LOCK_AT_START) as document:
                entries = self._entries(document)
                self._own = next((each for each in entries if self._take(each.name)), Entry(name, stopped=True))
                if self._lock is None:
                    self._take(name)
                if not entries:
                    self._own.rows = self._file.rows_of(document)  # from before the store was configured
                self._others = [each for each in entries if each is not self._own]
                self._put([Entry(self._own.name, self._own.rows, self._own.granted), *self._others])
        except OSError as error:
            words = (error.strerror or type(error).__name__).lower()
            raise StateError(f"the state file {self._file.path} cannot be used: {words}") from None
        for key, row in self._own.rows.items():
            if " " in key[2]:
                memory.counter(key).used += row.calls
        return self._own.name

    def restore(self, escrow: Escrow) -> None:
        """Set a budget's numbers from this process's entry, and the other instances' fields from the other entries."""
        key = escrow.counter.key
        row = self._own.rows.get(key)
        if row is not None:
            escrow.counter.used += row.calls
            escrow.counter.warned = escrow.counter.warned or row.warned
            granted, escrow.stranded = self._own.granted.get(key, (0, 0))
            escrow.granted = max(row.calls, granted)
            if not self._own.stopped:
                escrow.stranded = escrow.granted - row.calls
                escrow.is_unsure = True
        for other in self._others:
            if key in other.rows:
                calls = other.rows[key].calls
                escrow.fields[other.name] = Field(max(calls, other.granted.get(key, (0, 0))[0]), calls)
        used = sum(each.used for each in escrow.fields.values())
        escrow.counter.used += used - escrow.others_used
        escrow.others_used = used

    async def write_if_due(self, escrows: Mapping[CounterKey, Escrow]) -> None:
        """Write if counts have changed. A failure is logged once, and the write is tried again."""
        if self.is_due:
            self.is_due = False
            await self._write(self._snapshot(escrows, stopped=False))

    async def stop(self, escrows: Mapping[CounterKey, Escrow]) -> None:
        """Write a last time, and release the entry for the next process."""
        await self._write(self._snapshot(escrows, stopped=True))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------------------------------------------------ writing

    def _snapshot(self, escrows: Mapping[CounterKey, Escrow], *, stopped: bool) -> Entry:
        rows = {key: row for key, row in self._own.rows.items() if " " not in key[2]}
        granted = dict(self._own.granted)
        for key, escrow in escrows.items():
            if escrow.calls or escrow.granted:
                rows[key] = Row(escrow.calls - escrow.stranded, escrow.counter.warned)
                granted[key] = escrow.granted, escrow.stranded
        untold = self.usage.untold() if self.usage is not None else {}
        rows.update({key: Row(calls, warned=False) for key, calls in untold.items()})
        wall = self._clock.wall()
        current = {period_of(per, at)[0] for per in ("day", "month") for at in (wall, wall - _DAY)}
        kept = recent(rows, current)
        return Entry(self._own.name, kept, {key: granted[key] for key in kept if key in granted}, stopped)

    async def _write(self, entry: Entry) -> None:
        try:
            await asyncio.to_thread(self._replace, entry)
        except (OSError, StateError) as error:
            self._metrics.state_written("failed")
            if not self._failed:
                reason = (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)
                _log.error("state_not_written", file=str(self._file.path), reason=reason)
            self._failed = self.is_due = True
        else:
            self._metrics.state_written("ok")
            self._failed = False

    def _replace(self, entry: Entry) -> None:
        with self._file.opened(LOCK) as document:
            self._put([entry, *(each for each in self._entries(document) if each.name != entry.name)])

    def _put(self, entries: list[Entry]) -> None:
        total: Rows = {}
        for entry in entries:
            for key, row in entry.rows.items():
                before = total.get(key, Row(0, warned=False))
                total[key] = Row(before.calls + row.calls, before.warned or row.warned)
        fields = [
            {
                "field": entry.name,
                "stopped": entry.stopped,
                "counts": [_with_grant(row, entry) for row in listed(entry.rows)],
            }
            for entry in entries[:MOST_ENTRIES]
        ]
        self._file.put({"format": FORMAT, "counts": listed(total), "fields": fields})

    # ------------------------------------------------------------------------------------------------------- reading

    def _entries(self, document: Any) -> list[Entry]:
        """Return the entries of a document. Raises StateError."""
        entries = []
        try:
            for each in document.get("fields", []):
                rows = self._file.rows_of({"format": FORMAT, "counts": each["counts"]})
                granted = {
                    (row["client"], row["route"], row["period"]): (int(row["granted"]), int(row["stranded"]))
                    for row in each["counts"]
                    if "granted" in row
                }
                entries.append(Entry(str(each["field"]), rows, granted, each["stopped"] is True))
        except (AttributeError, KeyError, TypeError, ValueError):
            message = f"the state file {self._file.path} is damaged; repair it, or move it away to start at zero"
            raise StateError(message) from None
        return entries

    def _take(self, name: str) -> bool:
        """Take the lock of an entry, and keep it until `stop`; return False if a running process has it."""
        real = self._file.path.resolve()
        with suppress(OSError):
            descriptor = os.open(
                real.with_name(f".{real.name}.{name}.lock"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                _PRIVATE,
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
            else:
                self._lock = descriptor
                return True
        return False


def _with_grant(row: dict[str, Any], entry: Entry) -> dict[str, Any]:
    found = entry.granted.get((row["client"], row["route"], row["period"]))
    return row if found is None else {**row, "granted": found[0], "stranded": found[1]}
