"""Counts that survive: a small file, written rarely and whole, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pathlib
import random
import stat
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.access import Access, countsfile, hash_key, statefile
from gateway.access.budgets import Budget
from gateway.access.counters import MemoryCounters
from gateway.access.countsfile import CountsFile
from gateway.access.statefile import INTERVAL, FileCounters
from gateway.errors import RateLimited, StateError
from gateway.model import Client, ClientBudget
from gateway.observe import Metrics
from tests.kit.clients import ORDERS, config_of
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    whole = CountsFile.add

    def add(self: CountsFile, made: Any, **more: Any) -> Any:
        writes.append(made)
        return whole(self, made, **more)

    monkeypatch.setattr(CountsFile, "add", add)
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


async def test_old_periods_are_dropped_and_the_current_ones_never(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    for day in range(1, 23):
        it.counter(("web", "orders", f"2026-11-{day:02}")).used = 1
    it.counter(("web", "orders", "2026-11")).used = 22
    await it.stop()
    kept = {period for _, _, period in in_file(path)}
    assert kept == {"2026-11", *(f"2026-11-{day}" for day in range(15, 23))}


@pytest.mark.parametrize("years", [1, 40], ids=["a year", "40 years"])
async def test_a_clock_that_ran_ahead_and_was_put_right_costs_no_count_of_today(tmp_path: Path, years: int) -> None:
    """For some days, with a restart before, in and after them."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    spec = ClientBudget("orders", "day", None, 10)

    async def call(times: int) -> int:
        it = counters(path, clock)
        budget = Budget("web", spec, store=it, wall=clock.wall, metrics=Metrics().client("web", "orders"))
        for _ in range(times):
            counter = budget.reserve()
            assert counter is not None
            budget.settle(counter, made=True)
        used = budget.current().used
        await it.stop()
        return used

    assert await call(4) == 4
    clock.wall_offset += years * 365.25 * 86_400
    for _ in range(7):
        assert await call(1) == 1
        clock.wall_offset += 86_400
    clock.wall_offset -= years * 365.25 * 86_400 + 7 * 86_400
    assert await call(2) == 6
    for _ in range(3):
        clock.wall_offset += 86_400
        assert await call(1) == 1
        assert await call(1) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 1, "counts": [', "is not JSON"),
        ("[]", "does not have the format"),
        ('{"format": 2, "counts": []}', "does not have the format"),
        ('{"format": 1, "counts": [{"client": "web"}]}', "does not have the format"),
        (
            '{"format": 1, "counts": [{"client": "a", "route": "b", "period": "c", "calls": "7", "warned": false}]}',
            "does not have the format",
        ),
        (
            '{"format": 1, "counts": [{"client": "a", "route": "b", "period": "c", "calls": -1, "warned": false}]}',
            "does not have the format",
        ),
    ],
    ids=["cut", "a list", "another format", "a key is missing", "text for a number", "negative"],
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
    monkeypatch.setattr(countsfile, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(StateError, match="is too large to be one"):
        counters(path)


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_is_no_state_file(name: str, tmp_path: Path) -> None:
    """Reading it would wait for a writer, for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(StateError, match="is no regular file"):
        counters(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()


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
    """Another process dropped it, because eight later periods have begun."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    it.counter(("web", "orders", "2026-11-14")).used = 3
    await it._write()
    other = counters(path, clock)
    for day in range(15, 23):
        other.counter(("web", "orders", f"2026-11-{day}")).used = 1
    await other.stop()
    await it._write()
    it.counter(KEY).used += 1
    await it.stop()
    assert in_file(path) == {("web", "orders", f"2026-11-{day}"): 1 for day in range(15, 22)} | {KEY: 2}


def test_a_counter_of_an_old_period_is_kept_while_a_call_is_reserved_in_it() -> None:
    memory = MemoryCounters()
    running = memory.counter(("web", "orders", "2026-11-10"))
    running.reserved = 1
    for day in range(11, 20):
        memory.counter(("web", "orders", f"2026-11-{day}"))
    assert {period for _, _, period in memory.counters} == {"2026-11-10", *(f"2026-11-{day}" for day in range(12, 20))}
    assert memory.counter(("web", "orders", "2026-11-10")) is running


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


def slow_disk(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], threading.Event]:
    """Let each write wait for the event; return the list of writes that have begun, and the event."""
    whole, go_on, began = CountsFile.add, threading.Event(), list[int]()

    def slow(self: CountsFile, made: Any, **more: Any) -> Any:
        began.append(1)
        go_on.wait(60)
        return whole(self, made, **more)

    monkeypatch.setattr(CountsFile, "add", slow)
    return began, go_on


