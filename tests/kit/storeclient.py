"""A client of the shared store for tests, with scripts that do the simplest things."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.clock import SystemClock
from gateway.errors import StoreAway
from gateway.model import Address, Secret, StoreConfig, StoreServer
from gateway.observe import Metrics
from gateway.store import Script, SharedStore
from tests.kit.served import until
from tests.kit.valkey import STORE_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SET = Script("set", "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
GET = Script("get", "return redis.call('GET', KEYS[1])")
TELL = Script("tell", "return redis.call('PUBLISH', ARGV[1], ARGV[2])")
COUNT = Script("count", "return redis.call('INCR', KEYS[1])")


def config(port: int, **keys: object) -> StoreConfig:
    whole = StoreConfig(StoreServer((Address("127.0.0.1", port),)), (Secret(STORE_KEY),))
    return replace(whole, **keys)  # type: ignore[arg-type]


@asynccontextmanager
async def client(settings: StoreConfig, metrics: Metrics | None = None) -> AsyncIterator[SharedStore]:
    it = SharedStore(settings, clock=SystemClock(), metrics=metrics or Metrics())
    await it.start()
    try:
        await asyncio.wait_for(it.tried.wait(), 30)
        yield it
    finally:
        await it.stop()


async def away(it: SharedStore, within: float = 3.0) -> None:
    """Wait until the store is away; commands then fail at once."""
    await until(lambda: not it.is_up, within)
    with pytest.raises(StoreAway):
        await it.run(COUNT, [it.key("n")], [])


async def back(it: SharedStore, within: float = 6.0) -> None:
    """Wait until the store is up again; commands then succeed."""
    await until(lambda: it.is_up, within)
    assert await it.run(COUNT, [it.key("n")], []) >= 1
