"""A large body of known length is read in a way of its own: every byte of it arrives, and no byte besides."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import termios
from typing import TYPE_CHECKING, Any

import pytest

from gateway.proxy.intake import LARGE, Intake
from gateway.proxy.wire import BACKLOG, queued
from tests.kit.emulation import ask, emulated, warm
from tests.kit.gateway import one_route, running
from tests.kit.rest import settled, until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from gateway.proxy.client import ClientConnection
    from tests.kit.gateway import Running

MIB = 2**20
NOISE = random.Random(7).randbytes(6 * MIB)

CUTS = {
    "at once": [],
    "in the largest pieces of the loop": [256_000] * 30,
    "one byte more than is still large": [200, LARGE + 1],
    "drop by drop, then at once": [40_000, *[1] * 200, *[1_500] * 200],
    "of all sizes": [300_000, 1, 65_535, 65_536, 65_537, 900_000, 7, 1_200_000, 64_000],
}
"""Sizes in which a message is sent; the rest in one."""

KEPT = {
    "kept": {},
    "not kept": {"replay": {"methods": "none"}},
    "kept up to a point": {"replay": {"up_to": "1MiB"}},
}


def connections(it: Running) -> list[ClientConnection]:
    """Return the connections of all apps."""
    assert it.gateway._data is not None
    return list(it.gateway._data._connections)


def reader(connection: ClientConnection) -> Any:
    """Return what reads a connection at the moment."""
    assert connection.transport is not None
    return connection.transport.get_protocol()


async def send_in_pieces(app: Peer, data: bytes, sizes: list[int]) -> None:
    """Send `data` in pieces of these sizes and let each arrive by itself, as far as the kernel allows that."""
    at = 0
    for size in (*sizes, len(data)):
        await app.send(data[at : at + size])
        at += size
        if at >= len(data):
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("cut", CUTS)
async def test_bodies_that_follow_each_other_arrive_byte_by_byte_however_they_are_cut(cut: str, kept: str) -> None:
    """Pipelined, so that behind each large body stands what belongs to the next request."""
    seen: list[Message] = []
    bodies = [NOISE[: 3 * MIB], NOISE[MIB : MIB + 10], NOISE[2 * MIB : 2 * MIB + LARGE + 2000], b"", NOISE[: 2 * MIB]]
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port, **KEPT[kept])) as it:
        app = await connect(it.address)
        sending = asyncio.create_task(
            send_in_pieces(app, b"".join(post("/v/a", body) for body in bodies), CUTS[cut]),
        )
        assert [(await app.message()).status for _ in bodies] == [200] * len(bodies)
        await sending
        assert not isinstance(reader(connections(it)[0]), Intake)
        assert it.gateway._handler is not None
        assert it.gateway._handler._budget._left == it.gateway._handler._budget._size
        await until(it.at_rest)
    assert [hashlib.sha256(message.body).digest() for message in seen] == [
        hashlib.sha256(body).digest() for body in bodies
    ]


async def test_only_a_large_body_is_read_so_and_only_until_it_ends() -> None:
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        message = post("/v/a", NOISE[:MIB])
        await app.send(message[:1000])
        await until(lambda: len(upstream.received) > 800)
        assert isinstance(reader(connections(it)[0]), Intake)
        await app.send(message[1000:])
        assert (await app.message()).status == 200
        assert not isinstance(reader(connections(it)[0]), Intake)

        message = post("/v/a", NOISE[:LARGE])
        upstream.received.clear()
        await app.send(message[:1000])
        await until(lambda: len(upstream.received) > 800)
        assert not isinstance(reader(connections(it)[0]), Intake)
        await app.send(message[1000:])
        assert (await app.message()).status == 200


async def test_a_large_body_goes_again_whole_when_its_token_is_refused() -> None:
    """The vendor says 401 to the head; what it has not read yet is still coming in."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await ask(it, "uqudo")
        for _ in range(3):
            sandbox.uqudo.revoke()
            app = await connect(it.address)
            message = post("/uqudo/sandbox/sink", NOISE)
            sending = asyncio.create_task(send_in_pieces(app, message, [1000, 2 * MIB, 500_000, 30_000]))
            got = await app.message()
            await sending
            assert json.loads(got.body) == {"bytes": len(NOISE), "sha256": hashlib.sha256(NOISE).hexdigest()}
        assert it.metric("gatepass_replays_total", route="uqudo", outcome="sent") == 3


