"""What the scripts in the store decide about tokens: leases, fences, dead tokens and forced fetches."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from gateway.clock import SystemClock
from gateway.errors import StoreAway
from gateway.model import Again, Bucket, Demand, Held, Lease, NotYet, Secret, Token
from gateway.observe import Metrics
from gateway.store import SharedStore
from gateway.store.tokens import StoredTokens
from tests.kit.metrics import sample
from tests.kit.sharing import store_config
from tests.kit.valkey import ENGINES, STORE_KEY, Engine, Store, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

T = TypeVar("T")
KEY = "ab" * 32
DEMAND = Demand(known=0, floor=0, min_interval=0.0, ahead=False, forced=False)
BUCKET = Bucket(2, 5.0, 5.0, 60.0)
EARLIEST = 0.25 + 0.005
"""Seconds by which a writer may estimate an end too early: one command's time-out, and rounding to milliseconds."""


class Bench:
    """A store, and two instances that use it."""

    def __init__(self, server: Store, one: SharedStore, other: SharedStore, metrics: Metrics) -> None:
        self.server = server
        self.clock = SystemClock()
        self.one, self.other = StoredTokens(one, self.clock), StoredTokens(other, self.clock)
        self.metrics = metrics
        self.names = [one.key(f"{{{one.name('token', KEY)}}}", part) for part in "tls"]

    def token(self, fence: int, value: str = "CANARY-token", life: float = 60.0) -> Token:
        now = self.clock.monotonic()
        return Token(Secret(value), "acme", now, now + life, "in", generation=fence, by=self.one.instance)

    async def lease(self, of: StoredTokens | None = None, demand: Demand = DEMAND) -> Lease:
        turn = await (of or self.one).acquire(KEY, demand)
        assert isinstance(turn, Lease), turn
        return turn

    async def stored(self, value: str = "CANARY-token", demand: Demand = DEMAND) -> int:
        """Store a token as its holder does; return its fence."""
        lease = await self.lease(demand=demand)
        await self.one.commit(KEY, lease.owner, self.token(lease.fence, value), 30.0)
        return lease.fence

    async def timed(self, command: Awaitable[T]) -> tuple[T, float]:
        """Return a command's result and its duration in seconds: a reader counts from before it sent the command."""
        sent = self.clock.monotonic()
        return await command, self.clock.monotonic() - sent

    async def kill(self, fence: int, *, accepted: bool = True, longest: float = 5.0) -> bool:
        return await self.one.kill(KEY, fence, accepted=accepted, longest=longest, bucket=BUCKET)


