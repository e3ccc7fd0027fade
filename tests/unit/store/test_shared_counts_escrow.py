"""Budgets as escrow, request by request, in a real store: no order of steps and deaths exceeds a limit."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.counters import UNLIMITED, Counter, Terms
from gateway.access.escrow import Escrow
from gateway.model import Field
from gateway.store.counts import StoreTally
from tests.kit.tally import DirectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.model import EscrowReply, EscrowRequest
    from gateway.store import SharedStore
    from tests.kit.valkey import Store

KEY = ("web", "orders", "2026-11-22")
ENDS = 2_000_000_000.0
WALL = ENDS - 3600
_numbers = itertools.count()


class Instance:
    """One instance with one budget; the test runs each step."""

    def __init__(self, name: str, server: Store, namespace: str, hard: int, members: int) -> None:
        self.direct = DirectStore(name, server.port, namespace)
        self.tally = StoreTally(cast("SharedStore", self.direct))
        self.name, self.members = name, members
        self.escrow = Escrow(Counter(KEY), Terms(hard, "day", ENDS, 0))
        self.pending: list[tuple[EscrowRequest, EscrowReply]] = []

    @property
    def calls(self) -> int:
        return self.escrow.calls

    def call(self) -> bool:
        """Begin a call if it is granted."""
        if self.escrow.has_room:
            self.escrow.counter.reserved += 1
            return True
        return False

    def end(self, made: bool) -> None:
        if self.escrow.counter.reserved:
            self.escrow.counter.reserved -= 1
            self.escrow.counter.used += made

    async def send(self, want: int | None = None, *, back: bool = False) -> None:
        """Send a request; its reply is processed later, or never."""
        want = self.escrow.wanted(self.members) if want is None else want
        question = self.escrow.request(self.name, WALL, want, back=back)
        (answer,) = await self.tally.ask([question])
        self.pending.append((question, answer))

    async def learn(self) -> None:
        if self.pending and self.escrow.learn(*self.pending.pop(0)):
            await self.heal()

    async def heal(self) -> None:
        await self.send(0, back=True)
        self.escrow.learn(*self.pending.pop())

    async def ask(self, want: int | None = None) -> None:
        await self.send(want)
        self.pending, mine = self.pending[:-1], self.pending[-1]
        if self.escrow.learn(*mine):
            await self.heal()

    async def field(self, name: str | None = None) -> Field:
        """Return an instance's field in the store."""
        (answer,) = await self.tally.ask([Escrow(Counter(KEY), self.escrow.terms).request("reader", WALL, 0)])
        return answer.fields.get(name or self.name, Field(0, 0))


@asynccontextmanager
async def budget(server: Store, count: int, hard: int) -> AsyncIterator[list[Instance]]:
    namespace = f"n{next(_numbers)}"
    made = [Instance(f"instance{number}", server, namespace, hard, count) for number in range(count)]
    try:
        yield made
    finally:
        for each in made:
            await each.direct.close()


# ------------------------------------------------------------------------------------------------------------ questions


async def test_a_grant_exceeds_the_calls_made_by_at_most_a_sixteenth_of_the_limit(server: Store) -> None:
    async with budget(server, 4, 1600) as (one, *_):
        biggest = 0
        while True:
            before = one.calls
            await one.ask()
            biggest = max(biggest, one.escrow.granted - before)
            if not one.call():
                break
            one.end(made=True)
            while one.call():
                one.end(made=True)
        assert (one.calls, biggest) == (1600, 100)


async def test_the_first_chunks_and_the_last_ones_are_small(server: Store) -> None:
    """So an idle instance holds few calls, and near the end no instance holds calls that another one needs."""
    async with budget(server, 4, 100_000) as (one, *_):
        assert one.escrow.wanted(4, first=True) == 100_000 // 64
        assert one.escrow.wanted(16, first=True) * 16 <= 100_000 // 16
        one.escrow.fields["other"] = Field(99_990, 99_990)
        assert one.escrow.wanted(4) == 1
    tiny = Escrow(Counter(KEY), Terms(3, "day", ENDS, 0))
    assert (tiny.wanted(4, first=True), tiny.wanted(4)) == (0, 1)


async def test_a_request_that_arrives_late_and_twice_lowers_no_number(server: Store) -> None:
    async with budget(server, 2, 1000) as (one, two):
        for _ in range(3):
            await one.ask(20)
            while one.call():
                one.end(made=True)
        await two.ask(20)
        before = await one.field()
        for call in one.direct.sent[:2] * 2:
            await one.direct.repeat(call)
        assert await one.field() == before == Field(60, 40)


async def test_an_instance_that_died_strands_its_chunk_and_no_more(server: Store) -> None:
    async with budget(server, 2, 160) as (dead, live):
        await dead.ask(10)
        dead.call()
        dead.end(made=True)
        while True:
            await live.ask()
            if not live.call():
                break
            while live.call():
                pass
        assert (live.calls, live.escrow.granted) == (150, 150)
        assert live.escrow.is_spent


async def test_a_call_that_fails_returns_its_place_to_its_instance(server: Store) -> None:
    async with budget(server, 1, 4) as (one,):
        made = 0
        for turn in range(40):
            if not one.escrow.has_room:
                await one.ask()
            if one.call():
                one.end(made=turn % 2 == 0)
                made += turn % 2 == 0
        assert (made, one.escrow.used) == (4, 4)


