"""Counts while `store.keys` are replaced, one instance after the other, by a reload or by a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.model import ClientBudget
from tests.kit.counting import Counting, client, counting

if TYPE_CHECKING:
    from tests.kit.valkey import Store

KNOWN = client(ClientBudget("orders", "day", hard=160))
BEFORE, BOTH, AFTER = ["old"], ["new", "old"], ["new"]
NOTICED = 11
"""Seconds after which an instance without calls has asked the store again."""
A_DAY = 86_400.0
WAYS = ("reload", "restart")


async def changed(it: Counting, keys: list[str], how: str, server: Store) -> Counting:
    """Give an instance other keys; return the instance that goes on."""
    if how == "restart":
        await it.stop()
        it = Counting(server, it.direct._namespace, KNOWN, clock=it.clock)
        it.direct.rank, it.direct.members = 0, 3
    it.direct.keys = keys
    if how == "restart":
        await it.start()
    else:
        for heard in list(it.direct.listeners):
            heard()
    await it.advance(2)
    return it


async def all_asked(made: list[Counting]) -> None:
    for _ in range(2):  # the second time for what others have written meanwhile
        for each in made:
            await each.advance(NOTICED)


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
async def test_a_budget_is_counted_on_while_keys_are_replaced(first: str, second: str, server: Store) -> None:
    """`first` and `second` are the ways in which the two steps are made."""
    async with counting(server, 3, KNOWN) as made:
        for each in made:
            each.direct.keys = BEFORE
        await all_asked(made)
        calls = sum([await each.calls(10) for each in made])
        for keys, how in ((BOTH, first), (AFTER, second)):
            for place in range(3):
                made[place] = await changed(made[place], keys, how, server)
                calls += sum([await each.calls(2) for each in made])
                await all_asked(made)
                assert [each.used for each in made] == [calls] * 3, (keys, place)
        for each in made:
            calls += await each.calls(200)
        assert 160 - 9 * 10 <= calls <= 160


async def test_an_instance_that_starts_with_the_new_key_alone_finds_usage_of_earlier_days(server: Store) -> None:
    """Also that of instances which ended before the new key was there."""
    async with counting(server, 2, KNOWN) as made:
        for each in made:
            each.direct.keys = BEFORE
        await made[0].calls(3)
        await made[0].stop()
        await made[1].calls(4)
        await made[1].advance(3)
        made[1].clock.wall_offset += A_DAY
        await made[1].advance(1)
        await made[1].calls(5)
        made[1] = await changed(made[1], BOTH, "restart", server)
        made[1] = await changed(made[1], AFTER, "restart", server)
        await made[1].access.usage.gather("2026-11")
        found = [(each.day, each.calls) for each in made[1].access.usage.days("2026-11")]
        assert found == [("2026-11-22", 7), ("2026-11-23", 5)]


async def test_with_one_key_nothing_more_is_sent_than_before(server: Store) -> None:
    async with counting(server, 1, KNOWN) as (it,):
        await it.calls(3)
        await it.advance(NOTICED)
        assert {script.name for script, _, _ in it.direct.sent} == {"escrow", "report"}
