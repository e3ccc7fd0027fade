"""Two secrets of one credential during a rotation: which is asked with, and which one works.

Outside a rotation there is only one, and nothing to choose. Knows sources, but neither when to fetch nor what becomes
of the token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Token
    from gateway.tokens.source import Source


class Rotation:
    """The sources of a credential, today's secret first."""

    def __init__(self, sources: Sequence[Source], keys: Sequence[str]) -> None:
        self.works = 0
        """Index of the secret that worked last."""
        self._sources = sources
        self._keys = keys
        self._ask = self._asked = 0

    @property
    def key(self) -> str:
        """The store's key for tokens of the secret that worked last."""
        return self._keys[self.works]

    @property
    def skew(self) -> float | None:
        """Vendor's clock minus ours, as last measured, by a request that went well or not."""
        return self._sources[self._asked].skew

    @property
    def choice(self) -> bool:
        """Whether there is more than one secret."""
        return len(self._sources) > 1

    def settle(self, which: int) -> None:
        """Begin with a secret that is known to have worked."""
        self.works = self._ask = self._asked = which

    async def fetch(self, within: float, *, both_refused: bool) -> Token:
        """Ask with the secret that worked; when it is refused, at once with the other one, if there is one.

        Once both were refused (`both_refused`), each probe asks with one of them in turn. Raises what the source does.
        """
        first = self._asked = self._ask
        try:
            return await self._sources[first].fetch(within)
        except CredentialRefused:
            self._ask = (first + 1) % len(self._sources)
            if self._ask == first or both_refused:
                raise
        self._asked = self._ask
        try:
            return await self._sources[self._ask].fetch(within)
        except CredentialRefused:
            self._ask = first
            raise

    def worked(self) -> bool:
        """The secret that was asked with brought a token: return whether it is another one than before."""
        changed, self.works = self._ask != self.works, self._ask
        return changed
