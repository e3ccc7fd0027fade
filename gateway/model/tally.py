"""`Tally`, the protocol for counts of all instances together, and the requests and replies of its escrow.

`gateway.store` implements it, `gateway.access` uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CountKey = tuple[str, str, str]
"""Client, route, period."""


class Field(NamedTuple):
    """One instance's numbers in the store for one budget and period. Neither ever falls."""

    granted: int
    """Calls that the instance may make in the period, including those already made."""
    used: int
    """Calls that it has made, as it last reported."""


NOTHING = Field(0, 0)


class EscrowRequest(NamedTuple):
    """One instance's request for calls of one budget in one period."""

    key: CountKey
    field: str
    """The instance's own field."""
    calls: int
    """Calls of this instance, including those in flight."""
    mine: Field
    """This instance's own field, as last known here."""
    want: int
    """How many calls beyond `calls` to grant; 0 only reports."""
    hard: int | None
    """The budget's hard limit for all instances together; None if it has only a soft one."""
    life: float
    """Seconds for which the store must keep the period."""
    warned: bool
    """Whether the soft limit was logged."""
    back: Mapping[str, Field] | None
    """The other instances' fields as known here, to be written back; None to grant nothing if our field is lost."""


class EscrowReply(NamedTuple):
    """The store's reply about one budget in one period."""

    granted: int
    """Calls granted to this instance after the request."""
    before: int
    """Calls granted to this instance before the request."""
    fields: Mapping[str, Field]
    """The fields of all instances, ours included, before the request."""
    warned: bool
    """Whether some instance has logged the soft limit."""


class Tally(Protocol):
    """The counts of all instances together."""

    instance: str
    """A random name of this process."""

    @property
    def is_up(self) -> bool:
        """Whether the store is up."""

    @property
    def part(self) -> tuple[int, int]:
        """The place of this instance among the live ones, from 0, and how many there are."""

    async def tried(self) -> None:
        """Wait until the first attempt to reach the store has succeeded or failed."""

    async def ask(self, questions: Sequence[EscrowRequest]) -> list[EscrowReply]:
        """Request grants for several budgets in one round trip; return a reply for each. Raises StoreAway."""

    async def report(self, day: str, field: str, used: Mapping[tuple[str, str], tuple[int, int]], life: float) -> None:
        """Store how often this instance was used on a day. Raises StoreAway.

        Args:
            day: as `2026-11-29`.
            field: this instance's field.
            used: calls and billed calls by client and route, counted from the beginning of the day.
            life: seconds for which the store keeps the day.
        """

    async def carry_over(self, days: Iterable[str]) -> None:
        """While `store.keys` are being replaced, give each day's usage the same numbers under every key's name.

        Raises StoreAway.
        """

    async def usage(self, days: Sequence[str], field: str) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Return calls and billed calls by client, route and day, of all instances but `field`. Raises StoreAway."""

    def on_doubt(self, check: Callable[[], None]) -> Callable[[], None]:
        """Call `check` when the store may have lost counts; return a function that stops it."""