@pytest.mark.parametrize("size", [100, 65_535, 65_536, 65_537, 100_000])
async def test_a_piece_never_changes_when_the_next_is_read(size: int) -> None:
    """Small ones are read into a buffer that all connections share, and more may have come than was announced."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", f"Content-Length: {MIB}", method="POST") + NOISE[:1000])
        await until(lambda: NOISE[:1000] in upstream.received)
        (connection,) = connections(it)
        intake = reader(connection)
        connection.pause_reading(BACKLOG)
        await app.send(NOISE[1000 : 1000 + size])
        await until(lambda: waiting(connection) == size)
        room = intake.get_buffer(-1)
        room[:] = NOISE[1000 : 1000 + len(room)]
        intake.buffer_updated(len(room))
        if size < 65_536:
            assert len(room) == 65_536
            room[:] = bytes(len(room))
        else:
            assert len(room) == size
        (upload,) = uploads(it)
        assert b"".join(upload._kept) == NOISE[: 1000 + len(room)]
        take(connection, size)
        connection.resume_reading(BACKLOG)
        await app.send(NOISE[1000 + len(room) : MIB])
        assert (await app.message()).status == 200
    assert seen[0].body == NOISE[:MIB]


def take(connection: ClientConnection, size: int) -> None:
    """Take bytes out of the kernel."""
    assert connection.transport is not None
    with connection.transport.get_extra_info("socket").dup() as socket:
        assert len(socket.recv(size)) == size


def waiting(connection: ClientConnection) -> int:
    """Return how many bytes wait in the kernel."""
    assert connection.transport is not None
    return queued(connection.transport.get_extra_info("socket").fileno(), termios.FIONREAD)


@pytest.mark.parametrize("how", ["closes", "resets", "stops"])
async def test_an_app_that_leaves_in_the_middle_leaves_nothing_behind(how: str) -> None:
    cut: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.head()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.reader.readexactly(MIB)
        cut.set_result(True)

    limits = {"limits": {"body_timeout": "1s"}}
    async with vendor(script) as upstream, running({**one_route(upstream.port), **limits}) as it:
        app = await connect(it.address)
        await app.send(post("/v/a", NOISE[:MIB])[:700_000])
        await until(lambda: len(upstream.received) > 690_000)
        if how == "closes":
            app.close()
        elif how == "resets":
            app.reset()
        else:
            assert (await app.message()).status == 408
        async with asyncio.timeout(10):
            assert await cut
        await until(it.at_rest)
        await until(lambda: not connections(it))


async def test_a_vendor_that_answers_before_it_has_all_of_it_is_heard() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(400_000)
        await peer.send(ok(b"enough", b"Connection: close"))
        while await peer.reader.read(MIB):
            pass

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(post("/v/a", NOISE[: 2 * MIB])[:500_000])
        assert (await app.message()).body == b"enough"


async def test_an_app_that_does_not_read_an_answer_to_its_unfinished_upload_holds_the_vendor_back() -> None:
    """The transport tells the reader of the large body, which is not the connection itself."""
    size, sent = 64 * MIB, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(bytes(MIB))
            sent += MIB

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        app.pause_reading()
        await app.send(post("/v/a", NOISE[:MIB])[:1000])
        assert await settled(lambda: sent) < size // 2
        (connection,) = connections(it)
        assert (isinstance(reader(connection), Intake), connection.writing_paused) == (True, True)
        app.resume_reading()
        answer = await app.message()
        assert (answer.status, len(answer.body), answer.one("Connection")) == (200, size, b"close")
        assert await app.at_end()


def uploads(it: Running) -> list[Any]:
    """Return the uploads that are read by an intake."""
    return [reader(each)._upload for each in connections(it) if isinstance(reader(each), Intake)]


async def test_many_slow_uploads_take_their_bytes_and_little_more() -> None:
    """A piece that is small is copied: else it would hold the room that a large one would have had."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port, pool={"size": 60})) as it:
        apps = [await connect(it.address) for _ in range(50)]
        for app in apps:
            await app.send(get("/v/a", f"Content-Length: {MIB}", method="POST"))
        for turn in range(20):
            for app in apps:
                await app.send(NOISE[turn * 100 : turn * 100 + 100])
            size = 100 * (turn + 1)
            await until(lambda: [up.size for up in uploads(it)] == [size] * 50)  # noqa: B023 - it ends before the next turn
        pieces = [piece for upload in uploads(it) for piece in upload._kept]
        assert len(pieces) >= 50 * 19
        assert {type(piece) for piece in pieces} == {bytes}
