"""A source of tokens without a socket: for tests of the cache, whose subject is when to fetch and not how.

Every fetch waits until the test says what comes of it, unless `answer` says it at once. It counts how many fetches ran
at the same time, which must never be more than one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.model import Credential, Secret, Token
from gateway.observe import Metrics
from gateway.tokens.cache import TokenCache
from gateway.tokens.source import Recipe
from gateway.tokens.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gateway.errors import TokenError
    from tests.kit.clock import FakeClock


class HandSource:
    """`Source` by hand."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.skew: float | None = None
        self.started: list[float] = []
        """Instants at which fetches began."""
        self.limits: list[float] = []
        """The time-outs that they were given."""
        self.running = self.most_running = 0
        self.issued = 0
        self.answer: Callable[[], Token | TokenError] | None = None
        self.latency = 0.0
        self._pending: asyncio.Future[Token | TokenError] | None = None

    async def fetch(self, within: float) -> Token:
        self.started.append(self.clock.monotonic())
        self.limits.append(within)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        sent_at = self.clock.monotonic()
        try:
            if self.answer is None:
                self._pending = asyncio.get_running_loop().create_future()
                outcome = await self._pending
            else:
                if self.latency:
                    await self.clock.sleep(self.latency)
                outcome = self.answer()
        finally:
            self.running -= 1
            self._pending = None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if outcome.fetched_at else self._sent(outcome, sent_at)

    @staticmethod
    def _sent(token: Token, sent_at: float) -> Token:
        return Token(
            token.value, token.credential, sent_at, sent_at + token.expires_at, token.expiry_source, token.fingerprint
        )

    def token(self, life: float = 3600.0, value: str | None = None, source: str = "in") -> Token:
        """A token that counts its `life` from when its fetch began."""
        if value is None:
            self.issued += 1
            value = f"CANARY-token-{self.issued}"
        secret = Secret(value)
        return Token(secret, "acme", 0.0, life, source, secret.fingerprint)  # type: ignore[arg-type]

    async def settle(self, outcome: Token | TokenError) -> None:
        """End the fetch under way."""
        assert self._pending is not None, "no fetch is under way"
        self._pending.set_result(outcome)
        await self.clock.settle()

    @property
    def count(self) -> int:
        return len(self.started)


def cache(
    clock: FakeClock, *sources: HandSource, token_timeout: float = 5.0, metrics: Metrics | None = None, **settings: Any
) -> TokenCache:
    """A cache over sources by hand."""
    recipe = Recipe(Credential(**({"name": "acme"} | settings)), sources, [f"key-{n}" for n in range(len(sources))])
    return TokenCache(
        recipe,
        clock=clock,
        metrics=(metrics or Metrics(wall=clock.wall)).credential("acme"),
        store=MemoryStore(clock),
        token_timeout=token_timeout,
    )
