"""Bytes that cannot be parsed yet have one budget for all connections; what holds most of them goes first."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.wire import Peer, answering, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from gateway.proxy.port import DataServer
    from tests.kit.gateway import Running

KIB = 1024
BUDGET = 512 * KIB
LIMITS = {"limits": {"unparsed_bytes": BUDGET}}
BEGINNING = get("/v/a")[:-2] + b"X-Long: " + b"x" * 5000 + b"\r\nX-Long: "
"""An incomplete head."""


def port_of(it: Running) -> DataServer:
    assert it.gateway._data is not None
    return it.gateway._data


async def test_incomplete_heads_have_one_budget_and_a_small_one_is_not_the_one_that_goes() -> None:
    async with vendor(answering(ok())) as upstream, running({**one_route(upstream.port), **LIMITS}) as it:
        port = port_of(it)
        small = await connect(it.address)
        await small.send(get("/v/a")[:-2])
        greedy = [await connect(it.address) for _ in range(40)]
        for peer in greedy:
            for _ in range(4):
                await peer.send(BEGINNING if _ == 0 else b"x" * 7000 + b"\r\nX-Long: ")
                await asyncio.sleep(0)
        await until(lambda: it.metric("gatepass_unrouted_requests_total", code="overloaded") > 0)
        assert port.unparsed.held <= BUDGET
        await small.send(b"\r\n")
        assert (await small.message()).status == 200
        told = [peer for peer in greedy if peer.reader._buffer]  # type: ignore[attr-defined]
        answer = await told[0].message()
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
        assert answer.one("Retry-After") == b"1"
        assert await told[0].at_end()
        for peer in (small, *greedy):
            peer.reset()
        await until(lambda: not port.connections)
        assert port.unparsed.held == 0


async def test_requests_behind_one_that_waits_have_the_same_budget_and_the_one_that_waits_is_answered() -> None:
    go_on = asyncio.Event()

    async def waits(peer: Peer) -> None:
        while True:
            await peer.message()
            await go_on.wait()
            await peer.send(ok())

    async with vendor(waits) as upstream, running({**one_route(upstream.port), **LIMITS}) as it:
        port = port_of(it)
        apps = [await connect(it.address) for _ in range(20)]
        for number, app in enumerate(apps):
            first = post("/v/a", b"{}") if number % 2 else get("/v/a")
            await app.send(first + get("/v/b") * 1500)
        await until(lambda: it.metric("gatepass_requests_in_flight", route="v") == 20)
        await until(lambda: 0 < port.unparsed.held <= BUDGET)
        go_on.set()
        assert [(await app.message()).status for app in apps] == [200] * 20
        for app in apps:
            app.reset()
        await until(lambda: not port.connections)
        assert port.unparsed.held == 0


async def test_requests_that_are_parsed_when_they_arrive_take_nothing_of_it() -> None:
    config = {**one_route(0), "limits": {"unparsed_bytes": 1}}
    async with vendor(answering(ok())) as upstream, running({**config, **one_route(upstream.port)}) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(post("/v/a", b"x" * 50_000))
            assert (await app.message()).status == 200
            await app.send(get("/v/a"))
            assert (await app.message()).status == 200
        assert port_of(it).unparsed.held == 0
