"""A key that never expires, behind the same protocol as every other credential.

There is nothing to fetch and nothing to refresh, so a refusal cannot be helped: the vendor's own answer goes to
the app.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.model import CredentialStatus, Token

if TYPE_CHECKING:
    from gateway.model import Credential


class StaticTokens:
    """`model.Tokens` for a credential with a static key."""

    __slots__ = ("_token", "name")

    def __init__(self, credential: Credential) -> None:
        if credential.static is None:
            msg = f"credential {credential.name} has no static key"
            raise ValueError(msg)
        self.name = credential.name
        self._token = Token(
            value=credential.static,
            credential=credential.name,
            fetched_at=0.0,
            expires_at=math.inf,
            expiry_source="static",
            fingerprint=credential.static.fingerprint,
            generation=1,
        )

    def current(self) -> Token:
        """Return the key."""
        return self._token

    async def get(self) -> Token:
        """Return the key."""
        return self._token

    def accepted(self, token: Token) -> None:
        """Nothing is learnt from it."""

    async def refused(self, token: Token) -> Token | None:
        """Return the configured key when the refused one is from before a reload; None when it is the same."""
        return None if token.value == self._token.value else self._token

    def discard(self, token: Token) -> None:
        """A configured key is never dropped."""

    def status(self) -> CredentialStatus:
        """How it stands: always the same."""
        return CredentialStatus(
            name=self.name,
            state="static",
            tried=True,
            fingerprint=self._token.fingerprint,
            generation=1,
            expiry_source="static",
        )
