"""Connections and exchanges free what they hold by themselves: a process that runs for years needs no collector."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.kit.gateway import Running
    from tests.kit.wire import Peer, Script


async def endless(peer: Peer) -> None:
    await peer.message()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
    await peer.at_end()


async def ends_well(it: Running) -> None:
    app = await connect(it.address)
    await app.send(get("/v/x"))
    await app.message()
    app.close()


async def leaves(it: Running) -> None:
    app = await connect(it.address)
    await app.send(get("/v/x"))
    await asyncio.sleep(0.02)
    app.close()


@pytest.mark.parametrize(
    ("answers", "visit"), [(answering(ok()), ends_well), (endless, leaves)], ids=["ends", "is cancelled"]
)
async def test_a_connection_that_ended_leaves_nothing_for_the_collector(
    answers: Script, visit: Callable[[Running], Awaitable[None]]
) -> None:
    async with vendor(answers) as it_vendor, running(one_route(it_vendor.port)) as it:
        await visit(it)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await visit(it)
            await asyncio.sleep(0.3)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            ours = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("gateway.proxy")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not ours
