"""The state file beside a shared store: an instance that restarts goes on with what it was granted, never with more."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.access.counters import Counter, MemoryCounters, Terms
from gateway.access.escrow import Escrow
from gateway.access.fieldsfile import FieldsFile
from gateway.access.statefile import FileCounters
from gateway.errors import StateError
from gateway.model import EscrowReply, Field
from gateway.observe import Metrics
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from pathlib import Path

KEY = ("web", "orders", "2026-11-22")
WALL = 1_795_348_800.0
"""Noon of that day."""
TERMS = Terms(1000, "day", WALL + 43_200, 0)


class Run:
    """One run of a process."""

    def __init__(self, path: Path, name: str) -> None:
        self.metrics = Metrics()
        self.file = FieldsFile(path, clock=FakeClock(wall=WALL), metrics=self.metrics)
        self.memory = MemoryCounters()
        self.field = self.file.start(name, self.memory)
        self.escrow = Escrow(Counter(KEY), TERMS)
        self.file.restore(self.escrow)

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.escrow.used, self.escrow.granted, self.escrow.stranded

    async def write(self) -> None:
        self.file.is_due = True
        await self.file.write_if_due({KEY: self.escrow})

    async def stop(self) -> None:
        await self.file.stop({KEY: self.escrow})

    def written(self, outcome: str) -> float:
        return sample(self.metrics, "gatepass_state_writes_total", {"outcome": outcome}) or 0.0

    def die(self) -> None:
        """End as after kill -9: the system closes the files."""
        assert self.file._lock is not None
        os.close(self.file._lock)


async def test_after_a_stop_the_next_run_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Run(tmp_path / "state.json", "first")
    first.escrow.counter.used, first.escrow.granted = 30, 62
    await first.stop()
    second = Run(tmp_path / "state.json", "second")
    assert (second.field, second.numbers, second.escrow.is_unsure) == ("first", (30, 62, 0), False)


async def test_after_a_crash_the_rest_of_the_grant_counts_as_spent(tmp_path: Path) -> None:
    """The last second's calls are not in the file, so nobody knows how many of them were made."""
    first = Run(tmp_path / "state.json", "first")
    first.escrow.counter.used, first.escrow.counter.reserved, first.escrow.granted = 30, 2, 62
    await first.write()
    first.die()
    second = Run(tmp_path / "state.json", "second")
    assert (second.field, second.numbers) == ("first", (32, 62, 30))
    assert not second.escrow.has_room
    question = second.escrow.request("first", WALL, second.escrow.wanted(4))
    assert (question.calls, question.want, question.mine) == (62, 0, Field(62, 32))
    second.escrow.learn(question, EscrowReply(90, 90, {"first": Field(90, 40)}, warned=False))
    assert second.numbers == (40, 90, 50), "the store knew of a later chunk, and of later calls"
    assert not second.escrow.has_room
    await second.stop()
    third = Run(tmp_path / "state.json", "third")
    assert third.numbers == (40, 90, 50)


async def test_two_processes_never_have_the_same_field(tmp_path: Path) -> None:
    """As during an in-place upgrade."""
    path = tmp_path / "state.json"
    old = Run(path, "old")
    old.escrow.counter.used, old.escrow.granted = 10, 20
    await old.write()
    new = Run(path, "new")
    assert (new.field, new.numbers) == ("new", (0, 0, 0))
    assert new.escrow.fields == {"old": Field(20, 10)}, "to be written back if the store loses it"
    new.escrow.counter.used += 5
    await old.stop()
    await new.stop()
    assert {each["field"] for each in json.loads(path.read_text())["fields"]} == {"old", "new"}
    assert {Run(path, "x").field, Run(path, "y").field, Run(path, "z").field} == {"old", "new", "z"}


async def test_counts_from_before_the_store_go_on(tmp_path: Path) -> None:
    path, clock = tmp_path / "state.json", FakeClock(wall=WALL)
    alone = FileCounters(path, clock=clock, metrics=Metrics())
    alone.start()
    alone.counter(KEY).used = 77
    alone.counter(("web", "orders", "calls 2026-11-22")).used = 80
    await alone.stop()
    it = Run(path, "first")
    assert it.numbers == (77, 77, 0)
    assert it.memory.counters["web", "orders", "calls 2026-11-22"].used == 80


async def test_counts_go_on_when_the_store_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    runs = [Run(path, "one"), Run(path, "two")]
    for it, used in zip(runs, (7, 5), strict=True):
        it.escrow.counter.used = used
        it.escrow.granted = 20
        await it.stop()
    alone = FileCounters(path, clock=FakeClock(wall=WALL), metrics=Metrics())
    alone.start()
    assert alone.counter(KEY).used == 7 + 5
    await alone.stop()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"format": 1, "counts": [], "fields": [{}]}',
        '{"format": 1, "counts": [], "fields": 3}',
        '{"format": 1, "counts": [], "fields": [{"field": "a", "stopped": true, "counts": [{"client": "a"}]}]}',
    ],
)
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(StateError, match=r"state\.json"):
        Run(path, "first")


def test_only_the_owner_reads_the_locks(tmp_path: Path) -> None:
    Run(tmp_path / "state.json", "first")
    for path in tmp_path.glob(".state.json*lock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_a_mistake_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be used"):
        Run(tmp_path / "missing" / "state.json", "first")


async def test_a_file_that_cannot_be_written_is_logged_once_and_written_as_soon_as_it_can_be(tmp_path: Path) -> None:
    folder, away = tmp_path / "state", tmp_path / "away"
    folder.mkdir()
    it = Run(folder / "state.json", "first")
    it.escrow.counter.used, it.escrow.granted = 4, 20
    folder.rename(away)
    with capture_logs() as logs:
        for failures in (1, 2):
            await it.write()
            assert (it.file.is_due, it.written("failed")) == (True, failures)
    assert [(each["event"], each["reason"]) for each in logs] == [("state_not_written", "no such file or directory")]
    away.rename(folder)
    await it.file.write_if_due({KEY: it.escrow})
    assert (it.file.is_due, it.written("ok")) == (False, 1)
    assert [each["calls"] for each in json.loads((folder / "state.json").read_text())["counts"]] == [4]
    await it.stop()


async def test_a_file_that_was_damaged_meanwhile_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "State.json"
    it = Run(path, "first")
    path.write_text("{")
    with capture_logs() as logs:
        await it.write()
    (reason,) = [each["reason"] for each in logs if each["event"] == "state_not_written"]
    assert (
        reason
        == f"the state file {path} is not JSON; repair it, or move it away while no gateway runs, to start at zero"
    )
    assert path.read_text() == "{"
