"""Real clients and real servers: the same suite of exchanges with every pair of them, a gateway between."""

from __future__ import annotations

import asyncio
import hashlib
from random import Random

import aiohttp
import pytest
import websockets
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.peers import clients, servers
from tests.kit.rest import Rest
from tests.kit.wire import connect, get

CLIENTS = ["curl", "requests", "httpx", "aiohttp", "node"]
SERVERS = ["nginx", "node", "uvicorn"]
EXPECTED = {
    "json": {"got": {"name": "Zoë"}, "auth": f"Bearer {CANARY}"},
    "upload": [200, {"whole": True}],
    "download": hashlib.sha256(b"".join(bytes([index]) * 65536 for index in range(80))).hexdigest(),
    "range": [206, "2345", "bytes 2-5/10"],
    "redirect": [302, "/elsewhere?x=1"],
    "cookie": ["a=1; Path=/", "b=2"],
    "gzip": "hello " * 100,
    "events": "data: 0\n\ndata: 1\n\ndata: 2\n\n",
}


@pytest.mark.parametrize("server", SERVERS)
async def test_every_client_gets_the_same_from_a_server_through_the_gateway(server: str) -> None:
    """JSON, 20 MB of multipart, a download, a range, a redirect, cookies, gzip, events."""
    if reason := servers.missing(server):
        pytest.skip(reason)
    left_out = []
    async with servers.server(server) as port, running(one_route(port)) as it:
        for client in CLIENTS:
            if reason := clients.missing(client):
                left_out.append(reason)
                continue
            assert await clients.run(client, f"{it.url}/v") == EXPECTED, client
        assert it.at_rest()
    if left_out:
        pytest.skip("the others passed, but " + ", ".join(left_out))


async def test_a_websocket_between_aiohttp_and_uvicorn() -> None:
    """Text, a mebibyte of bytes, a ping, and the vendor's close code."""
    if reason := servers.missing("uvicorn"):
        pytest.skip(reason)
    async with (
        servers.server("uvicorn") as port,
        running(one_route(port)) as it,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{it.url}/v/ws", protocols=["chat"], max_msg_size=2**22, compress=15) as socket,
    ):
        assert socket.protocol == "chat"
        await socket.send_str("Zoë")
        assert await socket.receive_str() == "Zoë"
        await socket.send_bytes(bytes(2**20))
        assert await socket.receive_bytes() == bytes(2**20)
        await socket.ping()
        await socket.send_str("bye")
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 4001


async def test_a_websocket_between_websockets_and_aiohttps_server() -> None:
    """Two other implementations: compression, fragments, pings from the vendor, and the app's close code."""
    closed: asyncio.Future[tuple[int | None, list[str]]] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["chat"], max_msg_size=2**22, heartbeat=30)
        await socket.prepare(request)
        await socket.send_str(request.headers["Authorization"])
        await socket.ping(b"are you there")
        said = []
        async for message in socket:
            said.append(message.type.name)
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        closed.set_result((socket.close_code, said))
        return socket

    app = web.Application()
    app.router.add_get("/ws", handle)
    async with TestServer(app) as server, running(one_route(server.port or 0)) as it:
        rest = Rest(it)
        async with websockets.connect(
            f"ws://127.0.0.1:{it.address[1]}/v/ws",
            subprotocols=[websockets.Subprotocol("chat")],
            max_size=2**22,
            proxy=None,
        ) as socket:
            assert socket.subprotocol == "chat"
            assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
            assert await socket.recv() == f"Bearer {CANARY}"
            await socket.send("Zoë")
            assert await socket.recv() == "Zoë"
            await socket.send([b"a" * 2**19, b"b" * 2**19])  # a message in two fragments
            assert await socket.recv() == b"a" * 2**19 + b"b" * 2**19
            await (await socket.ping(b"and you"))
            await socket.close(4002, "enough")
        assert socket.close_code == 1000, "aiohttp's own word"
        async with asyncio.timeout(30):
            assert await closed == (4002, ["TEXT", "BINARY"])
        assert await rest.comes(within=10), rest.left_over


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_masked_frames_of_an_app_arrive_as_they_were_sent(size: int) -> None:
    """Of every form of a length (RFC 6455 §5.2), under the app's own mask: the vendor reads what the app meant."""
    payload, mask = Random(size).randbytes(size), b"\x0f\xf0\x5a\xa5"
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    frame = b"\x82" + length + mask + masked

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", handle)
    async with TestServer(app) as server, running(one_route(server.port or 0)) as it:
        peer = await connect(it.address)
        fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        await peer.send(get("/v/ws", *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==") + frame)
        got = await peer.head()
        assert (got.status, got.one("Sec-WebSocket-Accept")) == (101, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        unmasked = b"\x82" + (bytes([length[0] & 0x7F]) + length[1:])
        async with asyncio.timeout(30):
            assert await peer.reader.readexactly(len(unmasked) + size) == unmasked + payload
            await peer.send(b"\x88\x82" + mask + bytes(a ^ b for a, b in zip(b"\x03\xe8", mask, strict=False)))
            assert (await peer.reader.readexactly(4)) == b"\x88\x02\x03\xe8"
