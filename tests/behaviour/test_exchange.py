"""One request and its answer, on real sockets: what goes up, what comes down, in which framing."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method_reaches_the_vendor_with_the_token_once(method: str) -> None:
    """The app's own Authorization is replaced, whatever it says."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Authorization: Bearer mine", method=method))
        assert (await app.message()).status == 200
    assert seen[0].start == f"{method} /a HTTP/1.1".encode()
    assert seen[0].one("Authorization") == f"Bearer {CANARY}".encode()
    assert seen[0].one("Host") == f"127.0.0.1:{upstream.port}".encode()


async def test_path_query_and_foreign_fields_pass_byte_for_byte() -> None:
    """Encoded slashes, empty and repeated parameters, duplicate fields and their order stay as they are."""
    target = "/v/x/did:hid:testnet:z6M%23key-1/a%2Fb/+%20?q=&q=%2f&q&r=a+b"
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get(target, "X-A: 1", "X-B: caf\xe9", "X-A: 2", "Via: 1.1 edge"))
        await app.message()
    assert seen[0].target == target[2:].encode()
    passed = [pair for pair in seen[0].headers if pair[0] in {b"X-A", b"X-B"}]
    assert passed == [(b"X-A", b"1"), (b"X-B", b"caf\xe9"), (b"X-A", b"2")]
    assert [via[:12] for via in seen[0].all("Via")] == [b"1.1 edge", b"1.1 gatepass"]


@pytest.mark.parametrize(
    "field",
    [
        "Cookie: a=b",
        "Proxy-Authorization: Basic x",
        "X-Gatepass-Key: gp_x",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X_Forwarded_For: 1.2.3.4",
        "Origin: https://app.example",
        "Referer: https://app.example/x",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Proxy-Connection: keep-alive",
        "X-Hop: secret",
        "authorization_: x",
    ],
    ids=lambda field: field.split(":")[0],
)
async def test_what_is_not_the_vendors_business_does_not_reach_it(field: str) -> None:
    """Hop-by-hop fields, what Connection nominates, credentials of the app, and where the app came from."""
    seen: list[Message] = []
    name = field.partition(":")[0]
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", field, "Connection: x-hop, authorization"))
        await app.message()
    expected = [b"x"] if name == "authorization_" else []
    assert seen[0].all(name) == expected
    assert seen[0].one("Authorization") == f"Bearer {CANARY}".encode()


async def test_a_look_alike_of_the_injected_field_is_dropped() -> None:
    """Servers behind CGI read X_Key as X-Key: it would arrive beside ours."""
    seen: list[Message] = []
    config = one_route(0)
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, inject=[{"header": "X-Api-Key", "credential": "key", "format": "{token}"}])
        del config["routes"]["v"]["credential"]
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", "X_Api_Key: evil", "x-api-key: evil"))
            await app.message()
    assert [value for name, value in seen[0].headers if b"pi" in name.lower()] == [CANARY.encode()]


async def test_the_answer_passes_unchanged_but_for_what_is_listed() -> None:
    """Statuses, unknown fields, repeated Set-Cookie in order; Via, the request id and Cache-Control are added."""
    answer = (
        b"HTTP/1.1 418 Short And Stout\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nSet-Cookie: a=1\r\n"
        b"Content-Length: 2\r\n"
        b"Content-Encoding: gzip\r\nX-Odd: \xff\xfe\r\nSet-Cookie: b=2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\x1f\x8b"
    )
    async with vendor(answering(answer)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "X-Request-Id: abc-1"))
        got = await app.message()
    assert got.start == b"HTTP/1.1 418 Short And Stout"
    assert got.headers == [
        (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"Set-Cookie", b"a=1"),
        (b"Content-Encoding", b"gzip"),
        (b"X-Odd", b"\xff\xfe"),
        (b"Set-Cookie", b"b=2"),
        (b"Via", b"1.1 gatepass"),
        (b"X-Request-Id", b"abc-1"),
        (b"Cache-Control", b"private, no-store"),
        (b"Content-Length", b"2"),
    ]
    assert got.body == b"\x1f\x8b"


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb"], ids=["empty", "long", "space", "tab"])
async def test_an_unusable_request_id_is_replaced(given: str) -> None:
    """At most 128 visible ASCII characters are kept; the vendor and the app see the same one."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", f"X-Request-Id: {given}"))
        got = await app.message()
    assert len(got.one("X-Request-Id")) == 32
    assert seen[0].one("X-Request-Id") == got.one("X-Request-Id")


RESPONSES = {
    "sized": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"hello",
    ),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n", b"hello"),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n", b""),
    "interim": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", RESPONSES)
async def test_every_framing_of_an_answer_arrives_whole(name: str) -> None:
    """And the connection serves the next request."""
    raw, body = RESPONSES[name]

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(raw)
            if name == "until close":
                return

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(get("/v/a"))
            assert (await app.message()).body == body
        assert upstream.connections == (3 if name == "until close" else 1)


async def test_a_head_request_gets_the_fields_and_no_body() -> None:
    """Also when the vendor wrongly sends one: its bytes never become the next answer."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    answers = answering(answer, answer + b"wrong", ok(b"next"))
    async with vendor(answers) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(2):
            await app.send(get("/v/a", method="HEAD"))
            got = await app.message(is_head=True)
            assert (got.status, got.one("Content-Length")) == (200, b"5")
        await app.send(get("/v/a"))
        assert (await app.message()).body == b"next"