async def test_a_slow_disk_gets_one_write_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "state.json", FakeClock()
    it = counters(path, clock)
    began, go_on = slow_disk(monkeypatch)
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


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    counters(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        CountsFile(path).put({"format": 1, "counts": [], "more": "CANARY"})
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"state.json", ".state.json.lock"}


@pytest.mark.parametrize("name", [None, "state.json"], ids=["in memory", "in a file"])
async def test_one_process_knows_its_whole_usage_without_asking_anybody(tmp_path: Path, name: str | None) -> None:
    config = config_of(state_file=tmp_path / name if name else None)
    access = Access(config, clock=FakeClock(wall=WALL), metrics=Metrics())
    access.start(config)
    assert await access.usage.gather("2026-11") is True
    await access.stop()


# -------------------------------------------------------------------------------------------- several processes at once


def budget_of(it: FileCounters, clock: FakeClock, hard: int = 3, metrics: Metrics | None = None) -> Budget:
    spec = ClientBudget("orders", "day", hard=hard)
    return Budget("web", spec, store=it, wall=clock.wall, metrics=(metrics or Metrics()).client("web", "orders"))


async def test_an_upgrade_grants_a_budget_once(tmp_path: Path) -> None:
    """Three calls under way in the predecessor are all of it, whatever the successor has read before."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    old = counters(path, clock)
    before = budget_of(old, clock)
    under_way = [before.reserve() for _ in range(3)]
    assert None not in under_way
    await old.share(True)
    new = counters(path, clock)
    await new.share(True)
    after = budget_of(new, clock)
    assert after.reserve() is None
    assert before.reserve() is None
    counter = under_way[0]
    assert counter is not None
    before.settle(counter, made=False)
    await clock.advance(INTERVAL)
    assert after.reserve() is not None
    assert after.reserve() is None
    await old.stop()
    assert after.reserve() is None, "the two that were made count for good"
    await new.stop()


async def test_access_control_of_two_processes_that_overlap_grants_a_budget_once(tmp_path: Path) -> None:
    clock, key = FakeClock(wall=WALL), "gp_CANARY-overlap"
    client = Client("web", (hash_key(key),), budgets=(ClientBudget("orders", "day", hard=3),))
    config = config_of(client, state_file=tmp_path / "state.json")
    both = [Access(config, clock=clock, metrics=Metrics()) for _ in range(2)]
    admitted = 0
    for access in both:
        access.start(config)
        await access.share(True)
    for access in both * 4:
        try:
            access.clients(config).identify(key.encode(), None, ORDERS).admit(0.0)
        except RateLimited:
            continue
        admitted += 1
    assert admitted == 3
    for access in both:
        await access.stop()


async def test_sharing_begins_after_the_write_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both would add the same calls to the file."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    began, go_on = slow_disk(monkeypatch)
    it.counter(KEY).used = 5
    it.changed()
    await clock.advance(INTERVAL)
    await clock.until(lambda: began)
    sharing = asyncio.create_task(it.share(True))
    await clock.settle()
    assert not sharing.done()
    go_on.set()
    await sharing
    assert it.sharing.on
    assert in_file(path) == {KEY: 5}
    await it.stop()
    assert in_file(path) == {KEY: 5}


async def test_a_file_that_cannot_be_written_when_sharing_begins_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock, metrics = tmp_path / "state.json", FakeClock(wall=WALL), Metrics()
    it = counters(path, clock, metrics)
    it.counter(KEY).used = 5

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(CountsFile, "write", fail)
        await it.share(True)
    assert [(each["event"], each["reason"]) for each in logs] == [("state_not_written", "no space left on device")]
    assert sample(metrics, "gatepass_state_writes_total", {"outcome": "failed"}) == 1
    assert it.sharing.on
    assert in_file(path) == {}
    await clock.advance(INTERVAL)
    assert in_file(path) == {KEY: 5}
    await it.stop()


async def test_two_processes_that_overlap_take_turns_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    stores = [counters(path, clock) for _ in range(2)]
    for store in stores:
        await store.share(True)
    budgets = [budget_of(store, clock, hard=10) for store in stores]
    granted = [budget for _ in range(8) for budget in budgets if budget.reserve() is not None]
    assert len(granted) == 10
    assert granted.count(budgets[0]) == granted.count(budgets[1]) == 5
    for store in stores:
        await store.stop()


async def test_far_from_the_limit_calls_wait_for_the_file_only_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was leased and not used is in the file no longer than a second, and not at all after the upgrade."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    budget = budget_of(it, clock, hard=100_000)
    await it.share(True)
    writes, write = [], CountsFile.write

    def count(*args: Any, **kwargs: Any) -> Any:
        writes.append(1)
        return write(*args, **kwargs)

    monkeypatch.setattr(CountsFile, "write", count)
    made = [budget.reserve() for _ in range(650)]
    assert None not in made
    assert len(writes) == 10
    assert list(in_file(path).values()) == [650]
    budget.reserve()
    assert list(in_file(path).values()) == [715]
    await clock.advance(INTERVAL)
    assert list(in_file(path).values()) == [651]
    await it.share(False)
    await it.stop()
    assert list(in_file(path).values()) == [651]


@pytest.mark.parametrize("seed", range(5))
async def test_two_processes_with_leases_never_exceed_the_limit_together_and_reach_it(
    tmp_path: Path, seed: int
) -> None:
    path, clock, dice = tmp_path / "state.json", FakeClock(wall=WALL), random.Random(seed)
    stores = [counters(path, clock) for _ in range(2)]
    for store in stores:
        await store.share(True)
    budgets = [budget_of(store, clock, hard=1000) for store in stores]
    granted = 0
    for _ in range(4):
        for _ in range(500):
            granted += dice.choices(budgets, (1, dice.choice((0, 1, 10))))[0].reserve() is not None
        assert granted <= 1000
        await clock.advance(INTERVAL)
    assert granted == 1000
    for store in stores:
        await store.stop()
    assert list(in_file(path).values()) == [1000]


async def test_a_lock_that_somebody_holds_during_an_upgrade_delays_one_call_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    budget = budget_of(it, clock, hard=10)
    await it.share(True)
    with CountsFile(path).locked(1):
        began = time.monotonic()
        granted = [budget.reserve() is not None for _ in range(20)]
        assert time.monotonic() - began < 2 * statefile.LOCK_FOR_CALL
    assert granted.count(True) == 10
    await it.stop()


async def test_a_call_that_is_refused_while_sharing_loses_no_count(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    budget = budget_of(it, clock, hard=2)
    first = budget.reserve()
    assert first is not None
    await it.share(True)
    second = budget.reserve()
    assert second is not None
    budget.settle(first, made=True)
    budget.settle(second, made=True)
    assert budget.reserve() is None
    await it.stop()
    assert list(in_file(path).values()) == [2]


async def test_a_file_that_fails_while_sharing_leaves_the_decision_to_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    budget = budget_of(it, clock, hard=2)
    await it.share(True)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CountsFile, "write", fail)
    assert [budget.reserve() is not None for _ in range(3)] == [True, True, False]
    assert budget.current().reserved == 2
    monkeypatch.undo()
    await it.stop()


async def test_when_the_successor_did_not_come_up_calls_are_counted_in_memory_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    await it.share(True)
    await it.share(False)
    path.unlink()
    assert budget_of(it, clock).reserve() is not None
    assert not path.exists()
    await it.stop()


async def test_a_file_that_is_deleted_while_the_gateway_runs_comes_back_with_all_counts(tmp_path: Path) -> None:
    """Otherwise a program that tidies the folder would grant each budget once more."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    counter = it.counter(KEY)
    counter.used, counter.warned = 5, True
    await it._write()
    path.unlink()
    counter.used += 3
    with capture_logs() as logs:
        await it._write()
        await it._write()
    assert in_file(path) == {KEY: 8}
    assert json.loads(path.read_text())["counts"][0]["warned"] is True
    assert counter.used == 8
    assert [each["event"] for each in logs] == ["state_file_restored"]
    path.write_text("")
    counter.used += 1
    await it.stop()
    assert in_file(path) == {KEY: 1}, "an emptied file begins at zero"