async def test_after_a_flush_everything_remembered_is_written_back_before_anything_is_granted(server: Store) -> None:
    async with budget(server, 3, 1000) as (one, two, three):
        for each in (one, two, three, one):
            await each.ask(50)
            while each.call():
                each.end(made=True)
        await one.ask(0)
        before = [await one.field(each.name) for each in (one, two, three)]
        await server.command("FLUSHALL")
        await one.ask(50)
        assert [await one.field(each.name) for each in (one, two, three)] == before
        assert one.escrow.granted == 100, "nothing was granted by the question that found the store empty"
        await one.ask(50)
        assert one.escrow.granted == 150


async def test_what_an_instance_has_not_spent_is_written_back_too(server: Store) -> None:
    async with budget(server, 2, 1000) as (one, two):
        await one.ask(50)
        await server.command("FLUSHALL")
        await one.ask(0)
        assert await one.field() == Field(50, 0)
        await two.ask(990)
        assert two.escrow.granted == 950


async def test_fields_of_other_instances_that_an_old_copy_of_the_store_lacks_are_written_back(server: Store) -> None:
    """As after a fail-over: our own field is right, and another instance's is missing."""
    async with budget(server, 2, 1000) as (one, two):
        await two.ask(60)
        await one.ask(50)
        (key,) = [each for each in await server.command("KEYS", "*") if each.startswith(one.direct.key().encode())]
        await server.command("HDEL", key, f"g{two.name}")
        await one.ask(0)
        assert await one.field(two.name) == Field(60, 0)


async def test_the_soft_limit_is_logged_by_one_and_known_by_all(server: Store) -> None:
    async with budget(server, 2, UNLIMITED) as (one, two):
        one.escrow.counter.used, one.escrow.counter.warned = 7, True
        await one.ask(0)
        await two.ask(0)
        await two.ask(0)
        assert (two.escrow.counter.used, two.escrow.counter.warned, two.escrow.used) == (7, True, 0)
        assert two.escrow.counter.most == UNLIMITED


async def test_a_period_stays_in_the_store_for_two_days_after_its_end(server: Store) -> None:
    """An instance whose clock is slow still counts in it."""
    async with budget(server, 1, 100) as (one,):
        await one.ask()
        (key,) = [each for each in await server.command("KEYS", "*") if each.startswith(one.direct.key().encode())]
        left = await server.command("PTTL", key) / 1000
        assert 2 * 86_400 + 3590 < left <= 2 * 86_400 + 3600


# ----------------------------------------------------------------------------------------------------------- everything

STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(
            ["call", "call", "call", "calls", "ok", "fail", "send", "learn", "ask", "lose", "repeat", "die"]
        ),
        st.integers(0, 7),
    ),
    min_size=20,
    max_size=120,
)


async def act(it: Instance, what: str, number: int) -> None:
    match what:
        case "call":
            it.call()
        case "calls":
            while it.call():
                pass
        case "ok" | "fail":
            it.end(made=what == "ok")
        case "send":
            await it.send()
        case "learn":
            await it.learn()
        case "ask":
            await it.ask()
        case "lose" if it.pending:
            it.pending.pop(number % len(it.pending))
        case "repeat" if it.direct.sent:
            await it.direct.repeat(it.direct.sent[number % len(it.direct.sent)])


@given(steps=STEPS, hard=st.integers(1, 90))
@settings(max_examples=60)
def test_no_interleaving_of_requests_replies_repetitions_and_deaths_exceeds_the_limit(
    server: Store, steps: list[tuple[int, str, int]], hard: int
) -> None:
    async def run() -> None:
        async with budget(server, 4, hard) as made:
            dead: set[int] = set()
            for which, what, number in steps:
                if what == "die" and len(dead) < 2:
                    dead.add(which)
                elif which not in dead or what == "repeat":
                    await act(made[which], what, number)
                assert sum(each.calls for each in made) <= hard
            fields = [await made[0].field(each.name) for each in made]
            assert sum(each.granted for each in fields) <= hard

    asyncio.run(run())


@given(before=STEPS, between=STEPS, after=STEPS, hard=st.integers(16, 320))
@settings(max_examples=40)
def test_after_a_flush_at_most_a_chunk_of_each_instance_is_too_much(
    server: Store,
    before: list[tuple[int, str, int]],
    between: list[tuple[int, str, int]],
    after: list[tuple[int, str, int]],
    hard: int,
) -> None:
    """Each instance may have sent one request before it learns that the others have written back."""

    async def run() -> None:
        async with budget(server, 4, hard) as made:
            for which, what, number in before:
                await act(made[which], "ask" if what == "die" else what, number)
            await server.command("FLUSHALL")
            asked: set[int] = set()
            for which, what, number in between:
                if what in {"send", "ask"} and which not in asked:
                    asked.add(which)
                    await made[which].ask()
                elif what in {"call", "calls", "ok", "fail"}:
                    await act(made[which], what, number)
            for each in made:
                each.pending.clear()
                await each.ask(0)
            for which, what, number in after:
                await act(made[which], "ask" if what == "die" else what, number)
            assert sum(each.calls for each in made) <= hard + 4 * max(1, hard // 16)

    asyncio.run(run())


def test_the_threshold_moves_with_what_others_have_used() -> None:
    it = Escrow(Counter(KEY), Terms(1000, "day", ENDS, 7))
    it.granted, it.chunk = 100, 50
    arguments: dict[str, Any] = {"away": False, "allowance": 0, "waits": False}
    it.bound(**arguments)
    assert it.counter.most == 75
    it.bound(**{**arguments, "waits": True})
    assert it.counter.most == 100
    it.counter.used, it.others_used = 300, 300
    it.bound(**arguments)
    assert it.counter.most == 375
    it.bound(away=True, allowance=7, waits=False)
    assert it.counter.most == 407
