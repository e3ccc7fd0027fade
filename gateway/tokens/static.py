"""A key that never expires, with the same protocol as every other credential.

Nothing is fetched or refreshed. If the vendor rejects the key, the app gets the vendor's answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.model import CredentialStatus, Token

if TYPE_CHECKING:
    from gateway.model import Secret


class StaticTokens:
    """`model.Tokens` for a credential with a static key."""

    __slots__ = ("_token", "name")

    def __init__(self, name: str, key: Secret) -> None:
        self.name = name
        self._token = Token(
            value=key,
            credential=name,
            fetched_at=0.0,
            expires_at=math.inf,
            expiry_source="static",
            fingerprint=key.fingerprint,
            generation=1,
        )

    def current(self) -> Token:
        """Return the key."""
        return self._token

    def peek(self) -> Token:
        """Return the key."""
        return self._token

    async def get(self) -> Token:
        """Return the key."""
        return self._token

    def accepted(self, token: Token) -> None:
        """Do nothing."""

    async def refused(self, token: Token) -> Token | None:
        """Return the configured key if `token` is an older one from before a reload; else None."""
        return None if token.value == self._token.value else self._token

    def discard(self, token: Token) -> None:
        """Do nothing: a configured key is never dropped."""

    def status(self) -> CredentialStatus:
        """Return the state, which is always `static`."""
        return CredentialStatus(
            name=self.name,
            state="static",
            tried=True,
            fingerprint=self._token.fingerprint,
            generation=1,
            expiry_source="static",
        )