@pytest.mark.parametrize("seed", range(8))
async def test_two_processes_whose_file_is_deleted_count_no_call_twice(tmp_path: Path, seed: int) -> None:
    """Each restores what it knows, so calls of the other that it has not read yet may be lost."""
    path, clock, chance = tmp_path / "state.json", FakeClock(wall=WALL), random.Random(seed)
    stores = [counters(path, clock) for _ in range(2)]
    sharing = bool(seed % 2)
    budgets = [budget_of(store, clock, hard=1000) for store in stores]
    for store in stores:
        await store.share(sharing)
    made = 0
    for _ in range(60):
        which = chance.randrange(2)
        counter = budgets[which].reserve()
        assert counter is not None
        counter.reserved, counter.used = counter.reserved - 1, counter.used + 1
        made += 1
        if chance.random() < 0.3:
            stores[chance.randrange(2)]._write_now()
        if chance.random() < 0.2:
            path.unlink(missing_ok=True)
    for store in stores:
        await store.stop()
    assert sum(in_file(path).values()) <= made


async def test_sharing_ends_with_the_predecessor(tmp_path: Path) -> None:
    clock = FakeClock(wall=WALL)
    it = counters(tmp_path / "state.json", clock)
    await it.share(True, predecessor=1)  # which is not our parent
    await clock.advance(2 * INTERVAL)
    assert not it.sharing.on
    await it.stop()


