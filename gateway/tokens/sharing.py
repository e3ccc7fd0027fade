"""What a `TokenSet` does with a shared store. Imported only if the configuration has a `store` block.

Reads the tokens of all credentials every 10 seconds, in one pipeline, so that a change whose message was lost is
noticed. Decides when the gateway stops whether tokens may be revoked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.errors import StoreAway
from gateway.tokens.shared import SharedTokenCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model import Clock, SharedTokens, Token
    from gateway.tokens.cache import TokenCache
    from gateway.tokens.source import Recipe

INTERVAL = 10.0
"""Seconds between two reads of all credentials."""


class Sharing:
    """The part of a `TokenSet` that uses the store."""

    def __init__(self, shared: SharedTokens, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._due = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._listening: list[Callable[[], None]] = []

    def cache(self, recipe: Recipe, **settings: Any) -> SharedTokenCache:
        """Return a cache for a recipe; `settings` are the arguments of `TokenCache`."""
        return SharedTokenCache(recipe, shared=self._shared, **settings)

    def start(self, caches: Callable[[], Iterable[TokenCache]]) -> None:
        """Read the tokens of `caches()` now, every `INTERVAL`, and when the store is up again or has lost data."""
        self._listening = [self._shared.on_change(self._changed), self._shared.on_loss(self._due.set)]
        self._reading = asyncio.get_running_loop().create_task(self._read_for_ever(caches), name="shared tokens")

    def listen(self, caches: Iterable[TokenCache]) -> None:
        """Listen for changes again, because a reload may have changed the names of keys."""
        for cache in caches:
            if isinstance(cache, SharedTokenCache):
                cache.listen()

    def stop(self) -> None:
        """Stop reading the store."""
        for stop in self._listening:
            stop()
        self._listening = []
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _changed(self, is_up: bool) -> None:
        if is_up:
            self._due.set()

    async def _read_for_ever(self, caches: Callable[[], Iterable[TokenCache]]) -> None:
        while True:
            await self.read([each for each in caches() if isinstance(each, SharedTokenCache)])
            timer = self._clock.call_later(INTERVAL, self._due.set)
            await self._due.wait()
            timer.cancel()
            self._due.clear()

    async def read(self, caches: list[SharedTokenCache]) -> None:
        """Read the tokens of these caches, and let each compare itself with the store; skip that while it is away."""
        asked = [cache.known() for cache in caches]
        try:
            readings = await self._shared.read([each for known in asked for each in known])
        except StoreAway:
            return
        for cache, known in zip(caches, asked, strict=True):
            mine, readings = readings[: len(known)], readings[len(known) :]
            cache.heed(mine)

    async def is_last(self, *, hand_over: bool) -> bool:
        """Stop being a member of the store; return whether no other is left, so that tokens may be revoked.

        `hand_over`: a successor already serves with the same tokens, so nothing may be revoked.
        """
        if hand_over:
            return False
        try:
            return await self._shared.leave() == 0
        except StoreAway:
            return self._shared.members <= 1

    async def withdraw(self, key: str, token: Token) -> None:
        """Remove a token from the store before it is revoked, so that no instance that starts now adopts it."""
        with suppress(StoreAway):
            await self._shared.withdraw(key, token.generation)
