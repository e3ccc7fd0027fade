"""Counts of all instances: a `CounterStore` that keeps budgets and usage in the shared store.

A call is compared with numbers in memory. Escrow requests are sent in the background; one that is lost needs no
repetition, because numbers are absolute and the next request has them, too. A call waits for a reply only if it is
beyond what this instance was granted and the store is up. Imported only if the configuration has a `store` block.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from gateway.access.counters import MemoryCounters
from gateway.access.escrow import Escrow
from gateway.access.fieldsfile import FieldsFile
from gateway.access.shared_metrics import SharedMetrics
from gateway.access.shared_usage import SharedUsage
from gateway.errors import StoreAway

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from gateway.access.counters import Counter, CounterKey, Listener, RateState, Sharing, Terms
    from gateway.model import Clock, Tally, Timer
    from gateway.observe import Metrics

TICK: Final = 1.0
"""Seconds between two checks of what must be sent to the store or written to the file."""
SOON: Final = 2.0
"""Seconds after which changed counts are sent to the store."""
LATER: Final = 10.0
"""Seconds after which a request is sent although nothing has changed here, to learn the others' counts."""
AHEAD: Final = 30.0
"""Seconds before the end of a period at which the first calls of the next period are requested."""
AGAIN: Final = 1.0
"""Seconds after which calls of a spent budget are requested again: its limit may have been raised."""
BATCH: Final = 200
"""Most escrow requests in one pipeline."""
OVER: Final = 3600.0
"""Seconds after the end of a period from which requests for it are sent only if counts change."""


