"""Instances that count together in a real store, in one process: access control with a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from gateway.access import Access, EscrowNeeded, hash_key
from gateway.access.shared import SharedCounters
from gateway.errors import RateLimited
from gateway.model import Client, ClientBudget
from gateway.observe import Metrics
from gateway.store.counts import StoreTally
from tests.kit.clients import ORDERS, config_of
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample
from tests.kit.tally import DirectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.access import Allowance
    from gateway.access.allowance import Admission
    from gateway.model import Config
    from gateway.store import SharedStore
    from tests.kit.valkey import Store

KEY = "gp_CANARY-shared-counts"
WALL = 1_795_348_800.0
"""Noon of 2026-11-22 (UTC)."""
_names = itertools.count()


def client(*budgets: ClientBudget, **more: Any) -> Client:
    return Client("web", (hash_key(KEY),), budgets=budgets, **more)


class Counting:
    """One instance."""

    def __init__(
        self, server: Store, namespace: str, known: Client, *, file: Path | None = None, clock: FakeClock | None = None
    ) -> None:
        self.clock = clock or FakeClock(wall=WALL)
        self.metrics = Metrics()
        self.direct = DirectStore(f"{next(_names):016x}", server.port, namespace)
        self.tally = StoreTally(cast("SharedStore", self.direct))
        self.counters = SharedCounters(self.tally, file, clock=self.clock, metrics=self.metrics)
        self.config: Config = config_of(known, state_file=file)
        self.access = Access(self.config, clock=self.clock, metrics=self.metrics, store=self.counters)

    async def start(self) -> None:
        self.access.start(self.config)
        self.use(self.config)
        await self.access.ready()
        await self.rest()

    def use(self, config: Config) -> None:
        """Put a configuration in force, as a reload does."""
        self.config, clients = config, self.access.clients(config)
        self.access.keep(config, clients)
        self.allowance: Allowance = clients.identify(KEY.encode(), None, ORDERS)

    async def rest(self) -> None:
        """Wait for whatever the counters are doing with the store."""
        await self.clock.until(lambda: self.counters.at_rest)

    async def advance(self, seconds: float) -> None:
        """Move the clock on, a second at a time."""
        await self.rest()
        while seconds > 0:
            await self.clock.advance(min(1.0, seconds))
            await self.rest()
            seconds -= 1.0

    async def begin(self) -> Admission:
        """Begin a call, as the data plane does. Raises RateLimited."""
        while True:
            try:
                return self.allowance.admit(self.clock.monotonic())
            except EscrowNeeded as needed:
                await needed.wait()

    async def call(self, status: int = 200) -> bool:
        """Make a call; return whether it was admitted."""
        try:
            admission = await self.begin()
        except RateLimited:
            return False
        admission.release(status)
        return True

    async def calls(self, most: int) -> int:
        """Make calls one after another until one is refused; return how many were made."""
        made = 0
        while made < most and await self.call():
            made += 1
        return made

    def metric(self, name: str, **labels: str) -> float:
        found: Callable[..., float | None] = sample
        return found(self.metrics, name, {"client": "web", "route": "orders", **labels}) or 0.0

    @property
    def used(self) -> float:
        """What the metric of the day's budget says."""
        return self.metric("gatepass_client_budget_used", per="day")

    async def stop(self) -> None:
        await self.access.stop()
        await self.direct.close()

    async def die(self) -> None:
        """End without a last word, as after kill -9; the system releases its locks."""
        await self.rest()
        self.counters._stopped = True
        file = self.counters._file
        if file is not None and file._lock is not None:
            os.close(file._lock)
            file._lock = None
        await self.direct.close()


@asynccontextmanager
async def counting(
    server: Store, count: int, known: Client, *, clocks: list[FakeClock] | None = None, **more: Any
) -> AsyncIterator[list[Counting]]:
    """Run instances that share a namespace of their own; those that are not stopped are stopped in the end."""
    namespace = f"counting-{next(_names)}"
    made = [
        Counting(server, namespace, known, clock=clocks[place] if clocks else None, **more) for place in range(count)
    ]
    for place, each in enumerate(made):
        each.direct.rank, each.direct.members = place, count
    try:
        for each in made:
            await each.start()
        yield made
    finally:
        await asyncio.gather(*(each.stop() for each in made))
