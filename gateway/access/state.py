"""Counts, rates and issuers' keys, which outlive a configuration; makes the `Clients` of each configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.access.budgets import period_of
from gateway.access.clients import Clients
from gateway.access.counters import CounterStore, MemoryCounters
from gateway.access.pass_loader import PassLoader
from gateway.access.pass_secrets import remember_replaced
from gateway.access.statefile import FileCounters
from gateway.access.usage import INTERVAL, WRITE_INTERVAL, UsageBook, usage_file
from gateway.addresses import Networks
from gateway.observe import get_logger
from gateway.resolver import Resolver

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.access.jwt import JwtVerifier
    from gateway.access.keysets import KeySet
    from gateway.access.pass_secrets import Former
    from gateway.model import Clock, Config, Issuer, Tally, Timer
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")
MAX_PERIOD_CHECK = 3600.0
"""Most seconds between two checks for a new day, because clocks are changed and machines are suspended."""


class Access:
    """Access control of one process: `start` it, get the `clients` of each configuration, `stop` it."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        metrics: Metrics,
        store: CounterStore | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._clock = clock
        self._resolver = resolver or Resolver()
        self._metrics = metrics
        self._store: CounterStore = store or MemoryCounters()
        self._usage_store = self._store
        """Where usage is counted; not the store of budgets if both are files."""
        if store is None and config.state_file is not None:
            self._store = FileCounters(config.state_file, clock=clock, metrics=metrics)
            beside = usage_file(config.state_file)
            if beside is not None:
                self._usage_store = FileCounters(beside, clock=clock, metrics=metrics, interval=WRITE_INTERVAL)
        self._store.follow(self)
        self._keysets: dict[tuple[Issuer, Networks], KeySet] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._in_force: Clients | None = None
        self._part = (0, 1)
        self._without: set[str] = set()
        """Clients with a limit that leaves nothing for this instance."""
        self._config = config
        self._former: Former = {}
        """Secrets that a reload has replaced; passes that were signed with them still hold."""
        self._midnight: Timer | None = None
        self.usage = UsageBook(self._usage_store, metrics, clock.wall)
        self._collecting: Timer | None = None

    def start(self, config: Config) -> None:
        """Load the counts of the last run. Raises StateError if that fails."""
        for store in self._stores():
            store.start()
        self._plan_midnight()
        self._collecting = self._clock.call_later(INTERVAL, self._collect)
        if config.state_file is None and config.store is None and any(client.budgets for client in config.clients):
            _log.warning("budgets_in_memory", hint="set state_file, or a restart forgets what was used")
        if config.state_file is not None and isinstance(self._usage_store, MemoryCounters):
            hint = (
                f"the folder of {config.state_file} takes no further file; a restart forgets who has called how often"
            )
            _log.warning("usage_in_memory", hint=hint)

    def _stores(self) -> tuple[CounterStore, ...]:
        return tuple(dict.fromkeys((self._store, self._usage_store)))

    async def ready(self) -> None:
        """Wait for a moment until a shared store has said what may be spent."""
        await self._store.ready()

    def clients(self, config: Config) -> Clients:
        """Return the clients of a configuration, with the current counts and keys.

        The configuration in force is not changed; call `keep` to put one in force.
        """
        verifier = self._verifier(config)
        loader = PassLoader(config, wall=self._clock.wall, former=self._former)
        return Clients(
            config, store=self._store, metrics=self._metrics, clock=self._clock, loader=loader, verifier=verifier
        )

    def keep(self, config: Config, clients: Clients | None = None) -> None:
        """Put a configuration in force, with `clients` or the previous ones; stop the fetches of other issuers."""
        self._in_force = clients or self._in_force
        if self._in_force is not None:
            for budget in self._in_force.budgets():
                budget.limit()
            self.use_part(*self._part)
        if config is not self._config:
            remember_replaced(self._config, config, self._former, self._clock.wall())
            self._config = config
        allowed = Networks(config.allow_addresses)
        wanted = {(issuer, allowed) for issuer in config.issuers}
        for gone in self._keysets.keys() - wanted:
            task = asyncio.get_running_loop().create_task(self._keysets.pop(gone).stop())
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Count together with another process that serves the same port, or stop that; until `predecessor` ends."""
        await self._store.share(on, predecessor=predecessor)

    def counts_learned(self) -> None:
        """Show the counts of all budgets, which another process may have changed."""
        for budget in self._in_force.budgets() if self._in_force is not None else ():
            budget.show()

    def prepare_budgets(self) -> None:
        """Tell the store the terms of the next periods."""
        for budget in self._in_force.budgets() if self._in_force is not None else ():
            budget.prepare()

    def use_part(self, rank: int, members: int) -> None:
        """Divide rates and limits in flight by `members`; this instance is number `rank`, from 0."""
        self._part = (rank, members)
        without = self._in_force.use_part(rank, members) if self._in_force is not None else []
        if without and set(without) != self._without:
            _log.warning("limit_below_instances", clients=sorted(set(without)), instances=members)
        self._without = set(without)

    def _plan_midnight(self) -> None:
        wall = self._clock.wall()
        _, _, ends = period_of("day", wall)
        self._midnight = self._clock.call_later(max(1.0, min(MAX_PERIOD_CHECK, ends - wall)), self._roll_over)

    def _collect(self) -> None:
        self.usage.collect()
        self._collecting = self._clock.call_later(INTERVAL, self._collect)

    def _roll_over(self) -> None:
        for budget in self._in_force.budgets() if self._in_force is not None else ():
            budget.roll_over()
        self._plan_midnight()

    def _verifier(self, config: Config) -> JwtVerifier | None:
        allowed = Networks(config.allow_addresses)
        if not config.issuers:
            return None
        from gateway.access.jwt import JwtVerifier  # noqa: PLC0415
        from gateway.access.keysets import JwksFetcher, KeySet  # noqa: PLC0415 - importing PyJWT takes a fifth of a second

        fetch = JwksFetcher(allowed, self._resolver)
        for issuer in config.issuers:
            keys = self._keysets.get((issuer, allowed))
            if keys is None:
                keys = KeySet(issuer, clock=self._clock, metrics=self._metrics, fetch=fetch)
                self._keysets[issuer, allowed] = keys
                keys.start()
            elif issuer.jwks_file is not None:
                keys.start()  # read the file again; one without a usable key changes nothing
        keysets = [self._keysets[issuer, allowed] for issuer in config.issuers]
        return JwtVerifier(keysets, config.clients, clock=self._clock)

    async def stop(self) -> None:
        """Write the counts and stop all fetches."""
        for timer in (self._midnight, self._collecting):
            if timer is not None:
                timer.cancel()
        self.usage.collect()
        keysets, self._keysets = list(self._keysets.values()), {}
        await asyncio.gather(*(keys.stop() for keys in keysets), *self._retired, return_exceptions=True)
        for store in self._stores():
            await store.stop()


def shared_counters(
    tally: Tally | None, state_file: Path | None, *, clock: Clock, metrics: Metrics
) -> CounterStore | None:
    """Return the counts of all instances; None without a shared store, whose modules are then not imported."""
    if tally is None:
        return None
    from gateway.access.shared import SharedCounters  # noqa: PLC0415

    return SharedCounters(tally, state_file, clock=clock, metrics=metrics)
