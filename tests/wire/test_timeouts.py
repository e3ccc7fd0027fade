"""Whoever is silent for too long is cut off in bounded time, while others are served.

Here the gateway's time-outs race with apps and vendors that keep time themselves; so no test believes a failure that
came with a stall of the machine.
"""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.stall import unless_stalled
from tests.kit.wire import PATIENCE, Peer, answering, connect, get, ok, post, vendor


async def nothing(peer: Peer) -> None:
    """A vendor that takes everything and says nothing."""
    while await peer.reader.read(2**16):
        pass


def limits(port: int, route: dict[str, object] | None = None, **values: object) -> dict[str, object]:
    return {**one_route(port, **(route or {})), "limits": values}


SLOW_HEADS = {
    "nothing at all": [],
    "half a request line": [b"GET /v/a"],
    "a head without its end": [b"GET /v/a HTTP/1.1\r\nHost: x\r\n"],
    "drop by drop": [b"G", b"E", b"T", b" ", b"/", b"v", b"/", b"a", b" ", b"H", b"T", b"T", b"P", b"/"],
    "field by field": [b"GET /v/a HTTP/1.1\r\n", *[b"X-%d: y\r\n" % index for index in range(20)]],
}


@pytest.mark.parametrize("name", SLOW_HEADS)
@unless_stalled
async def test_a_slow_head_is_cut_off_in_bounded_time(name: str) -> None:
    """408 where something had come, a plain close where nothing had; drops do not extend the time."""
    async with vendor(answering(ok())) as upstream, running(limits(upstream.port, header_timeout="200ms")) as it:
        app = await connect(it.address)
        loop = asyncio.get_running_loop()
        started = loop.time()
        end = asyncio.create_task(app.reader.read(-1))
        for drop in SLOW_HEADS[name]:
            if end.done():
                break
            await app.send(drop)
            await asyncio.sleep(0.03)
        other = await connect(it.address)
        await other.send(get("/v/a"))
        assert (await other.message()).status == 200
        said = await asyncio.wait_for(end, PATIENCE)
        assert 0.15 < loop.time() - started < 1.2
        assert said.startswith(b"HTTP/1.1 408 ") == (name != "nothing at all")
        assert (said == b"") == (name == "nothing at all")


