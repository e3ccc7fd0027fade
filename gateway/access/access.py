"""What outlives a configuration: counts, rates and issuers' keys. Makes each configuration's `Clients` over them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.access.clients import Clients
from gateway.access.counters import CounterStore, MemoryCounters
from gateway.access.statefile import FileCounters
from gateway.addresses import Networks
from gateway.observe import get_logger

if TYPE_CHECKING:
    from gateway.access.keysets import KeySet
    from gateway.access.tokens import JwtJudge
    from gateway.model import Clock, Config, Issuer
    from gateway.observe import Metrics

_log = get_logger("gatepass.access")


class Access:
    """Who may call. Built once per process: `start` it, ask it for the `clients` of each configuration, `stop` it."""

    def __init__(self, config: Config, *, clock: Clock, metrics: Metrics, store: CounterStore | None = None) -> None:
        self._clock = clock
        self._metrics = metrics
        self._store: CounterStore = store or MemoryCounters()
        if store is None and config.state_file is not None:
            self._store = FileCounters(config.state_file, clock=clock, metrics=metrics)
        self._keysets: dict[tuple[Issuer, Networks], KeySet] = {}
        self._retired: set[asyncio.Task[None]] = set()

    def start(self, config: Config) -> None:
        """Take up the counts of the last run. Raises StateError when that cannot be."""
        self._store.start()
        if config.state_file is None and any(client.budgets for client in config.clients):
            _log.warning("budgets_in_memory", hint="set state_file, or a restart forgets what was used")

    def clients(self, config: Config) -> Clients:
        """Return the clients of a configuration, over the counts and keys that are there."""
        return Clients(config, store=self._store, metrics=self._metrics, clock=self._clock, judge=self._judge(config))

    def _judge(self, config: Config) -> JwtJudge | None:
        allowed = Networks(config.allow_addresses)
        wanted = {(issuer, allowed) for issuer in config.issuers}
        for gone in self._keysets.keys() - wanted:
            task = asyncio.get_running_loop().create_task(self._keysets.pop(gone).stop())
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
        if not config.issuers:
            return None
        from gateway.access.keysets import JwksFetcher, KeySet  # noqa: PLC0415 - PyJWT takes a fifth of a second
        from gateway.access.tokens import JwtJudge  # noqa: PLC0415

        for issuer in config.issuers:
            # A file is read again: a reload may have been asked for because it changed.
            if issuer.jwks_file is not None or (issuer, allowed) not in self._keysets:
                keys = KeySet(issuer, clock=self._clock, metrics=self._metrics, fetch=JwksFetcher(allowed))
                keys.start()
                self._keysets[issuer, allowed] = keys
        keysets = [self._keysets[issuer, allowed] for issuer in config.issuers]
        return JwtJudge(keysets, config.clients, clock=self._clock)

    async def stop(self) -> None:
        """Keep the counts and end what runs."""
        keysets, self._keysets = list(self._keysets.values()), {}
        await asyncio.gather(*(keys.stop() for keys in keysets), *self._retired, return_exceptions=True)
        await self._store.stop()
