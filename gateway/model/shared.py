"""Tokens that several instances share: what the store answers, and `SharedTokens`, the protocol for asking it.

A *fence* is a token's number among all instances' tokens of one grant. It never falls, and it becomes
`Token.generation`. All waits are seconds; no instant of one machine is sent to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from gateway.model.token import Token

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence


FailureKind = Literal["unavailable", "refused", "malformed"]


@dataclass(frozen=True, slots=True)
class Lease:
    """This instance may send the token request now, and no other may."""

    fence: int
    """For the token that is fetched."""
    owner: str
    """Proves in later commands who has the lease."""
    failures: int
    """Failed token requests in a row, of all instances."""


@dataclass(frozen=True, slots=True)
class Held:
    """Another instance has the lease, for `wait` seconds unless it renews it."""

    wait: float


@dataclass(frozen=True, slots=True)
class NotYet:
    """No instance may send a token request for `wait` seconds."""

    wait: float
    failure: FailureKind | None
    """How the last token request failed; None if it succeeded."""


Turn = Token | Lease | Held | NotYet
"""Whose turn it is. That the store is away is not one of these, but an exception: `errors.StoreAway`."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an instance wants a turn for."""

    known: int
    """The highest fence that it knows of this grant; a stored token is wanted only above it."""
    floor: int
    """The new fence must be above this one."""
    min_interval: float
    ahead: bool
    """It has a valid token."""
    forced: bool
    """An operator asked for it, so no back-off applies."""


@dataclass(frozen=True, slots=True)
class Again:
    """When the next token requests after a failed one may start, in seconds from now."""

    hard: float
    """Whatever the cause."""
    eager: float
    """For an instance without a valid token."""
    calm: float
    """For an instance with one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store knows of one grant."""

    fence: int
    """Of the stored token; 0 if there is none."""
    dead: int
    """Fences up to this one were rejected by the vendor."""
    token: Token | None
    """The stored token, if its fence is above the one that is known, and if it can be decrypted. Its `credential` is
    empty, because instances may give it different names."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How often rejected tokens may be replaced before their expiry (see `tokens.pace.ForcedBudget`)."""

    size: int
    refill: float
    hold: float
    most: float


class SharedTokens(Protocol):
    """The store as token caches see it. Each method is one round trip, and raises `errors.StoreAway` without an answer.

    `key` is the hash of a grant with its secrets (`tokens.key.cache_key`).
    """

    instance: str
    """A random id of this process."""
    tried: asyncio.Event
    """Set when the first attempt to reach the store has ended."""

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted now."""

    @property
    def members(self) -> int:
        """Live instances as last known, at least 1."""

    @property
    def rank(self) -> int:
        """The place of this instance among them, from 0."""

    @property
    def lease(self) -> float:
        """Seconds after which a lease ends unless it is renewed."""

    def wall(self) -> float | None:
        """Return the store's clock, seconds since the epoch; None if the store has never answered."""

    async def acquire(self, key: str, demand: Demand) -> Turn:
        """Return a newer token, a lease, or how long to wait."""

    async def renew(self, key: str, owner: str) -> bool:
        """Renew a lease; return False if it has ended."""

    async def commit(self, key: str, owner: str, token: Token, again: float) -> Reading:
        """Store a token if its fence is above every dead and stored one, and end the lease.

        `again`: seconds until the next token request of an instance with this token. `Reading.token` is None.
        """

    async def fail(self, key: str, owner: str, failure: FailureKind | None, again: Again) -> bool:
        """End a lease without a token; `failure` is None if no request failed. Return False if it had ended already."""

    async def kill(self, key: str, fence: int, *, accepted: bool, longest: float, bucket: Bucket) -> bool:
        """Declare a token dead that the vendor rejected; return False if it must stay in use.

        It stays if the bucket is empty, or if no token request may start within `longest` seconds. `accepted`: the
        vendor had accepted this token here.
        """

    async def accept(self, key: str, fence: int, hold: float) -> None:
        """Record that the vendor accepted a token, for `kill`."""

    async def withdraw(self, key: str, fence: int) -> None:
        """Remove a token that is about to be revoked."""

    async def read(self, known: Sequence[tuple[str, int]]) -> list[Reading]:
        """Return what the store knows of each (key, known fence), in one pipeline."""

    async def leave(self) -> int:
        """Stop being a member; return how many members are left. `members` then stays as it was."""

    def listen(self, key: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when a grant's token may have changed in the store; return a function that stops it."""

    def on_change(self, changed: Callable[[bool], None]) -> Callable[[], None]:
        """Call `changed` with whether the store is up when that changes; return how to stop that."""

    def on_loss(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost` when the store may have lost data; return how to stop that."""
