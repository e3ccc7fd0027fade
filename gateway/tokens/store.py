"""Tokens in memory, each until its own expiry, so that they outlive the caches that a reload replaces.

The key is the recipe's hash (`key.py`), so a token is only used by the recipe that fetched it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cachetools import TLRUCache

if TYPE_CHECKING:
    from gateway.model import Clock, Token

_MOST = 4096
"""Bound on the number of tokens; no configuration has as many credentials."""


class Store(Protocol):
    """Keeps tokens. A protocol, so that several gateways may one day share a store."""

    def get(self, key: str) -> Token | None:
        """Return the token under `key` if it is valid."""

    def put(self, key: str, token: Token) -> None:
        """Keep `token` until its expiry."""

    def remove(self, key: str, token: Token) -> None:
        """Remove `token`; a newer one under the same key stays."""


class MemoryStore:
    """Tokens in this process, removed at their own expiry."""

    def __init__(self, clock: Clock) -> None:
        self._tokens: TLRUCache[str, Token] = TLRUCache(
            maxsize=_MOST, ttu=lambda _key, token, _now: token.expires_at, timer=clock.monotonic
        )

    def get(self, key: str) -> Token | None:
        """Return the token under `key` if it is valid."""
        return self._tokens.get(key)

    def put(self, key: str, token: Token) -> None:
        """Keep `token` until its expiry. An expired token only removes its predecessor."""
        self._tokens.pop(key, None)  # TLRUCache ignores an expired value, which would leave the older one in place
        self._tokens[key] = token

    def remove(self, key: str, token: Token) -> None:
        """Remove `token`; a newer one under the same key stays."""
        if self._tokens.get(key) is token:
            self._tokens.pop(key, None)  # not `del`: an item that expires in between would raise KeyError
