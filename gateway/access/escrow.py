"""Budgets as escrow: what one instance may spend of one budget in one period, and what it requests from the store.

The store keeps one number for each instance: the calls that were granted to it, including those already made. The sum
of these numbers never exceeds the hard limit. This instance compares its calls with its own number in memory, and
requests more when half of the last chunk is used. Pure: no I/O, no clock.
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
"""The hard limit divided by this is the largest chunk, and the most that all first chunks together take."""
FEWEST: Final = 4
"""First chunks are sized for at least this many instances."""
SPARE: Final = 2 * 86_400.0
"""Seconds for which the store keeps a period after its end, for instances with a slow clock."""


class Escrow:
    """One budget in one period, as this instance knows it."""

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
        """Calls granted to this instance by the store, as last known."""
        self.stranded = 0
        """Granted calls that may have been made just before a crash, so they count as made."""
        self.is_unsure = False
        """Set after a crash, until the store has said how many calls were granted."""
        self.fields: dict[str, Field] = {}
        """The other instances' fields, as last known."""
        self.others_used = 0
        """Calls that the other instances have made, as last known."""
        self.chunk = 0
        """Calls in the last grant beyond those that were made or in flight then."""
        self.is_spent = False
        """The last reply granted less than wanted, and no call is left: the other instances have the rest."""
        self.is_unanswered = False
        """The last request got no reply."""
        self.asked: Task[None] | None = None
        """The running request that a call waits for."""
        self.asked_at = float("-inf")
        """When the last request was sent; monotonic."""
        self.said: tuple[int, int, bool] | None = None
        """What the store knows of us: granted, used, whether the soft limit was logged. None: nothing yet."""

    def __repr__(self) -> str:
        return f"<Escrow of {self.counter.key}: {self.calls} of {self.granted} granted>"

    @property
    def used(self) -> int:
        """Calls that this instance has made."""
        return self.counter.used - self.others_used

    @property
    def calls(self) -> int:
        """Calls of this instance that use up its grant: made, in flight and stranded."""
        return self.used + self.counter.reserved + self.stranded

    @property
    def has_room(self) -> bool:
        """Whether another call is granted."""
        return self.calls < self.granted

    # ------------------------------------------------------------------------------------------------------- bounds

    def bound(self, *, away: bool, allowance: int, waits: bool) -> None:
        """Set the number of calls (`counter.most`) at which `CounterStore.more` is called.

        Args:
            away: whether the store does not answer now.
            allowance: this instance's part of `outage_allowance`, the calls allowed beyond the grant meanwhile.
            waits: whether a request now is useless, because one is running or the budget is spent.
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

    # ----------------------------------------------------------------------------------------------------- requests

    def wanted(self, members: int, *, first: bool = False) -> int:
        """Return how many calls to request: few at first and near the end, at most a sixteenth of the hard limit.

        `first`: the request is sent before any call is made; then 0 if the budget is too small.
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
        """Return the request for the store.

        Args:
            field: this instance's field.
            wall: seconds since the epoch.
            want: how many more calls to request.
            back: write back the other instances' fields, too, because the store has lost some.
        """
        hard = None if self.terms.hard == UNLIMITED else self.terms.hard
        mine = Field(self.granted, self.used)
        life = max(self.terms.ends - wall, 0.0) + SPARE
        known = self.fields if back else None
        return EscrowRequest(self.counter.key, field, self.calls, mine, want, hard, life, self.counter.warned, known)

    def learn(self, asked: EscrowRequest, answer: EscrowReply) -> bool:
        """Take a reply; return whether the store has lost fields, so that they must be written back."""
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
