"""Apps that read their answers slowly or not at all: what is held for them is bounded, and ends with them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from gateway.proxy.phase import ANSWERING, IDLE
from gateway.proxy.wire import HIGH_WATER_TLS
from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.wire import OPENED, Message, Peer, RawVendor, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.proxy.client import ClientConnection
    from gateway.proxy.port import DataServer
    from tests.kit.gateway import Running

SMALL = 8192
"""Bytes that the kernel buffers on each side, so that little is needed to fill it."""
AT_ONCE, LATER = ok(b"x" * 50_000), ok(b"x" * 40_000)
"""Answers that arrive in one segment, and are passed on at once, or at the end of the round of the event loop."""


def port_of(it: Running) -> DataServer:
    assert it.gateway._data is not None
    return it.gateway._data


def narrowed(it: Running) -> ClientConnection:
    """Return the only connection of an app, after its buffer in the kernel was made small."""
    (connection,) = port_of(it)._connections
    assert connection.transport is not None
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return connection


async def app_that_does_not_read(it: Running) -> tuple[Peer, ClientConnection]:
    """Connect an app, ask for something without a route, and stop reading."""
    app = await connect(it.address, buffer=SMALL)
    await app.send(get("/nowhere"))
    assert (await app.message()).status == 404
    app.pause_reading()
    return app, narrowed(it)


async def fill(app: Peer, connection: ClientConnection, upstream: RawVendor) -> int:
    """Send one request after the other until an answer cannot leave; return how many."""
    sent = 0

    def answered() -> bool:
        return upstream.received.count(b"GET /a ") == sent and connection.phase == IDLE and not connection._outgoing

    while not connection.writing_paused:
        await app.send(get("/v/a"))
        sent += 1
        await until(lambda: connection.writing_paused or answered())
    return sent


async def read(app: Peer, count: int) -> list[Message]:
    app.resume_reading()
    return [await app.message() for _ in range(count)]


async def test_a_connection_whose_waiting_requests_are_given_up_closes_behind_the_answer_that_leaves() -> None:
    """The app gets every answer whole and then the end of the connection, and does not wait for more answers."""
    async with vendor(answering(AT_ONCE)) as upstream, running(one_route(upstream.port)) as it:
        app, connection = await app_that_does_not_read(it)
        sent = await fill(app, connection, upstream)
        assert (connection.phase, it.at_rest()) == (ANSWERING, True), "the exchange has ended"
        await app.send(get("/v/behind") * 100)
        await until(lambda: connection.unparsed.pending)
        port = port_of(it)
        port.use_limits(dataclasses.replace(port.limits, unparsed_bytes=1), None)
        port.relieve()
        assert [len(answer.body) for answer in await read(app, sent)] == [50_000] * sent
        assert await app.at_end()
        app.close()
        await until(lambda: not port.connections)
        assert b"/behind" not in upstream.received


async def test_a_connection_whose_answer_leaves_slowly_closes_behind_it_when_the_gateway_stops() -> None:
    drain = {"drain": {"grace": "0s"}}
    async with vendor(answering(AT_ONCE)) as upstream, running({**one_route(upstream.port), **drain}) as it:
        app, connection = await app_that_does_not_read(it)
        sent = await fill(app, connection, upstream)
        handler = it.gateway._handler
        assert handler is not None
        draining = asyncio.create_task(it.gateway.drain())
        await until(lambda: handler.closing)  # no idle connection is closed after that
        assert len(await read(app, sent)) == sent
        assert await app.at_end()
        app.close()
        await draining


async def test_a_pipelined_request_is_not_sent_after_the_connection_of_its_app_has_failed() -> None:
    """The connection fails in the same round of the event loop in which the answer to the first request arrives."""
    held, over = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.message()).target == b"/held":
                held.set()
                await over.wait()
            await peer.send(LATER)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app, connection = await app_that_does_not_read(it)
        await fill(app, connection, upstream)
        assert connection.phase == IDLE
        await app.send(get("/v/held") + get("/v/behind"))
        await held.wait()
        [to_vendor] = it.routes[0].pool._open
        to_vendor.data_received(ok(b"{}"))
        assert connection.transport is not None
        connection.transport.abort()  # as the event loop does when a write has failed
        await until(lambda: not port_of(it).connections)
        await until(it.at_rest)
        assert b"/behind" not in upstream.received
        assert "never retrieved" not in it.log
        over.set()


async def test_an_app_that_is_cut_off_while_a_piece_of_its_answer_arrives_is_logged_as_gone() -> None:
    """Both happen in one round of the event loop, so the piece is written to a connection that is closing."""
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await over.wait()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app, connection = await app_that_does_not_read(it)
        await app.send(get("/v/a"))
        await until(lambda: any(each._body is not None for each in it.routes[0].pool._open))
        [to_vendor], [peer], size = it.routes[0].pool._open, upstream.open, 0
        body = to_vendor._body
        assert body is not None
        while not connection.writing_paused:
            await peer.send(b"7d00\r\n%b\r\n" % bytes(32_000))
            size += 32_000
            await until(lambda: body.size == size and not body._pieces and not connection._outgoing)  # noqa: B023 - it ends before the next turn
        assert body._waiter is not None, "the exchange waits for the vendor, not for the app"
        to_vendor.data_received(b"5\r\nhello\r\n")
        connection.abort()  # as the sweep does when the app has not read for `body_timeout`
        await until(it.at_rest)
        *_, event = [json.loads(line) for line in it.log.splitlines() if '"event":"request"' in line]
        assert (event["code"], event["status"]) == ("client_gone", 499)
        assert "exchange_crashed" not in it.log
        over.set()


# ------------------------------------------------------------------------------------------------------------ over TLS


async def connect_tls(it: Running, authority: trustme.CA) -> Peer:
    """Open a TLS connection for which the kernel buffers little."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    await asyncio.get_running_loop().sock_connect(sock, it.address)
    app = Peer(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname="localhost", limit=SMALL))
    OPENED.append(app)
    return app


@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_large_pieces_go_to_a_slow_app_over_tls_in_parts_as_it_reads_them(framing: str, tmp_path: Path) -> None:
    """Each byte over TLS waits encrypted, too: a piece that was written whole would be held twice."""
    noise, go = random.Random(3).randbytes(3_000_000), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        length = b"Content-Length: %d\r\n" % len(noise) if framing == "sized" else b""
        await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % length)
        await go.wait()
        await peer.send(noise)

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    async with vendor(script) as upstream, running({**one_route(upstream.port), "tls": tls}) as it:
        app = await connect_tls(it, authority)
        await app.send(get("/v/a"))
        head, connection = await app.head(), narrowed(it)
        go.set()
        got, sizes, held = bytearray(), [], 0
        while len(got) < len(noise):
            if framing == "sized":
                got += await app.reader.read(SMALL)
            else:
                got += (piece := await app.chunk())
                sizes.append(len(piece))
            assert connection.transport is not None
            held = max(held, connection.transport.get_write_buffer_size())
        assert got == noise
        assert bool(head.all("Content-Length")) == (framing == "sized")
        assert HIGH_WATER_TLS <= held <= 2 * HIGH_WATER_TLS + 4096
        assert framing == "sized" or max(sizes) == HIGH_WATER_TLS, "larger pieces were cut"
