"""Ends of connections: answers that the app does not read, empty lines, addresses that are in use."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.model import Address
from gateway.proxy import listen
from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.wire import Peer, answering, connect, get, ok, vendor

LARGE = 32 * 1024 * 1024


async def large(peer: Peer) -> None:
    """Answer every request with a large body."""
    while True:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        for _ in range(LARGE // 65536):
            await peer.send(bytes(65536))


@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["kept", "the last answer"])
async def test_an_app_that_never_reads_its_answer_is_given_up(fields: tuple[str, ...]) -> None:
    config = {"limits": {"body_timeout": "300ms"}}
    async with vendor(large) as there, running({**one_route(there.port), **config}) as it:
        data = it.gateway._data
        assert data is not None
        app = await connect(it.address, buffer=4096)
        app.pause_reading()
        await app.send(get("/v/x", *fields))
        await until(lambda: data.connections == 1)
        await until(lambda: data.connections == 0 and it.at_rest())


@pytest.mark.parametrize("reads", [True, False], ids=["slowly", "never"])
async def test_a_last_answer_may_leave_after_its_exchange_for_as_long_as_the_app_reads(reads: bool) -> None:
    """The kernel takes a part of the answer, and the connection lingers with the rest."""
    config = {"limits": {"body_timeout": "1s"}}
    async with vendor(answering(ok(bytes(200_000)))) as there, running({**one_route(there.port), **config}) as it:
        data = it.gateway._data
        assert data is not None
        data._acceptor.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        app = await connect(it.address, buffer=4096)
        app.pause_reading()
        await app.send(get("/v/x", "Connection: close"))
        await until(lambda: it.at_rest() and data.connections == 1)
        if reads:
            await asyncio.sleep(0.5)
            app.resume_reading()
            assert len((await app.message()).body) == 200_000
        await until(lambda: data.connections == 0)


async def test_empty_lines_alone_are_no_request_and_the_next_one_is_served() -> None:
    """RFC 9112 §2.2: a server should ignore at least one empty line before a request."""
    async with vendor(answering(ok())) as there, running(one_route(there.port)) as it:
        app = await connect(it.address)
        await app.send(b"\r\n")
        await asyncio.sleep(0.05)
        await app.send(b"\r\n" + get("/v/x"))
        assert (await app.message()).start == b"HTTP/1.1 200 OK"


async def test_an_address_in_use_closes_those_that_were_opened_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        with pytest.raises(OSError, match="in use"):
            await listen(Address("127.0.0.1", port), Address("127.0.0.1", taken.getsockname()[1]))
        [again] = await listen(Address("127.0.0.1", port))
        again.close()
