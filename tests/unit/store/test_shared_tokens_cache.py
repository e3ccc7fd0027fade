"""One instance's token cache on a real store, while leases are lost and other instances are quicker.

The fetches and the clock of the instance are the test's. Of the other instance there are only its commands to the
store, which the test sends; the test also decides when the first instance is told of a change.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from gateway.errors import TokenUnavailable
from gateway.model import Credential, Demand, Lease, Reading, Secret, Token
from gateway.observe import Metrics
from gateway.store.sealing import Sealing
from gateway.store.tokens import StoredTokens
from gateway.tokens.shared import SharedTokenCache
from gateway.tokens.source import Recipe
from gateway.tokens.store import MemoryStore
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample
from tests.kit.source import HandSource
from tests.kit.tally import DirectStore
from tests.kit.valkey import STORE_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.store import SharedStore
    from tests.kit.valkey import Store

KEY = "key-0"
LEASE = 30.0
DEMAND = Demand(known=0, floor=0, min_interval=0.0, ahead=False, forced=False)
_numbers = itertools.count()


class TokenStore(DirectStore):
    """What `StoredTokens` needs of a `SharedStore`."""

    lease = LEASE
    timeout = 0.25

    def __init__(self, instance: str, port: int, namespace: str) -> None:
        super().__init__(instance, port, namespace)
        sealing = Sealing((Secret(STORE_KEY),), namespace)
        self.seal, self.unseal = sealing.seal, sealing.unseal

    def wall(self) -> float | None:
        return None

    def times(self, script: str) -> int:
        """How often this instance has sent a script."""
        return sum(sent.name == script for sent, _, _ in self.sent)


class Bench:
    """A cache whose sources and clock are the test's, and the store as another instance sees it."""

    def __init__(self, server: Store, *, sources: int = 1, token_timeout: float = 5.0, **settings: Any) -> None:
        namespace = f"tokens-{next(_numbers)}"
        self.server = server
        self.clock = FakeClock()
        self.metrics = Metrics(wall=self.clock.wall)
        self.on_change: Callable[[], object] = bool
        """Called whenever the token has changed."""
        self.direct, self._others = (TokenStore(name, server.port, namespace) for name in ("one", "other"))
        shared, self.other = (
            StoredTokens(cast("SharedStore", each), self.clock) for each in (self.direct, self._others)
        )
        self.sources = [HandSource(self.clock) for _ in range(sources)]
        self.source = self.sources[0]
        recipe = Recipe(
            Credential(**({"name": "acme"} | settings)), self.sources, [f"key-{each}" for each in range(sources)]
        )
        self.cache = SharedTokenCache(
            recipe,
            clock=self.clock,
            metrics=self.metrics.credential("acme"),
            store=MemoryStore(self.clock),
            token_timeout=token_timeout,
            shared=shared,
            changed=self._changed,
        )
        self.leases = partial(self._count, "gatepass_store_leases_total")

    def _changed(self) -> None:
        self.on_change()

    def _count(self, name: str, outcome: str) -> float:
        return sample(self.metrics, name, {"credential": "acme", "outcome": outcome}) or 0.0

    # ---------------------------------------------------------------------------------------------- this instance

    @property
    def value(self) -> str | None:
        """The token in use."""
        token = self.cache.peek()
        return token.value.reveal() if token else None

    async def asking(self, times: int = 1) -> None:
        """Wait until the token endpoint has been asked so often."""
        await self.clock.until(lambda: self.source.count == times, within=10)

    async def rest(self) -> None:
        """Wait until the cache neither fetches nor asks the store."""
        await self.clock.until(lambda: self.cache._fetch is None and not self.cache._watch.commands, within=10)

    async def fetch(self) -> None:
        """Begin; wait until the token endpoint is asked, with a lease."""
        self.cache.begin("startup")
        await self.asking()

    async def warm(self, life: float = 3600.0) -> Token:
        """Fetch the first token, and store it."""
        await self.fetch()
        await self.source.settle(self.source.token(life))
        await self.rest()
        token = self.cache.current()
        assert token is not None
        return token

    async def notify(self) -> None:
        """Tell this instance that the store has changed, and wait until it has read the store."""
        for changed in list(self.direct.listeners):
            changed()
        await self.clock.until(lambda: not self.cache._watch.commands, within=10)

    # ----------------------------------------------------------------------------------------- the store, the other one

    def name(self, part: str) -> str:
        """The key of the grant's token (`t`), lease (`l`) or state (`s`)."""
        return self.direct.key(f"{{{self.direct.name('token', KEY)}}}", part)

    async def lose_lease(self) -> None:
        """End the lease, as after a pause of this process that is longer than it."""
        assert await self.server.command("DEL", self.name("l")) == 1

    async def take_turn(self, **demand: Any) -> Lease:
        """Let the other instance take the lease."""
        turn = await self.other.acquire(KEY, replace(DEMAND, **demand))
        assert isinstance(turn, Lease), turn
        return turn

    async def put(self, value: str, **demand: Any) -> Token:
        """Let the other instance store a token, as fetched now."""
        lease, now = await self.take_turn(**demand), self.clock.monotonic()
        token = Token(Secret(value), "acme", now, now + 600.0, "in", generation=lease.fence, by="other")
        reading = await self.other.commit(KEY, lease.owner, token, 300.0)
        assert reading.fence == lease.fence
        return token

    async def close(self) -> None:
        await asyncio.gather(*self.cache.close(), return_exceptions=True)
        for each in (self.direct, self._others):
            await each.close()