class SharedCounters:
    """A `CounterStore` over a `Tally`: budgets and usage hold for all instances."""

    sharing: Sharing | None = None
    """Two processes during an upgrade count as two instances, so there is nothing to share."""

    def __init__(self, tally: Tally, state_file: Path | None, *, clock: Clock, metrics: Metrics) -> None:
        """Begin without counts; with a `state_file`, `start` restores what this instance was granted."""
        self._listener: Listener | None = None
        self._tally = tally
        self._clock = clock
        self._metrics = SharedMetrics(metrics)
        self._memory = MemoryCounters()
        self._escrows: dict[CounterKey, Escrow] = {}
        self._file = FieldsFile(state_file, clock=clock, metrics=metrics) if state_file is not None else None
        self._field = tally.instance
        self._usage = SharedUsage(tally, self._memory, clock)
        if self._file is not None:
            self._file.usage = self._usage
        self._part = (0, 1)
        self._prepared_until = 0.0
        self._timer: Timer | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._tick_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_listening = tally.on_doubt(self._ask_everything)
        self._stopped = True

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being sent to the store or written to the file."""
        return not self._tasks and (self._ticking is None or self._ticking.done())

    # --------------------------------------------------------------------------------------------- as a CounterStore

    def follow(self, listener: Listener) -> None:
        """Call `listener` when counts of other instances arrive, and when the number of instances changes."""
        self._listener = listener

    async def ready(self) -> None:
        """Wait until the store was tried, and request the first calls of all budgets."""
        await self._tally.tried()
        self._follow_part()
        if self._tally.is_up:
            await self._ask_due()

    def start(self) -> None:
        """Use the field of the last run from the state file. Raises StateError if the file cannot be used."""
        if self._file is not None:
            self._field = self._file.start(self._tally.instance, self._memory)
        self._stopped = False
        self._plan(0.0)

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter of a key, the same object every time."""
        escrow = self._escrows.get(key)
        return self._memory.counter(key) if escrow is None else escrow.counter

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""
        return self._memory.all()

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""
        return self._memory.rate_state(client, route)

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Do nothing: two processes during an upgrade count as two instances."""

    def is_away(self, counter: Counter) -> bool:
        """Return whether the store does not answer, so that a call refused now may soon be admitted."""
        escrow = self._escrows.get(counter.key)
        return not self._tally.is_up or (escrow is not None and escrow.is_unanswered)

    def changed(self) -> None:
        """Note that counts have changed. Runs on the hot path."""
        if self._file is not None:
            self._file.is_due = True

    async def gather(self, month: str) -> bool:
        """Get the usage of the other instances in a month (`2026-11`); return False if the store is away."""
        return await self._usage.gather(month)

    async def stop(self) -> None:
        """Send the last counts to the store, and write them to the file."""
        if self._stopped:
            return
        self._stopped = True
        self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        for task in [*self._tasks, *([self._ticking] if self._ticking else [])]:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._ticking] if self._ticking else []), return_exceptions=True)
        if self._tally.is_up:
            await self._ask([each for each in self._escrows.values() if self._has_news(each)])
            await self._usage.report()
        if self._file is not None:
            await self._file.stop(self._escrows)

    # -------------------------------------------------------------------------------------------------------- budgets

    def limit(self, counter: Counter, terms: Terms) -> None:
        """Set the terms of a budget in the period of the counter."""
        escrow = self._escrows.get(counter.key)
        if escrow is None:
            escrow = self._escrows[counter.key] = Escrow(counter, terms)
            if self._file is not None:
                self._file.restore(escrow)
            self._forget()
            if not self._stopped:
                self._plan(0.0)
        elif escrow.terms != terms:
            escrow.terms, escrow.is_spent = terms, False
        self._bound(escrow)

    def more(self, counter: Counter) -> bool:
        """Return whether another call is granted; request more from the store in the background."""
        escrow, now = self._escrows[counter.key], self._clock.monotonic()
        if self._may_ask(escrow) and not (escrow.is_spent and now - escrow.asked_at < AGAIN):
            escrow.asked = self._run(self._ask([escrow], needed=True))
        self._bound(escrow)
        return counter.used + counter.reserved < counter.most

    def asked(self, counter: Counter) -> asyncio.Task[None] | None:
        """Return the running request for a budget; None without one, or if the budget is spent."""
        escrow = self._escrows.get(counter.key)
        return None if escrow is None or escrow.is_spent else escrow.asked

    def _may_ask(self, escrow: Escrow) -> bool:
        return self._tally.is_up and not escrow.is_unanswered and escrow.asked is None and not self._stopped

    def _bound(self, escrow: Escrow) -> None:
        away = self.is_away(escrow.counter)
        rank, members = self._part
        allowance = escrow.terms.allowance // members + (rank < escrow.terms.allowance % members)
        escrow.bound(away=away, allowance=allowance, waits=escrow.asked is not None or escrow.is_spent)

    def _forget(self) -> None:
        """Drop the budgets and periods whose counters were dropped and whose period is over."""
        wall = self._clock.wall()
        for key in self._escrows.keys() - self._memory.counters.keys():
            if self._escrows[key].terms.ends <= wall:
                del self._escrows[key]

    # -------------------------------------------------------------------------------------------------- escrow requests

    async def _ask(self, escrows: Sequence[Escrow], *, needed: bool = False) -> None:
        """Send escrow requests in one pipeline; write back what the store has lost. `needed`: a call needs more."""
        try:
            lost = await self._ask_once(escrows, needed=needed)
            if lost:
                await self._ask_once(lost, needed=needed, back=True)
        except StoreAway:
            for each in escrows:
                each.is_unanswered = True
        finally:
            for each in escrows:
                each.asked = None if needed else each.asked
                self._bound(each)
        if self._file is not None:
            self._file.is_due = True
        if self._listener is not None and not needed:
            self._listener.counts_learned()
            for each in escrows:
                if each.counter.warned and each.said is not None and not each.said[2]:  # before others log it
                    each.asked_at = -math.inf
                    self._plan(0.0)

    async def _ask_once(self, escrows: Iterable[Escrow], *, needed: bool, back: bool = False) -> list[Escrow]:
        wall, now, (_, members) = self._clock.wall(), self._clock.monotonic(), self._part
        asked = []
        for each in escrows:
            first = each.said is None and not needed
            want = each.wanted(members, first=first) if needed or first else 0
            asked.append((each, each.request(self._field, wall, want, back=back)))
            each.asked_at = now
        answers = await self._tally.ask([question for _, question in asked])
        return [each for (each, question), answer in zip(asked, answers, strict=True) if each.learn(question, answer)]

    @staticmethod
    def _has_news(escrow: Escrow) -> bool:
        return escrow.said != (escrow.granted, escrow.used, escrow.counter.warned)

    def _ask_everything(self) -> None:
        """Make requests for all budgets due now, because the store may have lost counts."""
        for escrow in self._escrows.values():
            escrow.asked_at = -math.inf
        self._usage.tell_again()
        self._plan(0.0)

    async def _ask_due(self) -> None:
        due = self._due()
        for at in range(0, len(due), BATCH):
            await self._ask(due[at : at + BATCH])

    def _due(self) -> list[Escrow]:
        now, wall = self._clock.monotonic(), self._clock.wall()
        due = []
        for each in self._escrows.values():
            news = self._has_news(each)
            waits = SOON if news else LATER if each.terms.ends + OVER > wall else math.inf
            if each.asked is None and (each.is_unanswered or now - each.asked_at >= waits):
                due.append(each)
        return due

    # --------------------------------------------------------------------------------------------------- each second

    def _plan(self, delay: float) -> None:
        """Schedule the next tick in `delay` seconds, unless an earlier one is scheduled."""
        if self._stopped:
            return
        at = self._clock.monotonic() + delay
        if self._timer is not None and self._tick_at > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._tick_at = at
            self._timer = self._clock.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._plan(TICK)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        self._follow_part()
        self._prepare()
        if self._tally.is_up:
            await self._ask_due()
            await self._usage.report_if_due()
        else:
            for each in self._escrows.values():
                self._bound(each)
        self._metrics.show(self._escrows.values(), self._clock.wall(), away=not self._tally.is_up)
        if self._file is not None:
            await self._file.write_if_due(self._escrows)

    def _follow_part(self) -> None:
        if self._tally.part != self._part:
            self._part = self._tally.part
            if self._listener is not None:
                self._listener.use_part(*self._part)

    def _prepare(self) -> None:
        """Let the first calls of the next period be requested in advance, so that its first call need not wait."""
        wall = self._clock.wall()
        ends = min((each.terms.ends for each in self._escrows.values() if each.terms.ends > wall), default=0.0)
        if ends > self._prepared_until and ends - wall <= AHEAD and self._listener is not None:
            self._prepared_until = ends
            self._listener.prepare_budgets()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