class Showing:
    """Shows a budget whenever counts of others are learned."""

    def __init__(self, budget: Budget) -> None:
        self.counts_learned = budget.show
        self.prepare_budgets = budget.prepare

    def use_part(self, rank: int, members: int) -> None:
        """Not called without a shared store."""


async def test_what_another_process_counted_is_shown(tmp_path: Path) -> None:
    path, clock, metrics = tmp_path / "state.json", FakeClock(wall=WALL), Metrics()
    old = counters(path, clock)
    new = FileCounters(path, clock=clock, metrics=metrics)
    new.start()
    new.follow(Showing(budget_of(new, clock, metrics=metrics)))
    await new.share(True)
    counter = budget_of(old, clock).reserve()
    assert counter is not None
    counter.used, counter.reserved = 2, 0
    await old.stop()
    await clock.advance(2 * INTERVAL)
    assert sample(metrics, "gatepass_client_budget_used", {"client": "web", "route": "orders", "per": "day"}) == 2
    await new.stop()


async def test_a_call_under_way_is_in_the_file_before_it_ends(tmp_path: Path) -> None:
    """The process may be killed at any moment, and the vendor may charge for the call."""
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    it = counters(path, clock)
    assert budget_of(it, clock).reserve() is not None
    await clock.advance(0.1)
    await clock.until(lambda: list(in_file(path).values()) == [1])
    assert budget_of(counters(path, clock), clock, hard=1).reserve() is None


