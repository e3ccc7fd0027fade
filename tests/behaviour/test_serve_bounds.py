"""At each bound of the data port: a clear answer, a metric, and nothing that grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.served import Apps, Served, until
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.gateway import Running
    from tests.kit.wire import Message, Peer

PIPE = 64 * 1024
"""What Linux keeps in a pipe."""


def code(answer: Message) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


async def served(it: Running) -> Peer:
    app = await connect(it.address)
    await app.send(get("/v/x"))
    assert (await app.message()).status == 200
    return app


def bounded(port: int, **limits: Any) -> dict[str, Any]:
    return {**one_route(port), "limits": limits}


async def test_a_connection_too_many_is_told_so_and_room_is_made_when_one_goes() -> None:
    async with vendor(answering(ok())) as it_vendor, running(bounded(it_vendor.port, connections=2)) as it:
        first, second = await served(it), await served(it)
        third = await connect(it.address)
        answer = await third.message()
        assert code(answer) == (503, "too_many_connections")
        assert answer.one("Retry-After") == b"1"
        assert await third.at_end()
        assert it.metric("gatepass_unrouted_requests_total", code="too_many_connections") == 1
        first.close()
        third.close()
        await until(lambda: it.metric("gatepass_client_connections") <= 1)
        await served(it)
        second.close()


async def test_one_address_cannot_take_every_connection() -> None:
    limits = {"connections": 100, "connections_per_address": 2}
    async with vendor(answering(ok())) as it_vendor, running(bounded(it_vendor.port, **limits)) as it:
        await served(it)
        await served(it)
        third = await connect(it.address)
        assert code(await third.message()) == (503, "too_many_connections")
        data = it.gateway._data
        assert data is not None
        await until(lambda: data._acceptor.by_address["127.0.0.1"] <= 2)
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *it.address, local_addr=("127.0.0.2", 0)
        )
        transport.write(get("/v/x"))
        await until(lambda: it.metric("gatepass_requests_total", route="v", method="GET", status="200", code="") == 3)
        transport.abort()


async def test_a_flood_of_connections_over_the_bound_leaves_nothing_behind() -> None:
    async with vendor(answering(ok())) as it_vendor, running(bounded(it_vendor.port, connections=5)) as it:
        kept = await served(it)
        for _ in range(10):
            peers = await asyncio.gather(*(connect(it.address) for _ in range(60)))
            for peer in peers:
                peer.reset()
        await until(lambda: it.metric("gatepass_client_connections") <= 1)
        data = it.gateway._data
        assert data is not None
        assert dict(data._acceptor.by_address) == {"127.0.0.1": 1}
        await kept.send(get("/v/x"))
        assert (await kept.message()).status == 200


async def test_a_request_too_many_in_flight_is_told_so() -> None:
    go_on = asyncio.Event()

    async def waits(peer: Peer) -> None:
        while True:
            await peer.message()
            await go_on.wait()
            await peer.send(ok())

    async with vendor(waits) as it_vendor, running(bounded(it_vendor.port, exchanges=2)) as it:
        busy = [await connect(it.address) for _ in range(2)]
        for app in busy:
            await app.send(get("/v/x"))
        await until(lambda: it.metric("gatepass_requests_in_flight", route="v") == 2)
        third = await connect(it.address)
        await third.send(get("/v/x"))
        answer = await third.message()
        assert code(answer) == (503, "overloaded")
        assert answer.one("Retry-After") == b"1"
        go_on.set()
        for app in busy:
            assert (await app.message()).status == 200
        await served(it)


@pytest.mark.slow
async def test_a_log_that_nobody_reads_costs_lines_and_no_request(tmp_path: Path) -> None:
    """Standard output is a pipe that is full: what waits is bounded, each lost line is counted, nobody stalls."""
    buffer = 256 * 1024
    async with vendor(answering(ok())) as it_vendor:
        config = {**one_route(it_vendor.port), "logs": {"format": "json", "buffer": buffer}}
        gateway = Served(tmp_path, config, environ={"CANARY": CANARY})
        os.mkfifo(gateway.log_path)
        reader = os.open(gateway.log_path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            await gateway.start()
            async with Apps(gateway.address, "/v/x", apps=4, pause=0) as apps:
                await until(lambda: apps.good > 2_000)
                while await gateway.metric("gatepass_log_events_dropped_total") < 1_000:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.05)
            assert not apps.failures, apps.failures
            lost = await gateway.metric("gatepass_log_events_dropped_total")
            gateway.signal(signal.SIGTERM)  # what waits is given a second, then that is lost, too
            assert await gateway.end() == 0
            kept = read_all(reader)
        finally:
            os.close(reader)
            await gateway.stop()
        requests = [line for line in kept.splitlines() if b'"event":"request"' in line]
        assert len(kept) <= buffer + PIPE
        assert 0 < len(requests) <= apps.good - lost + 10, "a line is either written or counted as lost"
        assert CANARY.encode() not in kept


def read_all(reader: int) -> bytes:
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reader, 65536):
            found += part
    return found
