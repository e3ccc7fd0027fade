"""Counts that survive: a small file, written rarely and whole, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.access import statefile
from gateway.access.budgets import Budget
from gateway.access.counters import MemoryCounters
from gateway.access.statefile import INTERVAL, FileCounters
from gateway.errors import StateError
from gateway.model import ClientBudget
from gateway.observe import Metrics
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from pathlib import Path

KEY = ("web", "orders", "2026-11-22")
WALL = 1_795_348_800.0
"""Noon of that day."""


def counters(path: Path, clock: FakeClock | None = None, metrics: Metrics | None = None) -> FileCounters:
    it = FileCounters(path, clock=clock or FakeClock(), metrics=metrics or Metrics())
    it.start()
    return it


def in_file(path: Path) -> dict[tuple[str, str, str], int]:
    rows = json.loads(path.read_text())["counts"]
    return {(row["client"], row["route"], row["period"]): row["calls"] for row in rows}


async def test_counts_are_there_again_after_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = counters(path)
    counter = first.counter(KEY)
    counter.used, counter.warned = 7, True
    await first.stop()
    again = counters(path).counter(KEY)
    assert (again.used, again.reserved, again.warned) == (7, 0, True)


async def test_a_change_is_written_within_a_second_and_many_changes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "state.json", FakeClock()
    it = counters(path, clock)
    writes: list[object] = []
    whole = statefile._add

    def add(*args: Any) -> None:
        writes.append(args)
        whole(*args)

    monkeypatch.setattr(statefile, "_add", add)
    for _ in range(1000):
        it.counter(KEY).used += 1
        it.changed()
    assert not writes
    await clock.advance(INTERVAL)
    await clock.until(lambda: path.exists() and in_file(path) == {KEY: 1000})
    assert len(writes) == 1
    await clock.advance(10 * INTERVAL)
    assert len(writes) == 1


async def test_a_process_that_is_killed_loses_its_last_second_and_counts_what_was_under_way(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock()
    it = counters(path, clock)
    counter = it.counter(KEY)
    counter.used, counter.reserved = 5, 2
    it.changed()
    await clock.advance(INTERVAL)
    await clock.until(lambda: in_file(path))
    counter.used += 1  # never written: the process is gone now
    assert counters(path).counter(KEY).used == 7


async def test_a_call_that_was_written_while_it_ran_and_was_not_made_is_taken_back_within_a_second(
    tmp_path: Path,
) -> None:
    """Else a process that is killed later, without another change, would have counted it for good."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    spec = ClientBudget("orders", "day", None, 10)
    budget = Budget("web", spec, store=it, wall=clock.wall, metrics=Metrics().client("web", "orders"))
    counter = budget.reserve()
    assert counter is not None
    assert budget.reserve() is counter
    budget.settle(counter, made=True)
    await clock.advance(INTERVAL)
    await clock.until(lambda: list(in_file(path).values()) == [2])
    assert it._writing is not None
    await clock.until(it._writing.done)  # else the next writing waits for it, by a clock that stands still
    budget.settle(counter, made=False)
    await clock.advance(INTERVAL)
    await clock.until(lambda: list(in_file(path).values()) == [1])
    await it.stop()


async def test_a_predecessor_and_its_successor_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """They overlap for as long as the predecessor drains."""
    path = tmp_path / "state.json"
    old = counters(path)
    old.counter(KEY).used = 3
    old.counter(KEY).reserved = 1
    await old._write()
    new = counters(path)
    new.counter(KEY).used += 10
    old.counter(KEY).reserved = 0
    old.counter(KEY).used += 2
    await old.stop()
    await new._write()
    assert in_file(path) == {KEY: 15}
    assert new.counter(KEY).used == 15
    await new.stop()


