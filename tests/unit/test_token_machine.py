"""Whatever happens in whatever order, the cache keeps its promises: a state machine looks for an order that breaks one.

The promises: an expired token is never handed out, there are never two fetches at once, no fetch is started without a
cause, every waiter is answered, and a generation never goes down.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.tokens.pace import LEAST_TIMEOUT
from tests.kit.clock import FakeClock
from tests.kit.source import HandSource, cache

if TYPE_CHECKING:
    from gateway.model import Token
    from gateway.tokens.cache import TokenCache

TIMEOUT = 5.0
FETCH_LIMIT = 10.0
LIVES = st.sampled_from([0.0, 0.5, 3.0, 60.0, 600.0])
ERRORS = st.sampled_from([TokenUnavailable, TokenMalformed, CredentialRefused])


class CacheMachine(RuleBasedStateMachine):
    """Gets, expiries, failures, refusals of old and new tokens, cancellations and rotations in any order."""

    tokens = Bundle("tokens")
    waiters = Bundle("waiters")

    @initialize(
        grants=st.integers(1, 2), warm=st.sampled_from(["always", "used", "never"]), gap=st.sampled_from([0.0, 6.0])
    )
    def begin(self, grants: int, warm: str, gap: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.settings: dict[str, Any] = {"keep_warm": warm, "min_interval": gap, "timeout": FETCH_LIMIT}
        self.gap = gap
        self.source = HandSource(self.clock, limited=True)  # of both secrets
        self.grants = grants
        self.cache = self.make()
        self.tasks: list[tuple[asyncio.Task[Any], float]] = []
        self.generation = 0
        self.rotated_at = -1.0
        self.begin_cache("startup")

    def make(self) -> TokenCache:
        return cache(self.clock, *[self.source] * self.grants, token_timeout=TIMEOUT, **self.settings)

    def begin_cache(self, cause: Any) -> None:
        async def begin() -> None:
            self.cache.begin(cause)
            await self.clock.settle()

        self.run(begin())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        self.run(self.clock.settle())

    def task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(coroutine)
        self.tasks.append((task, self.clock.monotonic()))
        self.settle()
        return task

    # ----------------------------------------------------------------------------------------------------------- rules

    @rule(target=tokens)
    def look(self) -> Token | None:
        return self.cache.current()

    @rule(target=waiters)
    def get(self) -> asyncio.Task[Any]:
        """Starts a fetch only when there is no valid token."""
        started, token = self.source.count, self.cache.current()
        task = self.task(self.cache.get())
        assert self.source.count <= started + (token is None)
        return task

    @rule(waiter=consumes(waiters))
    def cancel(self, waiter: asyncio.Task[Any]) -> None:
        started = self.source.count
        waiter.cancel()
        self.settle()
        assert self.source.count == started

    @rule(life=LIVES, again=st.booleans(), oldest=st.booleans())
    def succeed(self, life: float, again: bool, oldest: bool) -> None:
        if self.source.running:
            last = self.cache._last
            value = last.value.reveal() if again and last is not None else None
            self.run(self.source.settle(self.source.token(life, value), oldest=oldest))

    @rule(error=ERRORS, wish=st.sampled_from([None, 0.0, 30.0]), oldest=st.booleans())
    def fail(self, error: type[TokenError], wish: float | None, oldest: bool) -> None:
        if self.source.running:
            self.run(self.source.settle(error(reason="by hand", retry_after=wish), oldest=oldest))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @rule(token=tokens)
    def accept(self, token: Token | None) -> None:
        if token is not None:
            self.cache.accepted(token)

    @rule(token=tokens)
    def refuse(self, token: Token | None) -> None:
        if token is not None:
            started, current = self.source.count, self.cache.current()
            self.task(self.cache.refused(token))
            old = current is not None and current.value != token.value
            assert self.source.count <= started + (not old)

    @rule(token=tokens)
    def discard(self, token: Token | None) -> None:
        if token is not None:
            before, started = self.cache.current(), self.source.count
            self.run(self._discard(token))
            if before is not None and before.value != token.value:
                assert self.cache.current() is before  # a newer token is never harmed by an older one's refusal
                assert self.source.count == started

    async def _discard(self, token: Token) -> None:
        self.cache.discard(token)
        await self.clock.settle()

    @rule(keep=st.booleans())
    def rotate(self, keep: bool) -> None:
        old, self.cache = self.cache, self.make()
        self.cache.continue_from(old)
        token = old.peek()
        if keep and token is not None:
            self.cache.adopt(token, rotated=True)
        self.run(self._hand_over(old))

    async def _hand_over(self, old: TokenCache) -> None:
        old.close(self.cache)
        self.rotated_at = self.clock.monotonic()
        self.cache.begin("rotated")
        await self.clock.settle()

    # ------------------------------------------------------------------------------------------------------ invariants

    @invariant()
    def an_expired_token_is_never_handed_out(self) -> None:
        token = self.cache.current()
        assert token is None or token.expires_at > self.clock.monotonic()

    @invariant()
    def beside_a_fetch_there_is_only_one_that_outlasted_its_time_out(self) -> None:
        assert self.source.most_running <= 2
        if self.source.running == 2:
            late, fetch = self.source.since
            assert fetch - late >= LEAST_TIMEOUT

    @invariant()
    def a_generation_never_goes_down(self) -> None:
        token = self.cache.current()
        if token is not None:
            assert token.generation >= self.generation
            self.generation = token.generation

    @invariant()
    def the_least_interval_is_kept(self) -> None:
        """But for a changed secret and for the second of two, which are tried at once."""
        since = [at for at in self.source.started if at > self.rotated_at]
        if self.grants == 1:
            rounding = 1e-6  # of large instants: 1012.1 - 1006.1 is less than 6
            assert all(later - earlier >= self.gap - rounding for earlier, later in itertools.pairwise(since))

    @invariant()
    def every_waiter_is_answered_by_its_deadline(self) -> None:
        now, still = self.clock.monotonic(), []
        for task, since in self.tasks:
            if task.done():
                self.check(task)
            else:
                assert now < since + TIMEOUT
                still.append((task, since))
        self.tasks = still

    @staticmethod
    def check(task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        assert error is None or isinstance(error, TokenError), repr(error)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.run(self.clock.advance(TIMEOUT))
        self.every_waiter_is_answered_by_its_deadline()
        assert not self.tasks
        self.cache.close()
        self.settle()
        self.loop.close()


CacheMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCacheMachine = CacheMachine.TestCase