BODIES = {
    "sized": (b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "empty": (b"Content-Length: 0\r\n\r\n", b""),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", b"hello"),
    "chunked and empty": (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    "none": (b"\r\n", b""),
}


@pytest.mark.parametrize("pace", ["at once", "byte by byte"])
@pytest.mark.parametrize("name", BODIES)
async def test_every_framing_of_a_request_arrives_whole(name: str, pace: str) -> None:
    """In one segment and in many."""
    rest, body = BODIES[name]
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(2):
            raw = b"POST /v/a HTTP/1.1\r\nHost: x\r\n" + rest
            if pace == "at once":
                await app.send(raw)
            else:
                for index in range(len(raw)):
                    await app.send(raw[index : index + 1])
                    await asyncio.sleep(0)
            assert (await app.message()).status == 200
    assert [message.body for message in seen] == [body, body]


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Although the first answer is the slowest."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            await asyncio.sleep(0.05 if request.target == b"/0" else 0)
            await peer.send(ok(request.target))

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(b"".join(post(f"/v/{i}", b"x" * i) for i in range(20)))
        assert [(await app.message()).body for _ in range(20)] == [f"/{i}".encode() for i in range(20)]


async def test_a_server_sent_event_is_passed_on_at_once() -> None:
    """Nothing waits for the end of a body."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await go.wait()
        await peer.send(b"data: 2\n\n")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/events"))
        assert (await app.head()).one("Transfer-Encoding") == b"chunked"
        assert await app.chunk() == b"data: 1\n\n"
        go.set()
        assert await app.chunk() == b"data: 2\n\n"
        assert await app.chunk() == b""


async def test_an_upload_is_passed_on_at_once_and_answered_early() -> None:
    """The vendor sees the first bytes while the app holds back the last, and may answer before it has all."""

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.chunk() == b"first"
        await peer.send(ok(b"early"))

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(b"POST /v/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        got = await app.message()
        assert (got.body, got.one("Connection")) == (b"early", b"close")
        assert await app.at_end()
        assert it.at_rest()


@pytest.mark.parametrize("vendor_says", ["100", "417", "200", "nothing"])
async def test_expect_100_continue(vendor_says: str) -> None:
    """The app is told to go on when the vendor says so, or says nothing for a second; a final answer ends it."""

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head.one("Expect") == b"100-continue"
        if vendor_says in {"417", "200"}:
            await peer.send(b"HTTP/1.1 %b Final\r\nContent-Length: 0\r\n\r\n" % vendor_says.encode())
            return
        if vendor_says == "100":
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.body(head)
        await peer.send(ok(head.body))

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(b"POST /v/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        got = await app.message()
        if vendor_says in {"417", "200"}:
            assert got.status == int(vendor_says)
            assert await app.at_end()
            return
        assert got.status == 100
        await app.send(b"body")
        assert (await app.message()).body == b"body"


async def test_a_client_that_goes_away_cancels_the_upstream_request() -> None:
    """Within a tenth of a second, and nothing is left over."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        asked.set()
        await peer.at_end()
        gone.set()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/slow"))
        await asked.wait()
        app.close()
        await until(gone.is_set, within=0.1)
        await until(it.at_rest, within=0.1)
        assert '"code":"client_gone"' in it.log


async def test_an_idle_vendor_connection_that_was_closed_is_not_used_again() -> None:
    """Neither for a GET, which might be sent twice, nor for a POST, which never is."""
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.message()
        requests += 1
        await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(10):
            await app.send(post("/v/a", b"x"))
            assert (await app.message()).status == 200
        assert requests == 10


async def test_a_vendor_that_dies_inside_a_body_never_looks_complete() -> None:
    """Sized, chunked or reset without a length: the app sees that the answer was cut off."""
    for raw in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
    ):
        half = asyncio.Event()

        async def script(peer: Peer, raw: bytes = raw, half: asyncio.Event = half) -> None:
            await peer.message()
            await peer.send(raw)
            await half.wait()
            peer.reset()

        async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            head = await app.head()
            half.set()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await app.body(head)
            assert it.at_rest()
            assert '"code":"aborted"' in it.log


WEBSOCKET = (
    "GET /v/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"
)


async def test_a_websocket_carries_bytes_both_ways_with_the_token_on_its_handshake() -> None:
    """Early bytes are kept on both sides; a half-close is carried over."""
    seen: list[Message] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.head())
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: b\r\n\r\nearly down"
        )
        assert await peer.reader.readexactly(8) == b"early up"
        await peer.send(b"echo " + await peer.reader.readexactly(4))
        assert await peer.reader.read(-1) == b""
        await peer.send(b" last")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(WEBSOCKET.encode() + b"early up")
        head = await app.head()
        assert (head.status, head.one("Sec-WebSocket-Protocol")) == (101, b"b")
        assert await app.reader.readexactly(10) == b"early down"
        await app.send(b"ping")
        assert await app.reader.readexactly(9) == b"echo ping"
        app.writer.write_eof()
        assert await app.reader.read(-1) == b" last"
    assert seen[0].one("Authorization") == f"Bearer {CANARY}".encode()
    assert seen[0].one("Sec-WebSocket-Protocol") == b"a, b"


async def test_a_refused_websocket_is_an_ordinary_answer() -> None:
    """The vendor's status reaches the app."""
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with vendor(answering(answer)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(WEBSOCKET.encode())
        got = await app.message()
        assert (got.status, got.body) == (403, b"no")


@pytest.mark.parametrize("protocol", ["h2c", "foo"])
async def test_nothing_but_a_websocket_is_tunnelled(protocol: str) -> None:
    """Other upgrades are served as if they had not been asked for."""
    seen: list[Message] = []
    async with vendor(answering(ok(b"plain"), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: x"))
        got = await app.message()
        assert (got.body, got.one("Connection")) == (b"plain", b"close")
    assert not seen[0].all("Upgrade")
    assert not seen[0].all("HTTP2-Settings")
