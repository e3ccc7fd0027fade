"""What a whole set of credentials does with a shared store. Imported only if there is one.

Reads all credentials again every few seconds, in one pipeline, so that no news is missed for long: the store's channel
is quicker, but nothing depends on it. Decides at the end whether tokens may be revoked.
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
"""Seconds between two readings of all credentials."""


class Sharing:
    """The part of a `TokenSet` that knows the store."""

    def __init__(self, shared: SharedTokens, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._due = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._listening: list[Callable[[], None]] = []

    def cache(self, recipe: Recipe, **settings: Any) -> SharedTokenCache:
        """Return a cache for a recipe; `settings` as of `TokenCache`."""
        return SharedTokenCache(recipe, shared=self._shared, **settings)

    def start(self, caches: Callable[[], Iterable[TokenCache]]) -> None:
        """Read the credentials of `caches()` now, every few seconds, and when the store is back or has lost data."""
        self._listening = [self._shared.on_change(self._changed), self._shared.on_loss(self._due.set)]
        self._reading = asyncio.get_running_loop().create_task(self._read_for_ever(caches), name="shared tokens")

    def listen(self, caches: Iterable[TokenCache]) -> None:
        """Listen again, because a reload may have changed the names of keys."""
        for cache in caches:
            if isinstance(cache, SharedTokenCache):
                cache.listen()

    def stop(self) -> None:
        """Read no more."""
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
        """Let each cache consider what the store knows."""
        asked = [cache.known for cache in caches]
        try:
            readings = await self._shared.read([each for known in asked for each in known])
        except StoreAway:
            return
        for cache, known in zip(caches, asked, strict=True):
            mine, readings = readings[: len(known)], readings[len(known) :]
            cache.heed(mine)

    async def is_last(self, *, hand_over: bool) -> bool:
        """Leave the other instances; return whether there are none, so that tokens may be revoked.

        `hand_over`: a successor serves already, with the same tokens.
        """
        if hand_over:
            return False
        try:
            return await self._shared.leave() == 0
        except StoreAway:
            return self._shared.members <= 1

    async def withdraw(self, key: str, token: Token) -> None:
        """Remove a token that is about to be revoked, so that no instance that starts now adopts it."""
        with suppress(StoreAway):
            await self._shared.withdraw(key, token.generation)
