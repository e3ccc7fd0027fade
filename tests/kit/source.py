"""A source of tokens without a socket, for tests of the cache, which are about when to fetch and not how.

Every fetch waits until the test ends it, unless `answer` is set. It counts how many fetches run at the same time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.model import Credential, Secret, Token
from gateway.observe import Metrics
from gateway.tokens.cache import TokenCache
from gateway.tokens.failures import TokenEndpointTimeout
from gateway.tokens.source import Recipe
from gateway.tokens.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gateway.errors import TokenError
    from tests.kit.clock import FakeClock


class HandSource:
    """A `Source` that the test controls. `limited`: a fetch ends at its time-out, as a real one does."""

    def __init__(self, clock: FakeClock, *, limited: bool = False) -> None:
        self.clock = clock
        self.limited = limited
        self.skew: float | None = None
        self.started: list[float] = []
        """Instants at which fetches began."""
        self.limits: list[float] = []
        """The time-outs of those fetches."""
        self.most_running = 0
        self.issued = 0
        self.answer: Callable[[], Token | TokenError] | None = None
        self.latency = 0.0
        self.since: list[float] = []
        """Instants at which the running fetches began, oldest first."""
        self._pendings: list[asyncio.Future[Token | TokenError]] = []

    async def fetch(self, within: float) -> Token:
        sent_at = self.clock.monotonic()
        self.started.append(sent_at)
        self.limits.append(within)
        self.since.append(sent_at)
        self.most_running = max(self.most_running, self.running)
        try:
            outcome = await (self._told(within) if self.answer is None else self._answered(self.answer))
        finally:
            self.since.remove(sent_at)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if outcome.fetched_at else self._sent(outcome, sent_at)

    async def _answered(self, answer: Callable[[], Token | TokenError]) -> Token | TokenError:
        if self.latency:
            await self.clock.sleep(self.latency)
        return answer()

    async def _told(self, within: float) -> Token | TokenError:
        pending: asyncio.Future[Token | TokenError] = asyncio.get_running_loop().create_future()
        self._pendings.append(pending)
        timer = self.clock.call_later(within, lambda: self._expire(pending)) if self.limited else None
        try:
            return await pending
        finally:
            self._pendings.remove(pending)
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _expire(pending: asyncio.Future[Token | TokenError]) -> None:
        if not pending.done():
            pending.set_result(TokenEndpointTimeout(reason="time-out"))

    @property
    def running(self) -> int:
        """Return the number of running fetches."""
        return len(self.since)

    @property
    def _pending(self) -> asyncio.Future[Token | TokenError] | None:
        return self._pendings[-1] if self._pendings else None

    @staticmethod
    def _sent(token: Token, sent_at: float) -> Token:
        return Token(
            token.value, token.credential, sent_at, sent_at + token.expires_at, token.expiry_source, token.fingerprint
        )

    def token(self, life: float = 3600.0, value: str | None = None, source: str = "in") -> Token:
        """Return a token whose `life` counts from the beginning of its fetch."""
        if value is None:
            self.issued += 1
            value = f"CANARY-token-{self.issued}"
        secret = Secret(value)
        return Token(secret, "acme", 0.0, life, source, secret.fingerprint)  # type: ignore[arg-type]

    async def settle(self, outcome: Token | TokenError, *, oldest: bool = False) -> None:
        """End the newest running fetch, or the oldest."""
        assert self._pendings, "no fetch is under way"
        self._pendings[0 if oldest else -1].set_result(outcome)
        await self.clock.settle()

    @property
    def count(self) -> int:
        return len(self.started)


def cache(
    clock: FakeClock,
    *sources: HandSource,
    token_timeout: float = 5.0,
    metrics: Metrics | None = None,
    changed: Callable[[], object] = bool,
    **settings: Any,
) -> TokenCache:
    """Return a cache with sources that the test controls."""
    recipe = Recipe(Credential(**({"name": "acme"} | settings)), sources, [f"key-{n}" for n in range(len(sources))])
    return TokenCache(
        recipe,
        clock=clock,
        metrics=(metrics or Metrics(wall=clock.wall)).credential("acme"),
        store=MemoryStore(clock),
        token_timeout=token_timeout,
        changed=changed,
    )
