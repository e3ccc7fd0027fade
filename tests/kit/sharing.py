"""Several instances' tokens in one process, on a real store: each with its own clients, caches and metrics.

Quicker than processes, and a test sees into each cache. What only processes show is in `instances.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.clock import SystemClock
from gateway.errors import StoreAway
from gateway.model import Address, Secret, StoreConfig, StoreServer
from gateway.observe import Metrics
from gateway.store import SharedStore
from gateway.store.tokens import StoredTokens
from gateway.tokens import TokenSet
from gateway.tokens.shared import SharedTokenCache
from tests.kit.metrics import sample
from tests.kit.recipes import config, credential
from tests.kit.served import until
from tests.kit.valkey import STORE_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from gateway.model import Config, CredentialStatus, Token, Tokens
    from tests.kit.endpoint import TokenEndpoint
    from tests.kit.valkey import Store

COUNT = 4
"""Instances of `four`."""


def store_config(port: int, **keys: object) -> StoreConfig:
    """The settings of a store on loopback."""
    whole = StoreConfig(StoreServer((Address("127.0.0.1", port),)), (Secret(STORE_KEY),))
    return replace(whole, **keys)  # type: ignore[arg-type]


class Instance:
    """One instance without a data plane."""

    def __init__(self, settings: StoreConfig, config: Config) -> None:
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.store = SharedStore(settings, clock=self.clock, metrics=self.metrics)
        self.shared = StoredTokens(self.store, self.clock)
        self.set = TokenSet(config, clock=self.clock, metrics=self.metrics, shared=self.shared)
        self._stopped = False

    async def start(self) -> None:
        await self.store.start()
        await self.set.start()

    async def stop(self, *, hand_over: bool = False) -> None:
        if not self._stopped:
            self._stopped = True
            await self.set.stop(hand_over=hand_over)
            await self.store.stop()

    async def die(self) -> None:
        """End without a word to anybody, as a process that is killed."""
        self._stopped = True
        self.store.run_many = self.store.run = _silence  # type: ignore[method-assign, assignment]
        await self.set.stop(hand_over=True)
        for task in self.store._tasks:
            task.cancel()
        await self.store._wires.close()

    async def read(self) -> None:
        """Read the store now, as every ten seconds."""
        assert self.set._sharing is not None
        await self.set._sharing.read([each for each in self.set._caches.values() if isinstance(each, SharedTokenCache)])

    @property
    def holds(self) -> bool:
        """Whether it has a lease."""
        caches = [each for each in self.set._caches.values() if isinstance(each, SharedTokenCache)]
        return any(turn._lease is not None for cache in caches for turn in cache._turns)

    @property
    def tokens(self) -> Tokens:
        return self.set.tokens("acme")

    @property
    def token(self) -> Token | None:
        """The valid token in use."""
        return self.set.held("acme")

    @property
    def status(self) -> CredentialStatus:
        return self.set.status()[0]

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the credential; 0 without one."""
        return sample(self.metrics, name, {"credential": "acme", **labels}) or 0.0


async def _silence(*_: object) -> None:
    raise StoreAway("this instance is dead")


@asynccontextmanager
async def sharing(
    settings: StoreConfig | Sequence[StoreConfig], count: int, config: Config
) -> AsyncIterator[list[Instance]]:
    """Run `count` instances, started together; with a sequence of settings, each has its own."""
    every = [settings] * count if isinstance(settings, StoreConfig) else list(settings)
    async with AsyncExitStack() as stack:
        made = [Instance(each, config) for each in every]
        for each in made:
            stack.push_async_callback(each.stop)
        await asyncio.gather(*(each.start() for each in made))
        yield made


def four(server: Store, endpoint: TokenEndpoint, **fields: Any) -> AbstractAsyncContextManager[list[Instance]]:
    """Run four instances; `fields` are those of their credential."""
    return sharing(store_config(server.port), COUNT, config(credential(endpoint.url, **fields)))


async def all_have(made: Sequence[Instance], seconds: float = 30.0, *, but: Token | None = None) -> Token:
    """Wait until all use one token, another one than `but`; return it."""

    def agree() -> bool:
        values = {each.token.value if each.token else None for each in made}
        return len(values) == 1 and None not in values and (but is None or but.value not in values)

    await until(agree, seconds)
    token = made[0].token
    assert token is not None
    return token
