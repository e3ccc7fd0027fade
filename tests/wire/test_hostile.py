"""Hostile traffic: too many connections, bytes that are no HTTP, and requests and answers with a few bytes changed."""

from __future__ import annotations

import asyncio
from random import Random
from statistics import median
from time import perf_counter

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.mutation import send_mutated_answers, send_mutated_requests
from tests.kit.rest import Rest
from tests.kit.stall import unless_stalled
from tests.kit.wire import PATIENCE, Peer, answering, connect, get, ok, vendor

MANY = [
    pytest.param(3_000, id="3000"),
    pytest.param(30_000, id="30000", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize("count", MANY)
@unless_stalled(late=0.1)  # its time-outs are 400 ms
async def test_mutated_requests_do_no_harm(count: int) -> None:
    """Alive, nothing left over, every request that goes up has the token once, and no answer crosses connections."""
    await send_mutated_requests(20_260_101, count)


@pytest.mark.parametrize("count", [pytest.param(500, id="500"), pytest.param(5_000, id="5000", marks=MANY[1].marks)])
@unless_stalled(late=0.1)
async def test_mutated_answers_harm_nobody_else(count: int) -> None:
    """Whoever asks next gets his own answer."""
    await send_mutated_answers(20_260_102, count)


FOREIGN = {
    "TLS hello": bytes.fromhex("16030100c5010000c10303") + bytes(range(190)),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "PROXY protocol v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "SMTP": b"EHLO x\r\n",
    "zeros": bytes(1000),
    "random": Random(1).randbytes(4096),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_bytes_that_are_no_http_are_400_and_closed(name: str) -> None:
    """At once, and the vendor hears nothing of it."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        rest = Rest(it)
        app = await connect(it.address)
        await app.send(FOREIGN[name])
        assert (await app.message()).status == 400
        assert await app.at_end()
        app.close()
        assert upstream.connections == 0
        assert await rest.comes(), rest.left_over


@unless_stalled
async def test_connections_over_the_limit_are_told_so_and_the_others_are_served() -> None:
    """503 with `Connection: close`, although the request arrives behind it; a place that comes free is given away."""
    config = {"limits": {"connections": 5}}
    async with vendor(answering(ok())) as upstream, running({**one_route(upstream.port), **config}) as it:
        kept = [await connect(it.address) for _ in range(5)]
        for app in kept:
            await app.send(get("/v/a"))
            assert (await app.message()).status == 200
        for _ in range(20):
            over = await connect(it.address)
            await over.send(get("/v/a") + b"x" * 1000)
            got = await over.message()
            assert (got.status, got.one("Connection")) == (503, b"close")
            assert b'"too_many_connections"' in got.body
        for _ in range(5):  # what it goes on sending is read for a while, not answered with a reset
            await asyncio.sleep(0.01)
            await over.send(b"x")
        assert over.reader.exception() is None
        over.close()
        for app in kept:
            await app.send(get("/v/a"))
            assert (await app.message()).status == 200
        kept.pop().close()
        async with asyncio.timeout(PATIENCE):
            while True:
                await asyncio.sleep(0.05)
                late = await connect(it.address)
                await late.send(get("/v/a"))
                if (await late.message()).status == 200:
                    break
                late.close()


async def test_a_flood_of_connections_over_the_limit_does_not_grow_without_bound() -> None:
    """Only so many are told; the rest is reset."""
    config = {"limits": {"connections": 1, "connections_per_address": 100_000}}
    async with vendor(answering(ok())) as upstream, running({**one_route(upstream.port), **config}) as it:
        first = await connect(it.address)
        await first.send(get("/v/a"))
        assert (await first.message()).status == 200
        assert it.gateway._data is not None
        most = 0
        for _ in range(10):
            await asyncio.gather(*(connect(it.address) for _ in range(100)), return_exceptions=True)
            for _ in range(3):
                await asyncio.sleep(0.005)
                most = max(most, it.gateway._data.connections)
        assert most < 500
        await first.send(get("/v/a"))
        assert (await first.message()).status == 200


async def seconds(app: Peer) -> float:
    started = perf_counter()
    await app.send(get("/v/a"))
    assert (await app.message()).status == 200
    return perf_counter() - started


async def test_slow_apps_do_not_slow_the_others_down() -> None:
    """A hundred and twenty that dribble, half of them inside a body, and one that asks: about as quickly as alone."""
    async with (
        vendor(answering(ok())) as upstream,
        running({**one_route(upstream.port), "limits": {"header_timeout": 120}}) as it,
    ):
        quick = await connect(it.address)
        alone, among = [await seconds(quick) for _ in range(100)], []
        slow = [await connect(it.address) for _ in range(120)]
        for index, app in enumerate(slow):
            await app.send(get("/v/a", "Content-Length: 1000", method="POST") if index % 2 else b"GET /v/a HT")
        for _ in range(100):
            for app in slow[:2]:
                app.writer.write(b"x")
            among.append(await seconds(quick))
        assert median(among) < 4 * median(alone) + 0.01