async def test_only_the_last_two_periods_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    it = counters(path)
    for period in ("2026-11-20", "2026-11-21", "2026-11-22", "2026-10", "2026-11"):
        it.counter(("web", "orders", period)).used = 1
    await it.stop()
    assert {period for _, _, period in in_file(path)} == {"2026-11-21", "2026-11-22", "2026-10", "2026-11"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ('{"format": 1, "counts": [', "is not JSON"),
        ("[]", "is none of this version"),
        ('{"format": 2, "counts": []}', "is none of this version"),
        ('{"format": 1, "counts": [{"client": "web"}]}', "is none of this version"),
        (
            '{"format": 1, "counts": [{"client": "a", "route": "b", "period": "c", "calls": "7", "warned": false}]}',
            "is none of this version",
        ),
        (
            '{"format": 1, "counts": [{"client": "a", "route": "b", "period": "c", "calls": -1, "warned": false}]}',
            "is none of this version",
        ),
    ],
    ids=["empty", "cut", "a list", "another format", "a key is missing", "text for a number", "negative"],
)
def test_a_file_that_cannot_be_read_stops_the_start_and_is_named_and_left_alone(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(StateError, match=said) as refusal:
        counters(path)
    assert str(path) in str(refusal.value)
    assert path.read_text() == content


def test_a_file_that_is_too_large_for_counts_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    counters(path)
    monkeypatch.setattr(statefile, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(StateError, match="is too large to be one"):
        counters(path)


def test_a_folder_that_is_not_there_is_a_mistake_at_once(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot be used: no such file or directory"):
        counters(tmp_path / "nowhere" / "state.json")


async def test_a_start_that_failed_is_followed_by_no_writing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{")
    it = FileCounters(path, clock=FakeClock(), metrics=Metrics())
    with pytest.raises(StateError):
        it.start()
    it.changed()
    await it.stop()
    assert path.read_text() == "{"


async def test_a_period_that_left_the_file_does_not_come_back(tmp_path: Path) -> None:
    """Another process dropped it, because two later periods have begun."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    it.counter(("web", "orders", "2026-11-20")).used = 3
    await it._write()
    other = counters(path, clock)
    for period in ("2026-11-21", "2026-11-22"):
        other.counter(("web", "orders", period)).used = 1
    await other.stop()
    await it._write()
    it.counter(KEY).used += 1
    await it.stop()
    assert in_file(path) == {("web", "orders", "2026-11-21"): 1, KEY: 2}


def test_a_counter_of_an_old_period_is_kept_while_a_call_is_reserved_in_it() -> None:
    memory = MemoryCounters()
    running = memory.counter(("web", "orders", "2026-11-20"))
    running.reserved = 1
    for period in ("2026-11-21", "2026-11-22", "2026-11-23"):
        memory.counter(("web", "orders", period))
    assert {period for _, _, period in memory.counters} == {"2026-11-20", "2026-11-22", "2026-11-23"}
    assert memory.counter(("web", "orders", "2026-11-20")) is running


async def test_a_write_that_was_planned_before_the_stop_does_not_happen_after_it(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock()
    it = counters(path, clock)
    it.counter(KEY).used = 1
    it.changed()
    await it.stop()
    path.unlink()
    await clock.advance(2 * INTERVAL)
    assert it._writing is None
    assert not path.exists()


async def test_a_slow_disk_gets_one_write_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "state.json", FakeClock()
    it = counters(path, clock)
    whole, go_on, began = statefile._add, threading.Event(), list[int]()

    def slow(*args: Any) -> Any:
        began.append(1)
        go_on.wait(60)
        return whole(*args)

    monkeypatch.setattr(statefile, "_add", slow)
    it.counter(KEY).used = 1
    it.changed()
    await clock.advance(INTERVAL)
    await clock.until(lambda: began)
    it.counter(KEY).used = 2
    it.changed()
    await clock.advance(3 * INTERVAL)
    assert len(began) == 1
    go_on.set()
    assert it._writing is not None
    await clock.until(it._writing.done)
    await clock.advance(INTERVAL)
    await clock.until(lambda: in_file(path) == {KEY: 2})
    await it.stop()


async def test_a_disk_that_fails_is_counted_and_tried_again(tmp_path: Path) -> None:
    folder, clock, metrics = tmp_path / "state", FakeClock(), Metrics()
    folder.mkdir()
    path = folder / "state.json"
    it = counters(path, clock, metrics)
    value = partial(sample, metrics)
    folder.rename(tmp_path / "away")
    it.counter(KEY).used = 4
    it.changed()
    with capture_logs() as logs:
        for failures in (1, 2):
            await clock.advance(INTERVAL)
            await clock.until(lambda: value("gatepass_state_writes_total", {"outcome": "failed"}) == failures)  # noqa: B023 - it ends before the next turn
    assert [event["event"] for event in logs] == ["state_not_written"], "an outage is one event"
    (tmp_path / "away").rename(folder)
    await clock.advance(2 * INTERVAL)
    await clock.until(lambda: in_file(path) == {KEY: 4})
    await asyncio.sleep(0)
    await it.stop()


def test_a_write_that_breaks_off_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    counters(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        statefile._replace(path, b"half")
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"state.json", ".state.json.lock"}
