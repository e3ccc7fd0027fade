"""Gateways that share a store and count the calls of one client; a raw vendor behind them is the witness."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from gateway.access import hash_key
from tests.kit.gateway import CANARY, one_route
from tests.kit.instances import instances
from tests.kit.valkey import Store, block
from tests.kit.wire import connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from tests.kit.served import Served
    from tests.kit.wire import Peer

KEY = "gp_CANARY-shared-counts-0123456789"


PATIENT = {"timeout": "1s", "lease": "5s"}
"""For a busy machine: a store that answers late is away, and calls are refused."""


async def reach(made: Sequence[Served], sample: str, value: float, *, within: float = 30.0) -> float:
    """Wait until a metric has this value on each of the instances; return how many seconds that took."""
    began = time.monotonic()
    while seen := {it.port: found for it in made if (found := await it.metric(sample)) != value}:
        assert time.monotonic() - began < within, f"{sample} is {seen}, not {value}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


class Witness:
    """A vendor that counts the requests that reach it, and bills each."""

    def __init__(self) -> None:
        self.billed = 0
        self.pause = 0.0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.message()
            self.billed += 1
            if self.pause:
                await asyncio.sleep(self.pause)
            await peer.send(ok())


class Addressed(Protocol):
    """Whatever apps can call."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""


class App:
    """An app that calls instances, each over one connection."""

    def __init__(self, targets: Sequence[Served]) -> None:
        self._targets = targets
        self.statuses: Counter[int] = Counter()

    async def run(self, it: Addressed, most: int | asyncio.Event) -> int:
        """Call one instance until it refuses, `most` times or until an event; return how many calls got 200."""
        good = made = 0
        peer = await connect(it.address)
        try:
            while not most.is_set() if isinstance(most, asyncio.Event) else made < most:
                made += 1
                await peer.send(get("/v/a", f"X-Gatepass-Key: {KEY}"))
                answer = await peer.message()
                self.statuses[answer.status] += 1
                good += answer.status == 200
                if answer.status == 429:
                    break
                if b"close" in answer.all("Connection"):
                    peer.close()
                    peer = await connect(it.address)
        finally:
            peer.close()
        return good

    async def load(self, most: int, *, apps: int = 3) -> int:
        """Call all instances at the same time until each refuses; return how many calls were answered 200."""
        return sum(await asyncio.gather(*(self.run(it, most) for it in self._targets for _ in range(apps))))


@asynccontextmanager
async def counting_together(
    folder: Path,
    where: Store | str,
    count: int,
    client: Mapping[str, Any],
    *,
    each: Sequence[Mapping[str, Any]] = (),
    **top: Any,
) -> AsyncIterator[tuple[list[Served], Witness, App]]:
    """Run gateways with one client and a witness behind them."""
    witness = Witness()
    async with vendor(witness) as there:
        route = {"price": {"per_call": 0.5, "currency": "EUR"}, "pool": {"size": 20}}
        config = {
            **one_route(there.port, **route),
            "clients": [{"name": "web", "key_sha256": hash_key(KEY), **client}],
            "store": block(where, **PATIENT),
            "logs": {"format": "json", "access": False},
            **top,
        }
        async with instances(folder, count, config, {"CANARY": CANARY}, each) as made:
            yield made, witness, App(made)
