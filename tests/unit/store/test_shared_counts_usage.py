"""Usage of several instances: each shows the sum, even after the store has lost it, and says if it may lack calls."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from gateway.access.counters import DAYS_KEPT, MemoryCounters
from gateway.access.shared_usage import SharedUsage
from gateway.access.usage import BILLED, CALLS
from tests.kit.clock import FakeClock
from tests.kit.counting import WALL, Counting, client, counting

if TYPE_CHECKING:
    from tests.kit.valkey import Store


async def billed(it: Counting, month: str = "2026-11") -> list[tuple[str, int, int]]:
    await it.access.usage.gather(month)
    return [(each.day, each.calls, each.billed) for each in it.access.usage.days(month)]


async def counted(made: list[Counting]) -> None:
    """Wait until all instances have sent their counts to the store."""
    for each in made:
        await each.advance(4)


async def test_every_instance_shows_the_calls_of_all(server: Store) -> None:
    async with counting(server, 3, client()) as made:
        for number, each in enumerate(made):
            await each.calls(2 + number)
            await each.call(500)
        await counted(made)
        assert [await billed(each) for each in made] == [[("2026-11-22", 12, 9)]] * 3
        assert await billed(made[0], "2026-10") == []


async def test_calls_of_an_instance_that_has_ended_stay(server: Store) -> None:
    async with counting(server, 2, client()) as (one, two):
        await one.calls(5)
        await one.access.stop()
        assert await billed(two) == [("2026-11-22", 5, 5)]


async def test_usage_that_the_store_has_lost_is_sent_again(server: Store) -> None:
    async with counting(server, 2, client()) as made:
        for each in made:
            await each.calls(4)
        await counted(made)
        await server.command("FLUSHALL")
        for each in made:
            for heard in each.direct.listeners:
                heard()
        await counted(made)
        assert [await billed(each) for each in made] == [[("2026-11-22", 8, 8)]] * 2


async def test_while_the_store_is_away_an_instance_shows_what_it_knows_and_says_so(server: Store) -> None:
    async with counting(server, 2, client()) as (one, two):
        for each in (one, two):
            await each.calls(3)
        await counted([one, two])
        await billed(one)
        one.direct.come_back(False)
        await one.advance(2)
        await one.calls(2)
        await one.advance(2)
        assert not await one.access.usage.gather("2026-11")
        assert await billed(one) == [("2026-11-22", 8, 8)]
        one.direct.come_back(True)
        await counted([one])
        await asyncio.sleep(0)
        assert await billed(two) == [("2026-11-22", 8, 8)]


async def test_an_instance_whose_clock_is_a_day_ahead_is_counted_too(server: Store) -> None:
    clocks = [FakeClock(wall=WALL), FakeClock(wall=WALL + 86_400)]
    async with counting(server, 2, client(), clocks=clocks) as made:
        for each in made:
            await each.calls(1)
        await counted(made)
        assert await billed(made[0]) == [("2026-11-22", 1, 1), ("2026-11-23", 1, 1)]


async def test_usage_that_a_store_without_memory_rejects_is_sent_again(server: Store) -> None:
    async with counting(server, 2, client()) as (one, two):
        await server.command("CONFIG", "SET", "maxmemory", "1")
        await one.calls(3)
        await one.advance(3)
        assert await billed(two) == []
        await server.command("CONFIG", "SET", "maxmemory", "0")
        await counted([one, two])
        assert await billed(two) == [("2026-11-22", 3, 3)]


async def test_the_others_are_asked_for_their_usage_at_most_once_a_second(server: Store) -> None:
    async with counting(server, 2, client()) as (one, two):
        await one.calls(3)
        await one.advance(3)
        assert await billed(two) == [("2026-11-22", 3, 3)]
        await one.calls(2)
        await one.advance(3)
        asked = len(two.direct.sent)
        assert await billed(two) == [("2026-11-22", 3, 3)]
        assert len(two.direct.sent) == asked
        await two.advance(1)
        assert await billed(two) == [("2026-11-22", 5, 5)]


async def test_days_that_are_forgotten_are_not_remembered_as_sent(server: Store) -> None:
    async with counting(server, 1, client()) as (it,):
        memory, first = MemoryCounters(), datetime(2026, 9, 1, tzinfo=UTC).date()
        usage = SharedUsage(it.tally, memory, it.clock)
        for number in range(DAYS_KEPT + 5):
            day = (first + timedelta(days=number)).isoformat()
            for kind in (CALLS, BILLED):
                memory.counter(("web", "orders", kind + day)).used = number + 1
            await usage.report()
        assert len(usage._told) == 2 * DAYS_KEPT
        assert usage._told.keys() == memory.counters.keys()
        assert usage.untold() == {}


async def test_the_store_keeps_the_usage_of_a_day_for_64_days(server: Store) -> None:
    async with counting(server, 1, client()) as made:
        await made[0].calls(1)
        await counted(made)
        names = await server.command("KEYS", "*:u")
        assert names
        assert all([63.9 < int(await server.command("TTL", name)) / 86400 <= 64 for name in names])