@asynccontextmanager
async def running(server: Store, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(server, **settings)
    try:
        yield bench
    finally:
        await bench.close()


def events(logs: list[Any], name: str) -> list[Any]:
    return [each for each in logs if each["event"] == name]


# -------------------------------------------------------------------------------------------------------- leases


async def test_a_lease_that_was_lost_is_counted_and_its_token_is_used_all_the_same(server: Store) -> None:
    async with running(server) as bench:
        await bench.fetch()
        await bench.lose_lease()
        await bench.clock.advance(LEASE / 3)
        await bench.clock.until(lambda: bench.leases("lost"), within=10)
        await bench.clock.advance(LEASE)
        assert bench.direct.times("renew") == 1
        await bench.source.settle(bench.source.token(value="CANARY-late"))
        await bench.rest()
        (reading,) = await bench.other.read([(KEY, 0)])
        assert reading.token is not None
        assert (bench.value, reading.token.value.reveal()) == ("CANARY-late", "CANARY-late")


async def test_a_renewal_that_the_store_did_not_get_is_followed_by_the_next_one(server: Store) -> None:
    async with running(server) as bench:
        await bench.fetch()
        await server.command("PEXPIRE", bench.name("l"), 20_000)
        bench.direct.is_up = False
        await bench.clock.advance(LEASE / 3)
        bench.direct.is_up = True
        await bench.clock.advance(LEASE / 3)
        await bench.clock.until(lambda: bench.direct.times("renew"), within=10)
        await bench.cache._shared.read([(KEY, 0)])  # sent after the renewal, so that was answered
        assert await server.command("PTTL", bench.name("l")) > 20_000
        assert bench.leases("lost") == 0


async def test_the_repr_of_a_source_shows_whether_it_has_a_lease_and_not_the_lease_s_owner(server: Store) -> None:
    async with running(server) as bench:
        (turn,) = bench.cache._turns
        assert repr(turn) == "<TurnSource at rest>"
        await bench.fetch()
        assert repr(turn) == "<TurnSource with a lease>"


# -------------------------------------------------------------------------------------- another instance was quicker


async def test_a_token_that_comes_after_a_newer_one_of_another_instance_is_not_used(server: Store) -> None:
    async with running(server) as bench:
        await bench.fetch()
        await bench.lose_lease()
        await bench.put("CANARY-newer")
        await bench.notify()
        assert bench.value == "CANARY-newer"
        with capture_logs() as logs:
            await bench.source.settle(bench.source.token(value="CANARY-older"))
            await bench.rest()
        (event,) = events(logs, "token_superseded")
        assert event["generation"] < (bench.cache.status("acme").generation)
        assert bench.value == "CANARY-newer"
        assert (bench.leases("failed"), bench.leases("committed")) == (1, 0)
        fetched = {"credential": "acme", "outcome": "ok", "cause": "startup"}
        assert sample(bench.metrics, "gatepass_token_fetches_total", fetched) == 1
        wait = bench.cache.status("acme").next_attempt_in
        assert wait is not None
        assert 0 < wait < 600, "the renewal of the token in use is planned"


async def test_an_instance_that_may_not_store_its_token_uses_the_stored_one(server: Store) -> None:
    """It was not told that the store has a newer token."""
    async with running(server) as bench:
        await bench.fetch()
        await bench.lose_lease()
        await bench.put("CANARY-newer")
        await bench.source.settle(bench.source.token(value="CANARY-older"))
        await bench.rest()
        assert bench.value == "CANARY-newer"
        assert (bench.leases("refused"), bench.leases("committed")) == (1, 0)


async def test_a_lease_ends_with_its_cache_even_if_the_token_arrived_in_that_moment(server: Store) -> None:
    async with running(server) as bench:
        await bench.fetch()
        loop = asyncio.get_running_loop()
        bench.on_change = lambda: loop.call_soon(bench.cache.close)
        await bench.source.settle(bench.source.token())
        await bench.rest()
        await bench.take_turn()
        assert bench.leases("failed") == 1


async def test_an_app_that_waited_for_another_instance_gets_an_error_that_says_that_a_fetch_runs(server: Store) -> None:
    async with running(server, token_timeout=0.04) as bench:
        await bench.take_turn()
        asked = asyncio.create_task(bench.cache.get())
        await bench.clock.settle()
        await bench.rest()
        await bench.clock.advance(0.04)
        with pytest.raises(TokenUnavailable) as refusal:
            await asked
        assert refusal.value.reason == "no token within 0.04 s, still being fetched"
        assert bench.source.count == 0


async def test_an_operator_s_fetch_is_refused_during_the_interval_that_another_instance_began(server: Store) -> None:
    async with running(server, min_interval=600.0) as bench:
        await bench.put("CANARY-adopted", min_interval=600.0)
        bench.cache.begin("startup")
        await bench.rest()
        with pytest.raises(TokenUnavailable) as refusal:
            await bench.cache.fetch_now()
        assert re.fullmatch(r"the vendor allows the next token request in [56]\d\d s", refusal.value.reason)
        assert refusal.value.retry_after is not None
        assert 500 < refusal.value.retry_after <= 600
        assert (bench.value, bench.source.count) == ("CANARY-adopted", 0)


async def test_with_two_secrets_and_without_the_store_an_instance_fetches_for_itself(server: Store) -> None:
    async with running(server, sources=2) as bench:
        bench.direct.is_up = False
        await bench.warm()
        assert bench.value == "CANARY-token-1"
        assert [each.count for each in bench.sources] == [1, 0]


# ------------------------------------------------------------------------------------------------------ rejected tokens


async def test_a_rejected_token_stays_in_use_while_the_vendor_allows_no_request_soon(server: Store) -> None:
    async with running(server, min_interval=600.0) as bench:
        token = await bench.warm()
        sent = len(bench.direct.sent)
        bench.cache.discard(token)
        assert bench.cache.current() is token
        await bench.rest()
        assert (len(bench.direct.sent), bench.source.count) == (sent, 1)


async def test_a_token_that_is_rejected_while_its_successor_is_fetched_is_declared_dead(server: Store) -> None:
    async with running(server) as bench:
        token = await bench.warm(life=100.0)
        await server.command("HDEL", bench.name("s"), "q")  # the store's clock is real, so it would wait for a minute
        await bench.clock.advance(60.0)
        await bench.asking(2)
        with capture_logs() as logs:
            bench.cache.discard(token)
            assert bench.cache.current() is None
            await bench.clock.until(lambda: not bench.cache._watch.commands, within=10)
        assert [each["cause"] for each in events(logs, "token_invalidated")] == ["unauthorized"]
        (reading,) = await bench.other.read([(KEY, 0)])
        assert (reading.dead, reading.token) == (token.generation, None)
        await bench.source.settle(bench.source.token())
        await bench.rest()
        assert bench.value == "CANARY-token-2"


async def test_an_app_does_not_wait_for_the_fetch_if_its_rejected_token_stays_in_use(server: Store) -> None:
    async with running(server) as bench:
        token = await bench.warm(life=100.0)
        await server.command("HDEL", bench.name("s"), "q")
        await bench.clock.advance(60.0)
        await bench.asking(2)
        await bench.lose_lease()
        await server.command("HSET", bench.name("s"), "hu", 10**15)  # as after many rejections
        told = asyncio.create_task(bench.cache.refused(token))
        await bench.clock.until(told.done, within=10)
        assert await told is None
        assert bench.cache.current() is token
        assert bench.source.running == 1


@pytest.mark.parametrize("rejected", [1, 2], ids=["a token", "two in a row"])
async def test_if_the_store_fails_at_a_rejection_the_instance_decides_for_itself(server: Store, rejected: int) -> None:
    """The second token was never accepted either, so it stays in use for a while."""
    async with running(server) as bench:
        token = await bench.warm()
        for turn in range(rejected):
            bench.cache.discard(token)
            bench.direct.is_up = False  # before the command is sent
            if turn == 0:
                await bench.asking(2)
                await bench.source.settle(bench.source.token())
            await bench.rest()
            bench.direct.is_up = True
            following = bench.cache.current()
            assert following is not None
            assert (following is token) == (turn == 1)
            token = following
        assert bench.source.count == 2


async def test_a_token_of_the_secret_before_a_reload_is_not_judged_by_what_is_stored_for_the_new_one(
    server: Store,
) -> None:
    async with running(server) as bench:
        now = bench.clock.monotonic()
        token = Token(Secret("CANARY-old"), "acme", now, now + 600.0, "in", generation=7)
        bench.cache.adopt(token, rotated=True, key="key-of-the-old-secret")
        bench.cache.consider([Reading(fence=9, dead=8, token=None)])
        assert bench.cache.current() is token


# -------------------------------------------------------------------------------------------------------------- defects


def _defect() -> None:
    raise ZeroDivisionError("CANARY")


async def test_a_defect_while_a_change_is_read_is_logged_and_the_next_change_is_read(server: Store) -> None:
    async with running(server) as bench:
        token = await bench.warm()
        bench.on_change = _defect
        first = await bench.put("CANARY-first", known=token.generation)
        with capture_logs() as logs:
            await bench.notify()
        (event,) = events(logs, "token_sharing_crashed")
        assert isinstance(event["exc_info"], ZeroDivisionError)
        bench.on_change = bool
        await bench.put("CANARY-second", known=first.generation)
        await bench.notify()
        assert bench.value == "CANARY-second"


async def test_a_defect_of_one_cache_does_not_end_the_reading_of_all(server: Store) -> None:
    async with running(server) as bench:
        now = bench.clock.monotonic()
        bench.on_change = _defect
        with capture_logs() as logs:
            bench.cache.heed([Reading(7, 0, Token(Secret("CANARY-heeded"), "", now, now + 60.0, "in", generation=7))])
        (event,) = events(logs, "token_sharing_crashed")
        assert (event["credential"], type(event["exc_info"])) == ("acme", ZeroDivisionError)
