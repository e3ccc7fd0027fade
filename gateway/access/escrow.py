"""Budgets as escrow: what one instance may spend of one budget in one period, and what it asks the store for.

The store keeps one number for each instance: how many calls it was granted, those already made included. The sum of the
numbers never exceeds the hard limit. This instance compares its own calls with its own number, in memory, and asks for
more when half of the last grant is used. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.access.counters import UNLIMITED
from gateway.model import NOTHING, EscrowRequest, Field

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Mapping

    from gateway.access.counters import Counter, Terms
    from gateway.model import EscrowReply

SHARES: Final = 16
"""A chunk is at most the hard limit divided by this, and so are the first chunks of all instances together."""
FEWEST: Final = 4
"""Instances for which the first chunks leave room, if there are fewer."""
SPARE: Final = 2 * 86_400.0
"""Seconds for which the store keeps a period after its end, for instances with a slow clock."""


class Escrow:
    """One budget and period, as this instance knows it."""

    __slots__ = (
        "asked",
        "asked_at",
        "chunk",
        "counter",
        "fields",
        "granted",
        "is_spent",
        "is_unanswered",
        "is_unsure",
        "others_used",
        "said",
        "stranded",
        "terms",
    )

    def __init__(self, counter: Counter, terms: Terms) -> None:
        self.counter = counter
        self.terms = terms
        self.granted = 0
        """Our number in the store, as last known."""
        self.stranded = 0
        """Calls that were granted, but perhaps made before a crash: they are not made again."""
        self.is_unsure = False
        """After a crash, until the store has said what our number was."""
        self.fields: dict[str, Field] = {}
        """The other instances' fields, as last known."""
        self.others_used = 0
        self.chunk = 0
        """What was granted last, beyond the calls of that moment."""
        self.is_spent = False
        """The last answer left no room: the others have the rest."""
        self.is_unanswered = False
        """The last question got no answer."""
        self.asked: Task[None] | None = None
        self.asked_at = float("-inf")
        self.said: tuple[int, int, bool] | None = None
        """What the store knows: our numbers, and whether the soft limit was logged; None: nothing yet."""

    def __repr__(self) -> str:
        return f"<Escrow of {self.counter.key}: {self.calls} of {self.granted} granted>"

    @property
    def used(self) -> int:
        """Calls that this instance has made."""
        return self.counter.used - self.others_used

    @property
    def calls(self) -> int:
        """Calls of this instance that its number must cover."""
        return self.used + self.counter.reserved + self.stranded

    @property
    def has_room(self) -> bool:
        """Whether another call is covered."""
        return self.calls < self.granted

    # ------------------------------------------------------------------------------------------------------- bounds

    def bound(self, *, away: bool, allowance: int, waits: bool) -> None:
        """Set at how many calls the counter must ask again.

        Args:
            away: the store does not answer at present.
            allowance: this instance's part of the calls that are allowed beyond the grant meanwhile.
            waits: asking now is pointless, because a question runs or the budget is spent.
        """
        hard = self.terms.hard
        if hard == UNLIMITED:
            self.counter.most = UNLIMITED
            return
        granted = self.granted - self.stranded
        if away:
            self.counter.most = min(granted + allowance + self.others_used, hard + allowance)
        else:
            early = 0 if waits else self.chunk // 2
            self.counter.most = min(granted - early + self.others_used, hard)

    # ----------------------------------------------------------------------------------------------------- questions

    def wanted(self, members: int, *, first: bool = False) -> int:
        """Return how many calls to ask for. Few at first and near the end, never more than a sixteenth of the budget.

        `first`: in advance, before a call is made; 0 if the budget is too small for that.
        """
        hard = self.terms.hard
        if hard == UNLIMITED or self.is_unsure:
            return 0
        start = hard // (SHARES * max(members, FEWEST))
        if first:
            return start
        left = hard - self.granted - sum(field.granted for field in self.fields.values())
        return max(1, min(hard // SHARES, left // (2 * members), max(start, self.calls)))

    def request(self, field: str, wall: float, want: int, *, back: bool = False) -> EscrowRequest:
        """Return the question for the store.

        Args:
            field: our field.
            wall: seconds since the epoch.
            want: how many calls more to ask for.
            back: write back all that is remembered, because the store has lost something.
        """
        hard = None if self.terms.hard == UNLIMITED else self.terms.hard
        mine = Field(self.granted, self.used)
        life = max(self.terms.ends - wall, 0.0) + SPARE
        known = self.fields if back else None
        return EscrowRequest(self.counter.key, field, self.calls, mine, want, hard, life, self.counter.warned, known)

    def learn(self, asked: EscrowRequest, answer: EscrowReply) -> bool:
        """Take an answer; return whether the store has lost something, so that all of it must be written back."""
        counter = self.counter
        lost = asked.back is None and (answer.before < asked.mine.granted or self._is_missing(answer.fields))
        self.granted = max(self.granted, answer.granted)
        if self.is_unsure:
            self.is_unsure = False
            counted = max(0, answer.fields.get(asked.field, NOTHING).used - asked.mine.used)
            counter.used += counted
            self.stranded += max(0, answer.before - asked.mine.granted) - counted
        elif asked.want and not lost:
            self.chunk = max(0, answer.granted - asked.calls)
        for name, field in answer.fields.items():
            if name != asked.field:
                known = self.fields.get(name, NOTHING)
                self.fields[name] = Field(max(field.granted, known.granted), max(field.used, known.used))
        used = sum(field.used for field in self.fields.values())
        counter.used += used - self.others_used
        self.others_used = used
        counter.warned = counter.warned or answer.warned
        self.said = answer.granted, asked.mine.used, answer.warned or asked.warned
        self.is_unanswered = False
        if asked.want and not lost:
            self.is_spent = answer.granted < asked.calls + asked.want and not self.has_room
        return lost

    def _is_missing(self, fields: Mapping[str, Field]) -> bool:
        return any(fields.get(name, NOTHING).granted < known.granted for name, known in self.fields.items())
