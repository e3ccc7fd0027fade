"""A token in hand, how its credential stands, and `Tokens`: all that the data plane knows of either."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from gateway.model.secret import Secret

ExpirySource = Literal["in", "in_ms", "at", "jwt", "after", "fallback", "static"]


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token in hand. Compared by identity: a vendor may issue the same string twice with another life."""

    value: Secret
    credential: str
    fetched_at: float
    """Monotonic instant just before the token request left; life counts from here."""
    expires_at: float
    """Monotonic instant; `inf` for a static key."""
    expiry_source: ExpirySource
    fingerprint: str = field(default="", compare=False)
    generation: int = 0
    """Counts up with every token of this credential; a lower one never replaces a higher one."""

    @property
    def life(self) -> float:
        """Seconds granted, from `fetched_at`."""
        return self.expires_at - self.fetched_at


class Tokens(Protocol):
    """All that the data plane knows of a credential: one object per credential, static keys included.

    The seam for workers and replicas: nothing above asks for the cache itself.
    """

    def current(self) -> Token | None:
        """Return the token in memory if it is still valid now. Synchronous; the hot path."""

    async def get(self) -> Token:
        """Return a valid token, waiting for the one shared fetch if there is none.

        Raises TokenUnavailable, CredentialRefused or TokenMalformed; never waits longer than `token_timeout`.
        """

    def accepted(self, token: Token) -> None:
        """The vendor answered a request that carried `token` with something other than a refusal of it."""

    async def refused(self, token: Token) -> Token | None:
        """The vendor refused `token` although it should live.

        Returns the token to send the request again with, once; None when sending again cannot help (a forced fetch
        is not allowed yet, failed, or the credential is static). The refused token is gone from the cache when this
        returns *and* when the caller is cancelled while waiting; only while no forced fetch is allowed does it stay in
        use, being the best there is, so that the vendor's own answer goes to the app.
        """

    def discard(self, token: Token) -> None:
        """As `refused`, for an exchange that cannot be sent again: invalidate and fetch in the background."""


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """How one credential stands, for people: the admin port, `check`, the status page. Holds no secret."""

    name: str
    state: Literal["valid", "static", "idle", "pending", "unavailable", "refused", "malformed"]
    """`idle` was not asked for yet (`keep_warm: used|never`), `pending` is being fetched for the first time."""
    tried: bool
    """At least one fetch has ended, well or badly (always true for a static key)."""
    fingerprint: str | None = None
    generation: int = 0
    life: float | None = None
    """Seconds granted to the current token."""
    expires_in: float | None = None
    """Seconds that the current token still lives."""
    expiry_source: ExpirySource | None = None
    last_success: float | None = None
    """Wall-clock instant of the last good fetch."""
    last_failure: float | None = None
    reason: str | None = None
    """Why the last fetch failed, in words, when it did; None after a good one."""
    consecutive_failures: int = 0
    next_attempt_in: float | None = None
    skew: float | None = None
    """Vendor's clock minus ours, seconds, from the token endpoint's `Date`; shown, never used."""
    secret: Literal["current", "next"] = "current"
    """Which secret worked last, during a rotation."""
