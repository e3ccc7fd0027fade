"""A token, the status of its credential, and `Tokens`, the protocol through which the data plane uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.secret import Secret

ExpirySource = Literal["in", "in_ms", "at", "jwt", "after", "fallback", "static"]


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token. Compared by identity, because a vendor may issue the same string twice with another lifetime."""

    value: Secret
    credential: str
    fetched_at: float
    """Monotonic instant just before the token request was sent; the lifetime begins here."""
    expires_at: float
    """Monotonic instant; `inf` for a static key."""
    expiry_source: ExpirySource
    fingerprint: str = field(default="", compare=False)
    generation: int = 0
    """Number of this token among those of its credential; a lower one never replaces a higher one."""
    by: str = ""
    """With a shared store: the instance that fetched it."""

    @property
    def life(self) -> float:
        """Return the granted lifetime in seconds, from `fetched_at`."""
        return self.expires_at - self.fetched_at


class Tokens(Protocol):
    """The tokens of one credential, static keys included, as the data plane sees them.

    The data plane never uses the token cache itself, so tokens could also come from another process.
    """

    def current(self) -> Token | None:
        """Return the token in memory if it is still valid, else None. Synchronous, because every request calls it."""

    async def get(self) -> Token:
        """Return a valid token; without one, wait for the shared fetch.

        Raises TokenUnavailable, CredentialRefused or TokenMalformed; never waits longer than `token_timeout`.
        """

    def accepted(self, token: Token) -> None:
        """Record that the vendor answered a request with `token` without refusing the token."""

    async def refused(self, token: Token) -> Token | None:
        """Record that the vendor refused `token` before its expiry, and return the token for one more attempt.

        Returns None when another attempt cannot help: a forced fetch is not allowed yet or failed, or the credential
        is static. The refused token is removed from the cache, even if the caller is cancelled while it waits. Only
        while no forced fetch is allowed does it stay in use, and the vendor's own answer goes to the app.
        """

    def discard(self, token: Token) -> None:
        """Invalidate `token` and fetch in the background, for an exchange that cannot be sent again."""


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """What an app presents in a token request. Has no useful `repr`, because it holds secrets."""

    secrets: tuple[bytes, ...]
    """Values that may be a gateway key or a JWT, in the order in which they are tried; none is empty."""
    scheme: Literal["Basic", "Bearer"]
    """The authentication scheme to name when none of them is known."""
    scope: str | None
    """The scope that was asked for."""


class AppTokenEndpoint(Protocol):
    """The token endpoint of a route's vendor, as an app sees it: requests are read, answers are written."""

    @property
    def method(self) -> str:
        """The method of a token request."""

    @property
    def paths(self) -> frozenset[str]:
        """Paths below the route's prefix, exactly as an app sends them."""

    def read(self, values: Callable[[bytes], list[str]], query: str, body: bytes) -> Presented:
        """Return what the app presents. Raises AppTokenRefused."""

    def answer(self, token: str, life: int, *, wall: float, scope: str | None = None) -> tuple[int, bytes]:
        """Return status and JSON body of a success; `life` in whole seconds, `wall` since the epoch."""


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """The status of one credential, for the admin port and `check`. Contains no secret."""

    name: str
    state: Literal["valid", "static", "idle", "pending", "unavailable", "refused", "malformed", "refused_by_vendor"]
    """`idle`: no request needed a token yet (`keep_warm: used|never`). `pending`: the first fetch is running.
    `refused`: the token endpoint refuses the credential. `refused_by_vendor`: there is a token, but the vendor's API
    refuses it; only the admin port shows it, because it sees the answers of all routes."""
    tried: bool
    """True when at least one fetch has ended, in success or failure; always true for a static key."""
    fingerprint: str | None = None
    generation: int = 0
    life: float | None = None
    """Granted lifetime of the current token, seconds."""
    expires_in: float | None = None
    """Remaining lifetime of the current token, seconds."""
    expiry_source: ExpirySource | None = None
    last_success: float | None = None
    """Wall-clock instant of the last successful fetch."""
    last_failure: float | None = None
    reason: str | None = None
    """Why the last fetch failed, in words; None if it succeeded."""
    consecutive_failures: int = 0
    next_attempt_in: float | None = None
    skew: float | None = None
    """Vendor's clock minus ours, seconds, from the token endpoint's `Date`."""
    secret: Literal["current", "next"] = "current"
    """Which secret worked last during a rotation."""
    origin: Literal["fetched", "adopted"] | None = None
    """With a shared store: whether this instance fetched the current token, or another one."""
    instance: str | None = None
    """With a shared store: the instance that fetched the current token."""
