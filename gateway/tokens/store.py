"""Where tokens live between caches: in memory, each until its own expiry.

A cache is made and dropped by every change of the configuration; a token that was paid for is not. The key is the
recipe's hash (`key.py`), so a token can only come back to the very recipe that fetched it. Knows no fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cachetools import TLRUCache

if TYPE_CHECKING:
    from gateway.model import Clock, Token

_MOST = 4096
"""More tokens than any configuration has credentials; only a bound."""


class Store(Protocol):
    """The seam for a store that replicas share."""

    def get(self, key: str) -> Token | None:
        """Return the token under `key` if it still lives."""

    def put(self, key: str, token: Token) -> None:
        """Keep `token` until its expiry."""

    def remove(self, key: str, token: Token) -> None:
        """Forget `token`, and only it: a newer one under the same key stays."""


class MemoryStore:
    """Tokens in this process, dropped at their own expiry."""

    def __init__(self, clock: Clock) -> None:
        self._tokens: TLRUCache[str, Token] = TLRUCache(
            maxsize=_MOST, ttu=lambda _key, token, _now: token.expires_at, timer=clock.monotonic
        )

    def get(self, key: str) -> Token | None:
        """Return the token under `key` if it still lives."""
        return self._tokens.get(key)

    def put(self, key: str, token: Token) -> None:
        """Keep `token` until its expiry. An expired one leaves nothing behind, not even its predecessor."""
        self._tokens.pop(key, None)  # TLRUCache ignores an expired value, which would leave the older one in place
        self._tokens[key] = token

    def remove(self, key: str, token: Token) -> None:
        """Forget `token`, and only it."""
        if self._tokens.get(key) is token:
            self._tokens.pop(key, None)  # not `del`: an item that expires in between would raise KeyError