@unless_stalled
async def test_an_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    """In silence, and not before."""
    async with vendor(answering(ok())) as upstream, running(limits(upstream.port, keepalive_timeout="200ms")) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        await app.message()
        await asyncio.sleep(0.1)
        await app.send(get("/v/a"))
        assert (await app.message()).status == 200
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await app.reader.read(-1) == b""
        assert 0.15 < loop.time() - started < 1


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@unless_stalled
async def test_a_slow_body_is_408_and_the_vendor_sees_it_cut_off(framing: str) -> None:
    """Counted as silence: what keeps coming may take its time, where no rate is asked for."""
    field = "Content-Length: 100" if framing == "sized" else "Transfer-Encoding: chunked"
    async with vendor(nothing) as upstream, running(limits(upstream.port, body_timeout="200ms", body_rate=0)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", field, method="POST"))
        for _ in range(8):
            await asyncio.sleep(0.05)
            await app.send(b"x" if framing == "sized" else b"1\r\nx\r\n")
        loop = asyncio.get_running_loop()
        started = loop.time()
        got = await app.message()
        assert (got.status, b'"request_timeout"' in got.body) == (408, True)
        assert 0.1 < loop.time() - started < 1
        assert await app.at_end()
        assert it.at_rest()


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@unless_stalled
async def test_a_body_that_drips_is_cut_off_while_others_are_served(framing: str) -> None:
    """A byte now and then is no silence, but it would hold a vendor's connection for days; a slow one goes on."""
    field = "Content-Length: 100000" if framing == "sized" else "Transfer-Encoding: chunked"

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(ok())

    async with vendor(script) as upstream, running(limits(upstream.port, body_timeout="300ms", body_rate=200)) as it:
        dripping, slow, other = [await connect(it.address) for _ in range(3)]
        await dripping.send(get("/v/a", field, method="POST"))
        await slow.send(get("/v/a", "Content-Length: 1500", method="POST"))
        answer = asyncio.ensure_future(dripping.message())
        for _ in range(15):
            await asyncio.sleep(0.05)
            if not answer.done():
                await dripping.send(b"x" if framing == "sized" else b"1\r\nx\r\n")
            await slow.send(b"x" * 100)
            await other.send(get("/v/b"))
            assert (await other.message()).status == 200
        assert answer.done(), "cut off while it still dripped"
        assert ((await answer).status, (await slow.message()).status) == (408, 200)


@unless_stalled
async def test_an_app_that_stops_reading_is_cut_off() -> None:
    """Its vendor connection, too; one that reads slowly is not."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**26)
        for _ in range(2**10):
            await peer.send(b"x" * 2**16)

    async with vendor(script) as upstream, running(limits(upstream.port, body_timeout="300ms")) as it:
        stopped, slow = await connect(it.address), await connect(it.address, buffer=2**14)
        stopped.pause_reading()
        await stopped.send(get("/v/a"))
        await slow.send(get("/v/a"))
        await slow.head()
        for _ in range(12):
            assert await slow.reader.read(2**16)
            await asyncio.sleep(0.1)
        assert it.gateway._data is not None
        assert it.gateway._data.connections == 1
        assert not slow.reader.at_eof()
        slow.reset()


@unless_stalled
async def test_an_app_that_takes_no_answer_and_closes_nothing_is_let_go() -> None:
    """The answer fits the buffers, so no write waits for it; the connection must end all the same."""
    answer = ok(b"x" * 120_000)
    async with (
        vendor(answering(answer)) as upstream,
        running(limits(upstream.port, body_timeout="200ms", keepalive_timeout="200ms")) as it,
    ):
        app = await connect(it.address)
        app.pause_reading()
        app.writer.write(get("/v/a") * 200)
        assert it.gateway._data is not None
        await until(lambda: it.gateway._data and not it.gateway._data.connections, within=3)


FIRST_BYTE = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "an interim response": b"HTTP/1.1 103 X\r\n\r\n",
}


@pytest.mark.parametrize("name", FIRST_BYTE)
@unless_stalled
async def test_a_vendor_that_does_not_answer_in_time_is_504(name: str) -> None:
    """From the request's last byte to the whole head."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(FIRST_BYTE[name])
        await peer.at_end()

    async with (
        vendor(script) as upstream,
        running(one_route(upstream.port, timeouts={"first_byte": "200ms"})) as it,
    ):
        app = await connect(it.address)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await app.send(get("/v/a"))
        got = await app.message()
        assert (got.status, b'"upstream_timeout"' in got.body) == (504, True)
        assert 0.15 < loop.time() - started < 1
        await app.send(get("/v/nowhere"))
        assert it.at_rest()


@unless_stalled
async def test_the_first_byte_time_does_not_run_while_the_app_still_uploads() -> None:
    """It is the vendor's time, from the last byte of the request."""

    async def script(peer: Peer) -> None:
        await peer.send(ok((await peer.message()).body))

    async with (
        vendor(script) as upstream,
        running(one_route(upstream.port, timeouts={"first_byte": "200ms"})) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", "Content-Length: 10", method="POST"))
        for _ in range(10):
            await app.send(b"x")
            await asyncio.sleep(0.05)
        assert (await app.message()).body == b"x" * 10


@unless_stalled
async def test_a_vendor_that_takes_no_more_of_an_upload_is_504() -> None:
    """After the idle time."""
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.pause_reading()
        await done.wait()

    async with (
        vendor(script) as upstream,
        running(one_route(upstream.port, max_body=None, timeouts={"idle": "200ms"})) as it,
    ):
        app = await connect(it.address)
        app.writer.write(get("/v/a", f"Content-Length: {2**26}", method="POST") + b"x" * 2**24)
        assert (await app.message()).status == 504
        assert it.at_rest()
        done.set()


@unless_stalled
async def test_silence_inside_an_answer_cuts_it_off() -> None:
    """And what keeps coming may take its time."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(8):
            await peer.send(b"x")
            await asyncio.sleep(0.05)
        await peer.at_end()

    async with vendor(script) as upstream, running(one_route(upstream.port, timeouts={"idle": "200ms"})) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        await app.head()
        assert await app.reader.readexactly(8) == b"x" * 8
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await app.reader.readexactly(1)
        assert '"code":"aborted"' in it.log
        assert it.at_rest()


@pytest.mark.parametrize("phase", ["before the head", "inside the body"])
@unless_stalled
async def test_the_time_for_the_whole_exchange_is_bounded_where_the_route_says_so(phase: str) -> None:
    """However busy both sides are."""

    async def script(peer: Peer) -> None:
        await peer.message()
        if phase == "inside the body":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                await peer.send(b"x")
                await asyncio.sleep(0.02)
        await peer.at_end()

    async with vendor(script) as upstream, running(one_route(upstream.port, timeouts={"total": "300ms"})) as it:
        app = await connect(it.address)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await app.send(get("/v/a"))
        if phase == "before the head":
            assert (await app.message()).status == 504
        else:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await app.message()
        assert 0.2 < loop.time() - started < 1
        assert it.at_rest()


@unless_stalled
async def test_a_vendor_that_does_not_complete_a_handshake_is_504() -> None:
    """The connect time covers the name, TCP and TLS."""
    async with vendor(nothing) as upstream:
        config = one_route(upstream.port, upstream=f"https://localhost:{upstream.port}", timeouts={"connect": "200ms"})
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            got = await app.message()
            assert (got.status, b'"upstream_timeout"' in got.body) == (504, True)
            assert b"connection_timeout" in got.one("Proxy-Status")
            assert it.at_rest()


def read_slowly(listening: socket.socket, step: int, every: float) -> None:
    """A vendor that reads `step` bytes of a request every so many seconds, and answers when all have come."""
    peer, _ = listening.accept()
    with peer:
        data = b""
        while b"\r\n\r\n" not in data:
            data += peer.recv(step)
        head, _, body = data.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].split()[0]) - len(body)
        while left and (data := peer.recv(step)):
            left -= len(data)
            time.sleep(every)
        if not left:
            peer.sendall(ok())
            peer.recv(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("timeouts", "size", "step"),
    [({"idle": "150ms"}, 6 * 2**20, 2**15), ({"first_byte": "200ms"}, 2**20, 2**13)],
    ids=["idle", "first byte"],
)
@unless_stalled
async def test_an_upload_that_moves_slowly_all_the_time_is_not_a_time_out(
    timeouts: dict[str, str], size: int, step: int
) -> None:
    """Neither while the app still sends, nor while its last bytes wait in the kernel for the vendor."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        reading = asyncio.create_task(asyncio.to_thread(read_slowly, listening, step, 0.015))
        port = listening.getsockname()[1]
        async with running(one_route(port, timeouts=timeouts)) as it:
            app = await connect(it.address)
            app.writer.write(post("/v/a", b"x" * size))
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert (await app.message()).status == 200
            assert loop.time() - began > 1, "it was not slow"
            app.close()
        await reading
