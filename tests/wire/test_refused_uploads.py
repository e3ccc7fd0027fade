"""A token that is refused while its request is still being uploaded: the body goes again whole, or not at all."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.kit.gateway import CANARY, running
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, connect, get, ok, vendor

BODY = bytes(index % 251 for index in range(200_000))
PART = 10_000
"""Bytes that the app sends before the vendor answers."""
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\n"


class Tokens:
    """A token endpoint whose second answer waits for `go`."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self._fails = fails

    async def __call__(self, peer: Peer) -> None:
        await peer.message()
        self.asked += 1
        if self.asked > 1:
            await self.go.wait()
            if self._fails:
                await peer.send(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
                return
        answer = {"access_token": f"{CANARY}-{self.asked}", "token_type": "bearer", "expires_in": 3600}
        await peer.send(ok(json.dumps(answer).encode()))


def config(tokens: int, api: int, **route: object) -> dict[str, object]:
    request = {"url": f"http://127.0.0.1:{tokens}/token", "form": {"grant_type": "client_credentials"}}
    return {
        "credentials": {"key": {"grant": {"request": request}}},
        "routes": {"v": {"credential": "key", "upstream": f"http://127.0.0.1:{api}", **route}},
    }


def head(framing: str, size: int = len(BODY)) -> bytes:
    field = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}"
    return get("/v/a", field, method="POST")


def framed(framing: str, data: bytes, *, last: bool = False) -> bytes:
    if framing == "length":
        return data
    return b"%x\r\n%b\r\n%b" % (len(data), data, b"0\r\n\r\n" if last else b"")


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("size", [3 * PART, len(BODY)], ids=["ends meanwhile", "goes on"])
@pytest.mark.parametrize(
    "bound",
    [
        pytest.param({"replay": {"up_to": 2 * PART}}, id="the route's"),
        pytest.param({"replay_budget": 2 * PART}, id="of all bodies"),
        pytest.param({}, id="not reached"),
    ],
)
async def test_a_body_that_outgrows_its_replay_while_a_token_is_fetched_arrives_whole(
    framing: str, size: int, bound: dict[str, object]
) -> None:
    """What follows the refusal is not sent to the vendor that refused, and not forgotten."""
    seen: list[Message] = []

    async def api(peer: Peer) -> None:
        while True:
            request = await peer.head()
            refused = request.one("Authorization").endswith(b"-1")
            if refused:
                await peer.send(REFUSAL + b"refused")
            await peer.body(request)
            if not refused:
                seen.append(request)
                await peer.send(ok())

    tokens = Tokens()
    async with vendor(tokens) as endpoint, vendor(api) as upstream:
        whole = config(endpoint.port, upstream.port, **({"replay": bound["replay"]} if "replay" in bound else {}))
        if "replay_budget" in bound:
            whole["replay_budget"] = bound["replay_budget"]
        async with running(whole) as it:
            app = await connect(it.address)
            await app.send(head(framing, size) + framed(framing, BODY[:PART]))
            await until(lambda: tokens.asked == 2)
            for at in range(PART, size, PART):
                app.writer.write(framed(framing, BODY[at : at + PART], last=at + PART == size))
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            tokens.go.set()
            assert (await app.message()).status == 200
            assert it.metric("gatepass_replays_total", route="v", outcome="sent") == 1
    assert [request.body == BODY[:size] for request in seen] == [True]


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_an_upload_goes_on_when_its_refused_token_has_no_successor(framing: str) -> None:
    """The vendor's answer is passed on, which may end only after the vendor has read everything."""
    refused: list[Message] = []

    async def api(peer: Peer) -> None:
        while True:
            request = await peer.head()
            await peer.send(REFUSAL)
            refused.append(await peer.body(request))
            await peer.send(b"refused")

    tokens = Tokens()
    tokens.go.set()
    async with vendor(tokens) as endpoint, vendor(api) as upstream, running(config(endpoint.port, upstream.port)) as it:
        for _ in range(3):  # until refusals of tokens that the vendor never accepted are not believed
            app = await connect(it.address)
            await app.send(head(framing) + framed(framing, BODY[:PART]))
            await asyncio.sleep(0.02)
            await app.send(framed(framing, BODY[PART:], last=True))
            got = await app.message()
            assert (got.status, got.body) == (401, b"refused")
            app.close()
        assert it.metric("gatepass_replays_total", route="v", outcome="no_token") >= 1
    assert refused[-1].body == BODY


async def test_an_upload_whose_next_token_cannot_be_fetched_gets_that_error() -> None:
    """And nothing waits for the rest of the body."""

    async def api(peer: Peer) -> None:
        await peer.head()
        await peer.send(REFUSAL + b"refused")
        while await peer.reader.read(2**16):
            pass

    tokens = Tokens(fails=True)
    tokens.go.set()
    async with vendor(tokens) as endpoint, vendor(api) as upstream, running(config(endpoint.port, upstream.port)) as it:
        app = await connect(it.address)
        await app.send(head("length") + BODY[:PART])
        got = await app.message()
        assert (got.status, json.loads(got.body)["code"]) == (503, "token_unavailable")
        assert await app.at_end()
        await until(it.at_rest)
