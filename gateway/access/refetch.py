"""The error that makes a request wait for an issuer's keys; a module without PyJWT, for the data plane."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import IdentityUnavailable


class RefetchableKeys(Protocol):
    """An issuer's keys that can be fetched again."""

    async def refetch(self) -> None:
        """Fetch the keys, or wait for the running fetch. Never raises for a failed fetch."""


class SigningKeysNeeded(IdentityUnavailable):
    """A JWT names a key that is not known: call `keys.refetch` once, then authenticate again."""

    def __init__(self, keys: RefetchableKeys) -> None:
        super().__init__(reason="a JWT with a key that is being fetched", retry_after=1.0)
        self.keys = keys