@pytest.fixture(params=ENGINES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    engine: Engine = request.param
    metrics = Metrics()
    async with (
        store(tmp_path, engine) as server,
        member(server, metrics) as one,
        member(server) as other,
    ):
        yield Bench(server, one, other, metrics)


@asynccontextmanager
async def member(server: Store, metrics: Metrics | None = None, **keys: object) -> AsyncIterator[SharedStore]:
    it = SharedStore(store_config(server.port, **keys), clock=SystemClock(), metrics=metrics or Metrics())
    await it.start()
    await asyncio.wait_for(it.tried.wait(), 30)
    yield it
    await it.stop()


# -------------------------------------------------------------------------------------------------------------- leases


async def test_one_instance_gets_the_lease_and_the_others_learn_that_it_is_held(bench: Bench) -> None:
    turns = await asyncio.gather(*(each.acquire(KEY, DEMAND) for each in (bench.one, bench.other) * 8))
    assert [type(turn) for turn in turns].count(Lease) == 1
    assert {type(turn) for turn in turns} == {Lease, Held}


async def test_a_lease_that_is_not_renewed_expires(bench: Bench) -> None:
    lease = await bench.lease()
    assert await bench.one.renew(KEY, lease.owner)
    await bench.server.command("PEXPIRE", bench.names[1], 1)
    await asyncio.sleep(0.01)
    assert not await bench.one.renew(KEY, lease.owner)
    later = await bench.lease(bench.other)
    assert later.fence > lease.fence
    assert not await bench.one.renew(KEY, lease.owner)


async def test_a_stored_token_is_returned_instead_of_a_lease(bench: Bench) -> None:
    lease = await bench.lease()
    fence, own = lease.fence, bench.token(lease.fence, "CANARY-shared")
    await bench.one.commit(KEY, lease.owner, own, 30.0)
    token, took = await bench.timed(bench.other.acquire(KEY, DEMAND))
    assert isinstance(token, Token)
    assert (token.value.reveal(), token.generation, token.by) == ("CANARY-shared", fence, bench.one.instance)
    assert token.life == pytest.approx(60.0)
    assert own.expires_at - EARLIEST - took <= token.expires_at <= own.expires_at
    assert isinstance(await bench.other.acquire(KEY, replace(DEMAND, known=fence)), Lease)


async def test_no_reader_uses_a_token_longer_than_its_writer_by_a_part_of_a_millisecond(bench: Bench) -> None:
    known = 0
    for _ in range(100):
        lease = await bench.one.acquire(KEY, replace(DEMAND, known=known))
        assert isinstance(lease, Lease)
        own, known = bench.token(lease.fence), lease.fence
        await bench.one.commit(KEY, lease.owner, own, 30.0)
        for _ in range(5):
            for turn in (await bench.other.acquire(KEY, DEMAND), (await bench.other.read([(KEY, 0)]))[0].token):
                assert isinstance(turn, Token)
                assert turn.expires_at <= own.expires_at


@pytest.mark.parametrize("jump", [-30.0, 30.0])
async def test_a_token_does_not_live_longer_for_a_store_whose_clock_jumped(bench: Bench, jump: float) -> None:
    """The writer's estimate is then wrong, so it counts only within one time-out of the remaining lifetime."""
    lease = await bench.lease()
    bench.one._behind += jump
    own = bench.token(lease.fence)
    await bench.one.commit(KEY, lease.owner, own, 30.0)
    token, took = await bench.timed(bench.other.acquire(KEY, DEMAND))
    assert isinstance(token, Token)
    assert own.expires_at - EARLIEST - took <= token.expires_at <= own.expires_at + EARLIEST


async def test_only_the_owner_ends_a_lease(bench: Bench) -> None:
    lease = await bench.lease()
    assert not await bench.other.fail(KEY, "somebody", "refused", Again(60.0, 60.0, 60.0))
    await bench.other.commit(KEY, "", bench.token(lease.fence - 10**9), 1.0)
    assert isinstance(await bench.other.acquire(KEY, replace(DEMAND, known=lease.fence)), Held)
    assert await bench.one.fail(KEY, lease.owner, None, Again(0.0, 0.0, 0.0))
    assert not await bench.one.fail(KEY, lease.owner, "refused", Again(60.0, 60.0, 60.0))
    await bench.lease(bench.other, replace(DEMAND, known=lease.fence))


# -------------------------------------------------------------------------------------------------------------- fences


async def test_a_fence_never_falls(bench: Bench) -> None:
    first = await bench.stored()
    await bench.server.command("FLUSHALL")
    second = (await bench.lease(demand=replace(DEMAND, known=first))).fence
    await bench.server.command("FLUSHALL")
    third = (await bench.lease(demand=replace(DEMAND, floor=second + 10**12))).fence
    assert first < second < third == second + 10**12 + 1


async def test_a_late_token_never_replaces_a_newer_one(bench: Bench) -> None:
    slow = await bench.lease()
    await bench.server.command("DEL", bench.names[1])
    quick = await bench.lease(bench.other)
    await bench.other.commit(KEY, quick.owner, bench.token(quick.fence, "CANARY-new"), 30.0)
    reading = await bench.one.commit(KEY, slow.owner, bench.token(slow.fence, "CANARY-old"), 30.0)
    assert reading.fence == quick.fence
    (seen,) = await bench.one.read([(KEY, 0)])
    assert seen.token is not None
    assert seen.token.value.reveal() == "CANARY-new"


async def test_a_token_with_a_dead_fence_is_not_stored(bench: Bench) -> None:
    fence = await bench.stored()
    assert await bench.kill(fence)
    reading = await bench.one.commit(KEY, "", bench.token(fence), 30.0)
    assert (reading.fence, reading.dead) == (0, fence)
    assert (await bench.other.read([(KEY, 0)]))[0].token is None


async def test_if_the_vendor_returns_the_same_token_only_the_next_request_is_postponed(bench: Bench) -> None:
    fence = await bench.stored()
    lease = await bench.lease(demand=replace(DEMAND, known=fence))
    assert (await bench.one.commit(KEY, lease.owner, bench.token(fence, "CANARY-token"), 20.0)).fence == fence
    turn = await bench.other.acquire(KEY, replace(DEMAND, known=fence, ahead=True))
    assert isinstance(turn, NotYet)
    assert (round(turn.wait), turn.failure) == (20, None)


# --------------------------------------------------------------------------------------------------------------- waits


async def test_min_interval_counts_from_the_last_lease_of_any_instance(bench: Bench) -> None:
    demand = replace(DEMAND, min_interval=6.0)
    fence = await bench.stored(demand=demand)
    for forced in (False, True):
        turn = await bench.other.acquire(KEY, replace(demand, known=fence, forced=forced))
        assert isinstance(turn, NotYet)
        assert 5 < turn.wait <= 6


async def test_a_failure_delays_the_next_request_of_all_instances(bench: Bench) -> None:
    lease = await bench.lease()
    await bench.one.fail(KEY, lease.owner, "malformed", Again(hard=1.0, eager=2.0, calm=30.0))
    waits = {}
    for name, demand in {
        "forced": replace(DEMAND, forced=True),
        "eager": DEMAND,
        "calm": replace(DEMAND, ahead=True),
    }.items():
        turn = await bench.other.acquire(KEY, demand)
        assert isinstance(turn, NotYet)
        assert turn.failure == "malformed"
        waits[name] = round(turn.wait)
    assert waits == {"forced": 1, "eager": 2, "calm": 30}


async def test_failures_in_a_row_are_counted_over_all_instances_until_a_token_is_stored(bench: Bench) -> None:
    for failures, instance in enumerate((bench.one, bench.other, bench.one)):
        lease = await bench.lease(instance)
        assert lease.failures == failures
        await instance.fail(KEY, lease.owner, "unavailable", Again(0.0, 0.0, 0.0))
    fence = await bench.stored()
    assert (await bench.lease(demand=replace(DEMAND, known=fence))).failures == 0


async def test_if_the_store_s_clock_is_turned_back_no_instance_waits_longer(bench: Bench) -> None:
    lease = await bench.lease()
    await bench.one.fail(KEY, lease.owner, "refused", Again(hard=1.0, eager=60.0, calm=60.0))
    for field in "nrqw":
        await bench.server.command("HINCRBY", bench.names[2], field, 3_600_000)  # as if the clock had been ahead
    turn = await bench.other.acquire(KEY, DEMAND)
    assert isinstance(turn, NotYet)
    assert 55 < turn.wait <= 60


# ------------------------------------------------------------------------------------------------------ rejected tokens


async def test_a_rejection_invalidates_exactly_the_rejected_token(bench: Bench) -> None:
    old = await bench.stored("CANARY-old")
    new = await bench.stored("CANARY-new", replace(DEMAND, known=old))
    assert await bench.kill(old)
    token = await bench.other.acquire(KEY, DEMAND)
    assert isinstance(token, Token)
    assert token.generation == new


async def test_eight_rejections_of_one_token_take_once_from_the_bucket(bench: Bench) -> None:
    fence = await bench.stored()
    assert all(await asyncio.gather(*(bench.kill(fence) for _ in range(8))))
    level = await bench.server.command("HGET", bench.names[2], "bl")
    assert float(level) == pytest.approx(1.0, abs=0.01)


async def test_the_bucket_is_shared_and_refills(bench: Bench) -> None:
    fence, killed = 0, []
    for instance in (bench.one, bench.other, bench.one):
        fence = await bench.stored(demand=replace(DEMAND, known=fence))
        killed.append(await instance.kill(KEY, fence, accepted=True, longest=5.0, bucket=BUCKET))
    assert killed == [True, True, False]
    assert (await bench.other.read([(KEY, 0)]))[0].fence == fence  # it stays in use
    await bench.server.command("HINCRBY", bench.names[2], "bt", -10_000)
    assert await bench.kill(fence)


async def test_a_token_that_no_vendor_accepted_is_replaced_once_and_then_after_a_pause(bench: Bench) -> None:
    first = await bench.stored()
    assert await bench.kill(first, accepted=False)
    second = await bench.stored(demand=replace(DEMAND, known=first))
    assert not await bench.kill(second, accepted=False)
    await bench.other.accept(KEY, second, 5.0)  # another instance has seen that the vendor accepts it
    assert await bench.kill(second, accepted=False)


async def test_a_rejected_token_stays_in_use_if_the_next_one_may_not_be_fetched_soon(bench: Bench) -> None:
    fence = await bench.stored(demand=replace(DEMAND, min_interval=60.0))
    assert not await bench.kill(fence, longest=5.0)
    assert await bench.kill(fence, longest=61.0)


async def test_while_a_token_is_being_fetched_a_rejection_takes_nothing_from_the_bucket(bench: Bench) -> None:
    fence = await bench.stored()
    await bench.lease(bench.other, replace(DEMAND, known=fence))
    assert await bench.kill(fence)
    assert await bench.server.command("HGET", bench.names[2], "bl") is None


# -------------------------------------------------------------------------------------------------------------- secrecy


async def test_a_record_that_was_moved_or_replayed_is_not_decrypted(bench: Bench) -> None:
    first = await bench.stored("CANARY-first")
    old = await bench.server.command("HGET", bench.names[0], "c")
    fence = await bench.stored("CANARY-second", replace(DEMAND, known=first))
    await bench.server.command("HSET", bench.names[0], "c", old)
    (reading,) = await bench.other.read([(KEY, 0)])
    assert (reading.fence, reading.token) == (fence, None)
    (mine,) = await bench.one.read([(KEY, 0)])
    assert mine.token is None
    assert sample(bench.metrics, "gatepass_store_undecryptable_records_total") == 1
    assert isinstance(await bench.one.acquire(KEY, DEMAND), Lease)  # so the next token is fetched


async def test_a_dump_of_the_store_shows_no_token_and_no_key(bench: Bench) -> None:
    await bench.stored("CANARY-in-the-store")
    dump = await bench.server.dump()
    assert b"CANARY" not in dump
    assert KEY.encode() not in dump
    assert STORE_KEY.encode() not in dump


async def test_without_the_store_every_call_raises_store_away(bench: Bench) -> None:
    await bench.server.kill()
    for _ in range(3):
        with pytest.raises(StoreAway):
            await bench.one.acquire(KEY, DEMAND)
    assert not bench.one.is_up
