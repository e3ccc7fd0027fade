"""Real clients and real servers: the same suite of exchanges with every pair of them, a gateway between."""

from __future__ import annotations

import hashlib

import aiohttp
import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.peers import clients, servers

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
