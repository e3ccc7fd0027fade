"""The secrets of one credential: which one the next fetch uses, and which one worked last.

There are two secrets during a rotation (`next:`), else one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import CredentialRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Token
    from gateway.tokens.source import Source


class Fetched(NamedTuple):
    """A token, and the index of the secret that fetched it."""

    token: Token
    which: int


class Rotation:
    """The sources of a credential, the current secret first."""

    def __init__(self, sources: Sequence[Source], keys: Sequence[str]) -> None:
        self.working = 0
        """Index of the secret that worked last."""
        self._sources = sources
        self._keys = keys
        self._next = self._used = 0

    @property
    def key(self) -> str:
        """The key in the store for tokens of the secret that worked last."""
        return self._keys[self.working]

    @property
    def skew(self) -> float | None:
        """Vendor's clock minus ours in seconds, as last measured."""
        return self._sources[self._used].skew

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one secret."""
        return len(self._sources) > 1

    def begin_with(self, which: int) -> None:
        """Use the secret `which` first, because it has worked."""
        self.working = self._next = self._used = which

    async def fetch(self, within: float, *, both_refused: bool) -> Fetched:
        """Fetch with the secret that worked last; if it is rejected, at once with the other one, if there is one.

        After both were rejected (`both_refused`), each fetch uses one of them in turn. Raises what the source raises.
        """
        first = self._used = self._next
        try:
            return Fetched(await self._sources[first].fetch(within), first)
        except CredentialRefused:
            self._next = (first + 1) % len(self._sources)
            if self._next == first or both_refused:
                raise
        second = self._used = self._next
        try:
            return Fetched(await self._sources[second].fetch(within), second)
        except CredentialRefused:
            self._next = first
            raise

    def confirm(self, which: int) -> bool:
        """Record that the secret `which` works; return whether another one worked before."""
        changed, self.working = which != self.working, which
        self._next = which
        return changed
