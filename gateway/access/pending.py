"""The one thing that admitting may have to wait for. Apart from `tokens.py`, so that the data plane needs no PyJWT."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import IdentityUnavailable


class Keys(Protocol):
    """An issuer's keys that can be fetched again."""

    async def look(self) -> None:
        """Fetch them now, or wait for the fetch that runs; never raises for what happens to it."""


class SigningKeysNeeded(IdentityUnavailable):
    """A token names a key that we have not seen: look once, then judge again."""

    def __init__(self, keys: Keys) -> None:
        super().__init__(reason="a JWT under a key that is being fetched", retry_after=1.0)
        self.keys = keys
