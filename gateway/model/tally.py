"""What the counts of all instances together are asked for: `Tally`, and its questions and answers.

`gateway.store` has the implementation, `gateway.access` asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CountKey = tuple[str, str, str]
"""Client, route, period."""


class Field(NamedTuple):
    """What one instance has in the store for one budget and period. Neither number ever falls."""

    granted: int
    """Calls that the instance may make in the period, those made included."""
    used: int
    """Calls that it has made, as it last said."""


NOTHING = Field(0, 0)


class EscrowRequest(NamedTuple):
    """One instance's question about one budget in one period."""

    key: CountKey
    field: str
    """The instance's own field."""
    calls: int
    """Calls of this instance, those in flight included."""
    mine: Field
    """What this instance knows of its own field."""
    want: int
    """How many calls beyond `calls` should be granted; 0: none."""
    hard: int | None
    """The limit of the budget for all instances together."""
    life: float
    """Seconds for which the store must keep the answer."""
    warned: bool
    """Whether the soft limit was logged."""
    back: Mapping[str, Field] | None
    """What this instance remembers of the others, to be written back. None: grant nothing if our field is lost."""


class EscrowReply(NamedTuple):
    """What the store says of one budget in one period."""

    granted: int
    """Our own number after the question."""
    before: int
    """Our own number before the question."""
    fields: Mapping[str, Field]
    """All fields, ours included, before the question."""
    warned: bool
    """Whether some instance has logged the soft limit."""


class Tally(Protocol):
    """The counts of all instances together."""

    instance: str
    """A random name of this process."""

    @property
    def is_up(self) -> bool:
        """Whether it answers at present."""

    @property
    def part(self) -> tuple[int, int]:
        """The place of this instance among all, from 0, and how many there are."""

    async def tried(self) -> None:
        """Wait until the first attempt to reach it has ended, well or not."""

    async def ask(self, questions: Sequence[EscrowRequest]) -> list[EscrowReply]:
        """Ask in one round trip. Raises StoreAway."""

    async def report(self, day: str, field: str, used: Mapping[tuple[str, str], tuple[int, int]], life: float) -> None:
        """Note calls and billed calls of this instance on a day, by client and route. Raises StoreAway."""

    async def usage(self, days: Sequence[str], field: str) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Return calls and billed calls of the other instances, by client, route and day. Raises StoreAway."""

    def on_doubt(self, check: Callable[[], None]) -> Callable[[], None]:
        """Call `check` when the store may have lost something; return how to stop that."""
