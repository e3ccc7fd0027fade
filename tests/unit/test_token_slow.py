"""A token endpoint that became slower than its learned time-out: what it answers late is used all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import CredentialRefused, TokenMalformed, TokenUnavailable
from gateway.observe import Metrics
from gateway.tokens.failures import TokenEndpointRejected
from tests.kit.clock import FakeClock
from tests.kit.source import HandSource, cache

if TYPE_CHECKING:
    from gateway.errors import TokenError
    from gateway.model import Token


class Bench:
    """A cache that knows its endpoint as quick, and a source whose fetches end when the test says so."""

    def __init__(self, sources: int = 1, **settings: Any) -> None:
        self.clock = FakeClock()
        self.sources = [HandSource(self.clock, limited=True) for _ in range(sources)]
        self.source = self.sources[0]
        self.metrics = Metrics(wall=self.clock.wall)
        self.cache = cache(self.clock, *self.sources, metrics=self.metrics, **({"timeout": 10.0} | settings))

    async def start(self, life: float = 3600.0) -> Token:
        self.cache.begin("startup")
        await self.clock.advance(0.1)
        await self.source.settle(self.source.token(life))
        token = self.cache.current()
        assert token is not None
        self.cache.accepted(token)
        return token

    async def revoked(self) -> None:
        """The vendor refuses the token; a new one is fetched."""
        self.cache.discard(await self.start())
        await self.clock.settle()

    async def apps(self, count: int = 5) -> list[asyncio.Task[Token]]:
        tasks = [asyncio.ensure_future(self.cache.get()) for _ in range(count)]
        await self.clock.settle()
        return tasks


async def test_apps_that_wait_get_the_token_that_comes_after_the_time_out() -> None:
    bench = Bench()
    await bench.revoked()
    early = await bench.apps()
    await bench.clock.advance(3)
    late = await bench.apps()
    await bench.clock.advance(1)
    await bench.source.settle(bench.source.token(), oldest=True)
    tokens = await asyncio.gather(*early, *late)
    assert len({id(token) for token in tokens}) == 1
    assert tokens[0] is bench.cache.current()
    await bench.clock.settle()
    assert bench.source.running == 0, "the other fetch is not needed any more"
    assert bench.cache.status("acme").reason is None


async def test_an_endpoint_that_answers_every_time_within_the_wait_of_an_app_refuses_nobody() -> None:
    """From 0.1 s to 4 s, at once, without a token in hand: not one refusal, and it is learnt."""
    bench = Bench()
    token = await bench.start()
    bench.source.answer, bench.source.latency = bench.source.token, 4.0
    bench.cache.discard(token)
    for round_ in range(3):
        tasks = []
        for _ in range(45):
            tasks += await bench.apps(1)
            await bench.clock.advance(0.1)
        assert [task.exception() for task in tasks] == [None] * 45, round_
        current = bench.cache.current()
        assert current is not None
        bench.cache.accepted(current)
        bench.cache.discard(current)
        await bench.clock.settle()


async def test_an_endpoint_that_hangs_makes_apps_wait_once_and_then_refuses_at_once() -> None:
    bench = Bench()
    await bench.revoked()
    (first,) = await bench.apps(1)
    await bench.clock.advance(4.9)
    assert not first.done()
    await bench.clock.advance(0.2)
    assert isinstance(first.exception(), TokenUnavailable)
    for _ in range(30):
        (task,) = await bench.apps(1)
        assert isinstance(task.exception(), TokenUnavailable)
        await bench.clock.advance(1)
    bench.source.answer = bench.source.token
    began = bench.clock.monotonic()
    while bench.cache.current() is None:
        await asyncio.gather(*await bench.apps(1), return_exceptions=True)
        await bench.clock.advance(0.1)
    assert bench.clock.monotonic() - began < 3, "a hang is over as quickly as before"


async def test_the_time_for_which_apps_wait_is_bounded_though_nobody_waited_from_the_start() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(8)
    (task,) = await bench.apps(1)
    assert isinstance(task.exception(), TokenUnavailable)


async def test_a_fetch_that_began_before_the_tokens_end_is_used_after_it() -> None:
    bench = Bench()
    first = await bench.start(life=6.0)
    left = first.expires_at - bench.clock.monotonic()
    await bench.clock.advance(left + 0.5)
    assert bench.source.running == 2
    await bench.source.settle(bench.source.token(), oldest=True)
    second = bench.cache.current()
    assert second is not None
    assert second is not first
    assert bench.source.running == 0


async def test_what_comes_late_is_dropped_when_something_newer_is_there() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(2.5)
    assert bench.source.running == 2
    await bench.source.settle(bench.source.token())
    newer = bench.cache.current()
    assert newer is not None
    await bench.clock.settle()
    assert bench.source.running == 0
    assert bench.cache.current() is newer


@pytest.mark.parametrize(
    ("error", "state"),
    [(CredentialRefused, "refused"), (TokenMalformed, "malformed"), (TokenEndpointRejected, "unavailable")],
)
async def test_a_definite_failure_that_comes_late_is_believed(error: type[TokenError], state: str) -> None:
    bench = Bench()
    await bench.revoked()
    (app,) = await bench.apps(1)
    await bench.clock.advance(3)
    await bench.source.settle(error(reason="HTTP 400"), oldest=True)
    assert type(app.exception()) is error
    assert bench.cache.status("acme").state == state
    assert bench.source.running == 0
    assert bench.cache.status("acme").next_attempt_in is not None


async def test_what_comes_late_is_used_when_the_next_attempt_has_failed() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(2.5)
    assert bench.source.running == 2
    await bench.source.settle(TokenUnavailable(reason="HTTP 503"))
    assert bench.source.running == 1
    await bench.source.settle(bench.source.token(), oldest=True)
    assert bench.cache.current() is not None
    assert bench.cache.status("acme").reason is None


async def test_a_defect_in_a_fetch_that_ends_late_is_logged_and_the_next_attempt_goes_on() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(2.5)
    with capture_logs() as logs:
        await bench.source.settle(ZeroDivisionError("CANARY"), oldest=True)  # type: ignore[arg-type]
    assert [event["event"] for event in logs] == ["token_fetch_crashed"]
    assert bench.source.running == 1
    await bench.source.settle(bench.source.token())
    assert bench.cache.current() is not None


async def test_a_time_out_that_comes_late_is_told_once() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(9.9)
    failures = bench.cache.status("acme").consecutive_failures
    before = bench.source.count
    await bench.clock.advance(0.2)
    assert bench.cache.status("acme").consecutive_failures == failures
    assert bench.source.count == before


async def test_a_late_fetch_ends_with_its_cache() -> None:
    bench = Bench()
    await bench.revoked()
    await bench.clock.advance(3)
    assert bench.source.running == 2
    assert len(bench.cache.close()) == 2
    await bench.clock.settle()
    assert bench.source.running == 0


async def test_the_secret_of_what_came_late_is_the_one_that_works() -> None:
    bench = Bench(sources=2)
    await bench.revoked()
    old, new = bench.sources
    await bench.clock.advance(2.5)
    await old.settle(CredentialRefused(reason="HTTP 401"))
    await bench.clock.settle()
    assert new.running == 1
    await old.settle(old.token(), oldest=True)
    assert bench.cache.status("acme").secret == "current"
    assert (old.running, new.running) == (0, 0)


async def test_somebody_who_asks_for_a_fetch_by_hand_is_told_of_one_that_is_late() -> None:
    bench = Bench()
    await bench.revoked()
    asked = asyncio.ensure_future(bench.cache.fetch_now())
    await bench.clock.advance(5.1)
    with pytest.raises(TokenUnavailable):
        await asked
