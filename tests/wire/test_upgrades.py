"""WebSockets (RFC 6455): negotiated end to end, then bytes both ways; nothing else is tunnelled."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.rest import Rest, settled, until
from tests.kit.stall import unless_stalled
from tests.kit.wire import PATIENCE, Message, Peer, answering, connect, get, ok, vendor

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = get(
    "/v/ws?token=app",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + ACCEPT
    + b"\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


async def echo(peer: Peer) -> None:
    """A vendor that switches and sends everything back."""
    await peer.head()
    await peer.send(SWITCH)
    while data := await peer.reader.read(2**16):
        await peer.send(data)


async def test_everything_is_negotiated_end_to_end_and_the_token_is_on_the_handshake() -> None:
    """Key, accept, sub-protocols and extensions are the two ends' business."""
    seen: list[Message] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.head())
        await peer.send(SWITCH)
        await peer.at_end()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(HANDSHAKE.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n"))
        got = await app.head()
        assert got.status == 101
        assert got.one("X-Request-Id") == b"mine"
        assert got.one("Sec-WebSocket-Accept") == ACCEPT
        assert got.one("Sec-WebSocket-Protocol") == b"chat"
        assert got.one("Sec-WebSocket-Extensions") == b"permessage-deflate"
        assert (got.one("Connection"), got.one("Upgrade")) == (b"Upgrade", b"websocket")
        assert not got.all("Content-Length")
        assert not got.all("Transfer-Encoding")
    head = seen[0]
    assert head.target == b"/ws?token=app"
    assert head.one("X-Request-Id") == b"mine"
    assert head.one("Authorization") == f"Bearer {CANARY}".encode()
    assert head.one("Sec-WebSocket-Key") == KEY.encode()
    assert head.one("Sec-WebSocket-Protocol") == b"chat, superchat"
    assert (head.one("Connection"), head.one("Upgrade")) == (b"Upgrade", b"websocket")


FRAMES = {
    "ping": b"\x89\x80abcd",
    "pong": b"\x8a\x05hello",
    "close 1001": b"\x88\x02\x03\xe9",
    "close 4999 with a reason": b"\x88\x05\x13\x87bye",
    "1 MiB binary": b"\x82\x7f" + (2**20).to_bytes(8, "big") + bytes(range(256)) * 4096,
    "fragments": b"\x01\x03abc\x00\x03def\x80\x00",
    "not a frame at all": b"GET / HTTP/1.1\r\n\r\n\xff\x00",
}


@pytest.mark.parametrize("name", FRAMES)
async def test_frames_pass_both_ways_unseen(name: str) -> None:
    """Control frames, close codes and a megabyte."""
    async with vendor(echo) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(HANDSHAKE)
        await app.head()
        await app.send(FRAMES[name])
        async with asyncio.timeout(PATIENCE):
            assert await app.reader.readexactly(len(FRAMES[name])) == FRAMES[name]


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"], ids=["", "behind a 103"])
@pytest.mark.parametrize("pieces", [1, 2, 5])
async def test_early_bytes_are_kept_on_both_sides(pieces: int, interim: bytes) -> None:
    """Those behind the request, and those behind the 101, in one segment or several."""

    async def script(peer: Peer) -> None:
        await peer.head()
        raw = interim + SWITCH + b"early down"
        for index in range(pieces):
            await peer.send(raw[index * len(raw) // pieces : (index + 1) * len(raw) // pieces])
            await asyncio.sleep(0.005)
        assert await peer.reader.readexactly(8) == b"early up"
        await peer.send(b"!")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        raw = HANDSHAKE + b"early up"
        for index in range(pieces):
            await app.send(raw[index * len(raw) // pieces : (index + 1) * len(raw) // pieces])
            await asyncio.sleep(0.005)
        assert (await app.head()).status == 101
        assert await app.reader.readexactly(11) == b"early down!"


@pytest.mark.parametrize("first", ["app", "vendor"])
async def test_a_half_close_is_carried_over(first: str) -> None:
    """The other direction goes on until it ends, too."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        if first == "vendor":
            peer.writer.write_eof()
            assert await peer.reader.read(-1) == b"last words"
        else:
            assert await peer.reader.read(-1) == b""
            await peer.send(b"last words")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        rest = Rest(it)
        app = await connect(it.address)
        await app.send(HANDSHAKE)
        await app.head()
        if first == "vendor":
            assert await app.reader.read(-1) == b""
            await app.send(b"last words")
            app.writer.write_eof()
        else:
            app.writer.write_eof()
            assert await app.reader.read(-1) == b"last words"
        app.close()
        await asyncio.sleep(0.02)
        assert await rest.comes(), rest.left_over


@pytest.mark.parametrize("who", ["app", "vendor", "vendor after its half-close", "app after its half-close"])
@unless_stalled
async def test_a_reset_of_one_side_ends_the_tunnel(who: str) -> None:
    """On the other side, too; nothing is left over. A reset behind a half-close shows only to the sweep."""
    side = who.partition(" ")[0]
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await go.wait()
        if side == "vendor":
            if "half" in who:
                peer.writer.write_eof()
                await asyncio.sleep(0.03)
            peer.reset()
        else:
            while await peer.reader.read(2**16):
                pass
            if "half" in who:
                await asyncio.sleep(0.5)

    async with vendor(script) as upstream, running(one_route(upstream.port, timeouts={"idle": 0.8})) as it:
        rest = Rest(it)
        app = await connect(it.address)
        await app.send(HANDSHAKE)
        await app.head()
        go.set()
        if side == "app":
            if "half" in who:
                app.writer.write_eof()
                await asyncio.sleep(0.03)
            app.reset()
        else:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(app.reader.read(-1), 1)
            await until(it.at_rest, within=0.4)
            app.close()
        await until(it.at_rest, within=0.4)
        assert await rest.comes(), rest.left_over


@unless_stalled
async def test_an_idle_tunnel_is_closed_after_the_idle_time() -> None:
    """A ping in either direction keeps it."""
    async with vendor(echo) as upstream, running(one_route(upstream.port, timeouts={"idle": "200ms"})) as it:
        app = await connect(it.address)
        await app.send(HANDSHAKE)
        await app.head()
        for _ in range(6):
            await asyncio.sleep(0.08)
            await app.send(FRAMES["pong"])
            await app.reader.readexactly(len(FRAMES["pong"]))
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await app.at_end()
        assert 0.1 < loop.time() - started < 1
        app.close()
        await until(it.at_rest)


async def test_a_side_that_does_not_read_holds_the_other_back() -> None:
    """A tunnel has bounded memory, too."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(SWITCH)
        while sent < 2**26:
            await peer.send(b"x" * 2**16)
            sent += 2**16

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        app.pause_reading()
        await app.send(HANDSHAKE)
        assert await settled(lambda: sent) < 3 * 2**23
        app.resume_reading()
        await app.head()
        got = 0
        while got < 2**26 and (data := await app.reader.read(2**20)):
            got += len(data)
        assert got == 2**26


REFUSALS = {
    "403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    "426": b"HTTP/1.1 426 Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nContent-Length: 2\r\n\r\nno",
    "200": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_upgrade_is_an_ordinary_answer(name: str) -> None:
    """Passed on, and then the connection is closed: what follows might be frames."""
    async with vendor(answering(REFUSALS[name])) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(HANDSHAKE + b"\x82\x01x")
        got = await app.message()
        assert (got.status, got.body, got.one("Connection")) == (int(name), b"no", b"close")
        assert await app.at_end()
        assert it.at_rest()


PLAIN = {
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    "another protocol": ["Connection: Upgrade", "Upgrade: foo/1"],
    "two protocols": ["Connection: Upgrade", "Upgrade: websocket, h2c"],
    "two fields": ["Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"],
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.0"],
    "not nominated": ["Upgrade: websocket"],
}


@pytest.mark.parametrize("name", PLAIN)
async def test_nothing_but_a_websocket_is_tunnelled(name: str) -> None:
    """Served as if no upgrade had been asked for (RFC 9110 §7.8 allows it)."""
    seen: list[Message] = []
    async with vendor(answering(ok(b"plain"), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", *PLAIN[name]) + get("/v/behind"))
        got = await app.message()
        assert (got.body, got.one("Connection")) == (b"plain", b"close")
        assert await app.at_end()
    assert len(seen) == 1
    for field in ("Upgrade", "HTTP2-Settings", "Connection"):
        assert not seen[0].all(field)


@pytest.mark.parametrize("how", ["not allowed on the route", "with POST", "with a body", "in HTTP/1.0"])
async def test_a_websocket_is_opened_only_as_rfc_6455_has_it(how: str) -> None:
    """And only where the route allows it."""
    seen: list[Message] = []
    raw = {
        "with POST": HANDSHAKE.replace(b"GET", b"POST"),
        "with a body": HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: websocket\r\nContent-Length: 1") + b"x",
        "in HTTP/1.0": HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    }.get(how, HANDSHAKE)
    route = {"websocket": False} if how == "not allowed on the route" else {}
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port, **route)) as it:
        app = await connect(it.address)
        await app.send(raw)
        assert (await app.message()).status == 200
    assert not seen[0].all("Upgrade")


BAD_SWITCHES = {
    "unasked": (get("/v/a"), SWITCH),
    "to another protocol": (HANDSHAKE, SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c")),
    "to none": (HANDSHAKE, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
}


@pytest.mark.parametrize("name", BAD_SWITCHES)
async def test_a_switch_that_was_not_asked_for_is_502(name: str) -> None:
    """And its bytes go nowhere."""
    raw, switch = BAD_SWITCHES[name]
    async with vendor(answering(switch + b"poison", ok(b"own"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(raw)
        got = await app.message()
        assert (got.status, b"poison" in got.body) == (502, False)
        other = await connect(it.address)
        await other.send(get("/v/b"))
        assert (await other.message()).body == b"own"
        assert it.at_rest()
