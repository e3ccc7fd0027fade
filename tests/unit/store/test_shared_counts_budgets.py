"""Budgets of several instances, with access control and a real store; time is the test's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.access import EscrowNeeded
from gateway.errors import RateLimited
from gateway.model import ClientBudget
from tests.kit.clock import FakeClock
from tests.kit.counting import Counting, client, counting

if TYPE_CHECKING:
    from tests.kit.valkey import Store

DAY = ClientBudget("orders", "day", hard=200)
SECOND_BEFORE_MIDNIGHT = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC).timestamp()


async def spend(instances: list[Counting], *, within: int = 1000) -> int:
    """Call every instance in turn until all refuse; return how many calls were made."""
    made = 0
    for _ in range(within):
        before = made
        for each in instances:
            made += await each.call()
        if made == before:
            return made
    pytest.fail("the budget has no end")


async def test_all_instances_together_spend_the_budget_and_not_a_call_more(server: Store) -> None:
    async with counting(server, 4, client(DAY)) as made:
        assert await spend(made) == 200
        assert [each.metric("gatepass_client_limited_total", limit="budget") > 0 for each in made] == [True] * 4


@pytest.mark.parametrize("hard", [1, 2, 3, 7, 16, 63])
async def test_a_small_budget_is_spent_to_the_last_call_on_any_instance(hard: int, server: Store) -> None:
    async with counting(server, 4, client(replace(DAY, hard=hard))) as made:
        assert await made[2].calls(100) == hard
        assert await spend(made) == 0


async def test_only_a_call_beyond_the_grant_waits_and_only_for_one_command(server: Store) -> None:
    async with counting(server, 1, client(replace(DAY, hard=100_000))) as (it,):
        asked = len(it.direct.sent)
        waited = 0
        for _ in range(3000):
            try:
                it.allowance.admit(0.0).release(200)
            except EscrowNeeded as needed:
                waited += 1
                await needed.wait()
            if _ % 10 == 0:  # other work of the loop
                await it.rest()
        assert waited == 0
        assert len(it.direct.sent) - asked < 20 * 3


async def test_many_calls_at_once_beyond_the_grant_share_one_request(server: Store) -> None:
    async with counting(server, 2, client(replace(DAY, hard=320))) as (one, two):
        await two.calls(20)
        await one.rest()
        asked = len(one.direct.sent)
        found = await asyncio.gather(*(one.call() for _ in range(60)))
        assert all(found)
        assert len(one.direct.sent) - asked <= 8


async def test_calls_of_a_spent_budget_are_refused_at_once_and_cause_at_most_one_request_a_second(
    server: Store,
) -> None:
    async with counting(server, 1, client(replace(DAY, hard=3))) as (it,):
        await it.calls(10)
        await it.rest()
        asked = len(it.direct.sent)
        for _ in range(50):
            with pytest.raises(RateLimited) as refusal:
                it.allowance.admit(0.0)
            await it.rest()
        assert refusal.value.fields[0] == ("RateLimit-Policy", '"budget-day";q=3;w=86400')
        assert refusal.value.retry_after == pytest.approx(12 * 3600)
        await it.rest()
        assert len(it.direct.sent) - asked <= 1


async def test_calls_that_the_vendor_does_not_bill_are_not_counted(server: Store) -> None:
    async with counting(server, 2, client(replace(DAY, hard=10))) as (one, two):
        for _ in range(40):
            assert await one.call(500)
        assert await one.calls(20) + await two.calls(20) == 10


async def test_the_metrics_show_the_whole_budget_on_every_instance(server: Store) -> None:
    async with counting(server, 3, client(DAY)) as made:
        for number, each in enumerate(made):
            await each.calls(5 + number)
        for each in made:
            await each.advance(3)
        for each in made:
            await each.advance(11)
        assert [each.used for each in made] == [18] * 3
        assert {each.metric("gatepass_client_budget_limit", per="day", level="hard") for each in made} == {200}
        granted = [each.metric("gatepass_store_budget_granted", per="day") for each in made]
        assert all(mine >= 5 + number for number, mine in enumerate(granted))
        assert sum(granted) <= 200


async def test_the_soft_limit_warns_once_by_the_sum(server: Store) -> None:
    with capture_logs() as logs:
        async with counting(server, 3, client(replace(DAY, soft=9))) as made:
            for each in made:
                await each.calls(3)
            for _ in range(2):
                for each in made:
                    await each.advance(11)
            await spend(made)
    warnings = [each for each in logs if each["event"] == "budget_soft_limit"]
    assert [(each["used"], each["soft"], each["hard"]) for each in warnings] == [(9, 9, 200)]


async def test_a_budget_with_a_soft_limit_only_is_never_refused(server: Store) -> None:
    async with counting(server, 2, client(ClientBudget("orders", "day", None, 3))) as (one, two):
        assert await one.calls(50) == 50
        two.direct.come_back(False)
        assert await two.calls(50) == 50


async def test_a_call_with_two_budgets_exceeds_neither(server: Store) -> None:
    budgets = (ClientBudget("orders", "month", hard=12), ClientBudget("orders", "day", hard=9))
    async with counting(server, 2, client(*budgets)) as made:
        assert await spend(made) == 9
        for each in made:
            each.clock.wall_offset += 86_400
        assert await spend(made) == 3


async def test_a_reload_that_changes_the_limit_keeps_the_count(server: Store) -> None:
    async with counting(server, 2, client(replace(DAY, hard=10))) as made:
        assert await spend(made) == 10
        for each in made:
            each.use(replace(each.config, clients=(client(replace(DAY, hard=15)),)))
        assert await spend(made) == 5
        for each in made:
            each.use(replace(each.config, clients=(client(replace(DAY, hard=4)),)))
        assert await spend(made) == 0


# ------------------------------------------------------------------------------------------------------------- midnight


async def test_at_midnight_a_new_period_begins_with_its_first_calls_granted_already(server: Store) -> None:
    clocks = [FakeClock(wall=SECOND_BEFORE_MIDNIGHT - 60) for _ in range(2)]
    async with counting(server, 2, client(replace(DAY, hard=640)), clocks=clocks) as (one, two):
        await spend([one, two])
        for each in (one, two):
            await each.advance(58)
            each.direct.come_back(False)
            await each.advance(3)
        assert await one.calls(100) == 640 // 64, "the store is away, but the first chunk was fetched before midnight"
        for each in (one, two):
            each.direct.come_back(True)
            await each.advance(1)
        assert await spend([one, two]) == 640 - 10


async def test_instances_with_different_clocks_count_in_the_period_of_their_own_midnight(server: Store) -> None:
    fast, slow = FakeClock(wall=SECOND_BEFORE_MIDNIGHT), FakeClock(wall=SECOND_BEFORE_MIDNIGHT - 30)
    async with counting(server, 2, client(replace(DAY, hard=50)), clocks=[fast, slow]) as (one, two):
        assert await one.calls(5) == 5
        await one.advance(2)
        assert await one.calls(100) == 50, "today, for the fast one"
        assert 45 - 3 <= await two.calls(100) <= 45, "still yesterday, for the slow one; a chunk of 3 is stranded"
        await two.advance(31)
        assert await two.calls(100) == 0
        assert one.used == 50


async def test_a_call_over_midnight_counts_in_the_day_in_which_it_began(server: Store) -> None:
    async with counting(server, 1, client(replace(DAY, hard=20)), clocks=[FakeClock(wall=SECOND_BEFORE_MIDNIGHT)]) as (
        it,
    ):
        late = await it.begin()
        await it.advance(3)
        assert await it.calls(100) == 20
        late.release(200)
        assert it.used == 20


# -------------------------------------------------------------------------------------------------------------- outages


async def test_in_an_outage_granted_calls_are_admitted_and_others_refused_with_a_short_retry_after(
    server: Store,
) -> None:
    async with counting(server, 2, client(replace(DAY, hard=1600))) as (one, two):
        await one.calls(100)
        for each in (one, two):
            await each.advance(1)
            each.direct.come_back(False)
        first, second = await one.calls(2000), await two.calls(2000)
        assert 0 < first <= 100
        assert 0 < second <= 100
        with pytest.raises(RateLimited, match="does not answer") as refusal:
            one.allowance.admit(0.0)
        assert refusal.value.retry_after == 5.0
        for each in (one, two):
            await each.advance(2)
            assert each.metric("gatepass_store_away_calls_total") == {one: first, two: second}[each]
            each.direct.come_back(True)
            await each.advance(3)
        assert 100 + first + second + await spend([one, two]) == 1600


async def test_with_outage_open_all_instances_together_make_outage_allowance_calls_more_which_count(
    server: Store,
) -> None:
    budget = ClientBudget("orders", "day", hard=100, outage_allowance=7)
    async with counting(server, 3, client(budget)) as made:
        assert await spend(made) == 100
        for each in made:
            await each.advance(2)
            each.direct.come_back(False)
        assert [await each.calls(50) for each in made] == [3, 2, 2]
        for each in made:
            each.direct.come_back(True)
            await each.advance(3)
        for each in made:
            await each.advance(11)
            assert (await each.calls(5), each.used) == (0, 107)


async def test_a_store_that_fails_once_is_asked_again_within_a_second(server: Store) -> None:
    async with counting(server, 1, client(replace(DAY, hard=10))) as (it,):
        await server.command("CONFIG", "SET", "maxmemory", "1")
        await it.calls(50)
        with pytest.raises(RateLimited, match="does not answer"):
            await it.begin()
        await server.command("CONFIG", "SET", "maxmemory", "0")
        await it.advance(1)
        assert it.used + await it.calls(50) == 10


async def test_after_a_flush_at_most_a_chunk_of_each_instance_is_too_much_until_all_have_written_back(
    server: Store,
) -> None:
    async with counting(server, 4, client(replace(DAY, hard=320))) as made:
        for each in made:
            assert await each.calls(60) == 60
        await server.command("FLUSHALL")
        for each in made:  # each sends one request, and learns that the others write back
            for heard in each.direct.listeners:
                heard()
            await each.advance(1)
        more = await spend(made)
        assert 240 + more <= 320 + 4 * 20
        assert more >= 60


async def test_an_instance_that_is_gone_leaves_the_rest_to_the_others(server: Store) -> None:
    async with counting(server, 3, client(replace(DAY, hard=160))) as made:
        gone = made.pop()
        await gone.calls(20)
        await gone.die()
        total = 20 + await spend(made)
        assert 150 <= total <= 160


async def test_a_client_without_budgets_causes_no_request(server: Store) -> None:
    async with counting(server, 1, client()) as (it,):
        await it.advance(20)
        assert it.direct.sent == []
