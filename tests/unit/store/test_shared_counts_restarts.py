"""Counts of an instance that restarts beside a real store, and of one whose clock was wrong; time is the test's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.access.counters import PERIODS_KEPT
from gateway.model import ClientBudget
from tests.kit.clock import FakeClock
from tests.kit.counting import WALL, Counting, client, counting

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.valkey import Store

DAY = ClientBudget("orders", "day", hard=160)
A_DAY = 86_400.0


async def test_an_instance_with_a_state_file_continues_with_its_field_and_what_was_granted_to_it(
    server: Store, tmp_path: Path
) -> None:
    path, known = tmp_path / "state.json", client(DAY)
    async with counting(server, 1, known, file=path) as (first,):
        assert await first.calls(25) == 25
        await first.stop()
        (before,) = first.counters._escrows.values()
        second = Counting(server, first.direct._namespace, known, file=path)
        await second.start()
        (after,) = second.counters._escrows.values()
        assert second.counters._field == first.direct.instance
        assert (second.used, after.stranded) == (25, 0)
        assert after.granted >= before.granted
        second.direct.come_back(False)
        assert await second.calls(200) == after.granted - 25
        second.direct.come_back(True)
        await second.advance(3)
        assert second.used + await second.calls(200) == 160
        await second.stop()


async def test_grants_and_calls_are_in_the_state_file_within_a_second(server: Store, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with counting(server, 1, client(DAY), file=path) as (it,):
        for up, calls in ((True, 0), (False, 2)):
            it.direct.come_back(up)
            assert await it.calls(calls) == calls
            await it.advance(1)
            (entry,) = json.loads(path.read_text())["fields"]
            (row,) = [each for each in entry["counts"] if each["period"] == "2026-11-22"]
            assert (row["calls"], row["granted"]) == (calls, 2)


async def test_a_store_that_rejects_commands_at_the_stop_leaves_usage_in_the_state_file(
    server: Store, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    async with counting(server, 1, client(), file=path) as (it,):
        await it.calls(3)
        await server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            await it.stop()
        finally:
            await server.command("CONFIG", "SET", "maxmemory", "0")
    (entry,) = json.loads(path.read_text())["fields"]
    assert entry["stopped"] is True
    assert {each["period"]: each["calls"] for each in entry["counts"]} == {
        "calls 2026-11-22": 3,
        "billed 2026-11-22": 3,
    }


async def test_usage_that_the_store_did_not_get_is_in_the_state_file_and_sent_by_the_next_run(
    server: Store, tmp_path: Path
) -> None:
    path, known = tmp_path / "state.json", client()
    async with counting(server, 1, known) as (reader,):
        first = Counting(server, reader.direct._namespace, known, file=path)
        await first.start()
        await first.calls(3)
        await first.advance(3)
        first.direct.come_back(False)
        await first.calls(4)
        await first.stop()
        second = Counting(server, reader.direct._namespace, known, file=path)
        await second.start()
        await second.advance(3)
        await reader.access.usage.gather("2026-11")
        assert [(each.calls, each.billed) for each in reader.access.usage.days("2026-11")] == [(7, 7)]
        await second.stop()


async def test_a_message_of_the_store_before_the_start_or_after_the_stop_plans_nothing(server: Store) -> None:
    it = Counting(server, "messages", client(DAY))
    it.direct.come_back()
    assert it.clock.next_timer is None
    assert it.direct.sent == []
    await it.start()
    assert await it.calls(5) == 5
    await it.stop()
    sent = len(it.direct.sent)
    it.counters._ask_everything()  # as by a message that was already under way
    await it.clock.advance(5)
    assert len(it.direct.sent) == sent


# --------------------------------------------------------------------------------------------------------- old periods


async def test_periods_that_are_over_are_forgotten(server: Store) -> None:
    async with counting(server, 1, client(DAY)) as (it,):
        for _ in range(PERIODS_KEPT + 4):
            assert await it.calls(2) == 2
            it.clock.wall_offset += A_DAY
        assert await it.calls(2) == 2
        assert len(it.counters._escrows) == PERIODS_KEPT


async def test_a_clock_that_was_a_year_ahead_for_a_week_lets_nobody_exceed_the_budget_of_today(server: Store) -> None:
    """The next day is prepared half a minute before midnight; it is the ninth period, so the memory drops today."""
    clock, minute = FakeClock(wall=WALL + 43_200 - 60), 60.0
    async with counting(server, 1, client(ClientBudget("orders", "day", hard=20)), clocks=[clock]) as (it,):
        assert await it.calls(2) == 2
        right = clock.wall_offset
        for number in range(PERIODS_KEPT - 1):
            clock.wall_offset = right + (365 + number) * A_DAY
            assert await it.calls(2) == 2
        clock.wall_offset = right
        assert await it.calls(100) == 18
        await it.advance(minute - 20)
        for _ in range(2):
            assert await it.calls(100) == 0
            it.use(it.config)  # a reload finds the same counts
            await it.advance(3)
        assert it.used == 20
        await it.advance(20)
        assert await it.calls(100) == 20, "tomorrow has begun"