# ------------------------------------------------------------------------------------------------------- the lock


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A state file whose lock somebody else holds."""
    path = tmp_path / "state.json"
    with (tmp_path / ".state.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def test_a_lock_that_somebody_holds_ends_the_start_with_its_reason(
    locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "LOCK_AT_START", 0.1)
    began = time.monotonic()
    with pytest.raises(StateError, match=r"state\.json is locked by another process"):
        counters(locked)
    assert time.monotonic() - began < 5


async def test_a_lock_that_somebody_holds_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "LOCK", 0.1)
    it = counters(tmp_path / "state.json")
    it.counter(KEY).used = 1
    with (tmp_path / ".state.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with asyncio.timeout(5):
            await it.stop()
    assert in_file(tmp_path / "state.json") == {}


async def test_a_lock_that_somebody_holds_for_a_while_delays_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "LOCK", 0.05)
    path, clock, metrics = tmp_path / "state.json", FakeClock(), Metrics()
    it = counters(path, clock, metrics)
    it.counter(KEY).used = 1
    with (tmp_path / ".state.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        it.changed()
        await clock.advance(INTERVAL)
        await clock.until(lambda: sample(metrics, "gatepass_state_writes_total", {"outcome": "failed"}))
    await clock.advance(2 * INTERVAL)
    await clock.until(lambda: in_file(path) == {KEY: 1})
    await it.stop()


@pytest.mark.parametrize("before", [None, 0o644, 0o666], ids=["new", "readable", "writable"])
def test_nobody_else_can_open_the_lock(tmp_path: Path, before: int | None) -> None:
    lock = tmp_path / ".state.json.lock"
    if before is not None:
        lock.touch()
        lock.chmod(before)
    counters(tmp_path / "state.json")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".state.json.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="cannot be used"):
        counters(tmp_path / "state.json")
    assert not (tmp_path / "elsewhere").exists()


# --------------------------------------------------------------------------------------------- where the file is


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def rewritten(path: Path) -> None:
    it = counters(path)
    it.counter(KEY).used = 3
    await it.stop()
    assert in_file(path) == {KEY: 3}


async def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "counts.json", tmp_path / "state.json"
    real.parent.mkdir()
    link.symlink_to(real)
    await rewritten(link)
    assert link.is_symlink()
    assert in_file(real) == {KEY: 3}
    assert not (tmp_path / ".state.json.lock").exists()


async def test_a_file_keeps_its_mode_and_group(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.touch()
    path.chmod(0o640)
    group = next((each for each in os.getgroups() if each != path.stat().st_gid), path.stat().st_gid)
    if os.geteuid() == 0:
        group = 4242
    os.chown(path, -1, group)
    await rewritten(path)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o640, group)


async def test_a_new_file_is_private(tmp_path: Path) -> None:
    await rewritten(tmp_path / "state.json")
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", " \n"], ids=["empty", "blank"])
async def test_an_empty_file_begins_at_zero(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    await rewritten(tmp_path / "state.json")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES])
async def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A mount point is EBUSY; the inode stays, and a shorter text leaves nothing of a longer one."""
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"format": 1, "counts": []}) + " " * 5000)
    inode = path.stat().st_ino

    def refuse(_: object, __: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(pathlib.Path, "replace", refuse)
    await rewritten(path)
    assert path.stat().st_ino == inode
    assert names_in(tmp_path) == {"state.json", ".state.json.lock"}


async def test_in_a_folder_that_takes_no_further_file_the_state_file_is_its_own_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    path.touch()
    inode, really = path.stat().st_ino, os.open

    def no_new_files(name: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(name, flags, *more, **named)

    monkeypatch.setattr(os, "open", no_new_files)
    await rewritten(path)
    assert (names_in(tmp_path), path.stat().st_ino) == ({"state.json"}, inode)
    with CountsFile(path).locked(1), pytest.raises(StateError, match="is locked by another process"):
        CountsFile(path).add({}, current=(), wait=0)
    path.unlink()
    with pytest.raises(StateError, match="cannot be used: permission denied"):
        counters(path)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting wants root on Linux")
async def test_a_file_that_is_a_mount_point_is_written(tmp_path: Path) -> None:
    path, real = tmp_path / "state.json", tmp_path / "host.json"
    path.touch()
    real.touch()
    bound = await asyncio.create_subprocess_exec(
        "mount", "--bind", str(real), str(path), stderr=asyncio.subprocess.PIPE
    )
    if await bound.wait():
        pytest.skip("mounting is not allowed here")
    try:
        await rewritten(path)
        assert in_file(real) == {KEY: 3}
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(path))).wait()
