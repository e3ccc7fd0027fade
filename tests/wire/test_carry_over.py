"""Nothing of one message may become part of another: trailers, bytes behind a body, half a head."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, Peer, answering, connect, get, ok, vendor

CHUNKED = b"POST /v/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
TRAILERS = [b"X-Late: 1", b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Host: evil", b"Authorization: mine"]


@pytest.mark.parametrize("trailer", TRAILERS, ids=lambda line: line.split(b":")[0].decode())
@pytest.mark.parametrize("pace", ["one segment", "two segments", "byte by byte"])
async def test_a_trailer_does_not_become_a_field_of_the_next_request(trailer: bytes, pace: str) -> None:
    """A reader that keeps one for the next head is fooled: a Content-Length would swallow another app's request."""
    seen: list[Message] = []
    first, second = CHUNKED + trailer + b"\r\n\r\n", get("/v/b", "X-Own: 1")
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for segment in {"one segment": [first + second], "two segments": [first, second]}.get(
            pace, [bytes([byte]) for byte in first + second]
        ):
            await app.send(segment)
            await asyncio.sleep(0)
        answers = [await app.message()]
        if answers[0].status == 200:
            answers.append(await app.message())
            assert answers[1].status == 200
            assert [message.body for message in seen] == [b"hello", b""]
            names = [name.lower() for name, _ in seen[1].headers]
            assert trailer.split(b":")[0].lower() not in set(names) - {b"host", b"authorization"}
            assert names.count(b"host") == names.count(b"authorization") == 1
        else:
            assert answers[0].status == 400  # a framing field among trailers may be refused as a whole
            assert seen == []


async def test_trailers_are_dropped_in_both_directions() -> None:
    """They are not merged into the head, and the bodies around them arrive whole (RFC 9110 §6.5.1)."""
    seen: list[Message] = []
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nSet-Cookie: a\r\nX-T: 2\r\n\r\n"
    async with vendor(answering(answer, seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(CHUNKED + b"X-Late: 1\r\nX-Later: 2\r\n\r\n")
        head = await app.head()
        assert await app.chunk() == b"hi"
        assert await app.chunk() == b""
        assert not head.all("Set-Cookie")
    assert seen[0].body == b"hello"
    assert not seen[0].all("X-Late")


BEHIND = {
    "a trailer": b"2\r\nhi\r\n0\r\nSet-Cookie: crossed=1\r\n\r\n",
    "a Content-Length as a trailer": b"2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
    "half a head": b"2\r\nhi\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: crossed=1\r\nX: ",
    "a status line": b"2\r\nhi\r\n0\r\n\r\nHTTP/1.1 ",
    "one byte": b"2\r\nhi\r\n0\r\n\r\nH",
}


@pytest.mark.parametrize("name", BEHIND)
async def test_what_stands_behind_a_chunked_answer_does_not_reach_the_next_app(name: str) -> None:
    """Trailers are read and dropped; whatever else stands there costs the connection."""
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + BEHIND[name]
    async with vendor(answering(first, ok(b"own"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert got.body == b"hi" or got.status == 502  # a framing field among trailers is refused
        other = await connect(it.address)
        await other.send(get("/v/b"))
        got = await other.message()
        assert (got.status, got.body) == (200, b"own")
        assert not got.all("Set-Cookie")
        assert upstream.connections == (1 if name == "a trailer" else 2)


SIZED = {
    "half a head": b"HTTP/1.1 200 OK\r\nSet-Cookie: crossed=1\r\nX: ",
    "garbage": b"garbage",
    "a line end": b"\r\n",
    "a whole answer": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
}


@pytest.mark.parametrize("kind", ["sized", "empty", "204", "304", "HEAD"])
@pytest.mark.parametrize("name", SIZED)
async def test_what_stands_behind_a_sized_or_empty_answer_does_not_reach_the_next_app(name: str, kind: str) -> None:
    """And the answer before it arrives all the same."""
    whole = {"sized": ok(b"one"), "empty": ok(b""), "HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"}.get(
        kind, f"HTTP/1.1 {kind} X\r\n\r\n".encode()
    )
    async with vendor(answering(whole + SIZED[name], ok(b"own"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", method="HEAD" if kind == "HEAD" else "GET"))
        got = await app.message(is_head=kind == "HEAD")
        assert got.status == (int(kind) if kind.isdigit() else 200)
        assert got.body == (b"one" if kind == "sized" else b"")
        other = await connect(it.address)
        await other.send(get("/v/b"))
        got = await other.message()
        assert (got.body, got.all("Set-Cookie")) == (b"own", [])
        assert upstream.connections == 2


async def test_bytes_that_wait_in_the_kernel_are_not_the_next_answer() -> None:
    """They came since the loop last looked: a connection is asked before it is handed out."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        while True:
            await peer.send(ok((await peer.message()).target))

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/first"))
        assert (await app.message()).body == b"/first"
        pool = it.routes[0].pool
        os.write(peers[0].writer.get_extra_info("socket").fileno(), ok(b"poison"))
        assert pool.take() is None  # without a turn of the loop in between
        await app.send(get("/v/second"))
        assert (await app.message()).body == b"/second"
        assert upstream.connections == 2


@pytest.mark.parametrize("end", ["\n\n", "\r\n\n", "\n\r\n"], ids=["LF LF", "CR LF LF", "LF CR LF"])
async def test_a_head_with_bare_line_feeds_is_502_and_costs_the_vendor_its_connection(end: str) -> None:
    """Where the body begins is not beyond doubt."""
    first = f"HTTP/1.1 200 OK\nContent-Length: 3{end}one".encode()
    async with vendor(answering(first, ok(b"own"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert got.status == 502
        assert b'"upstream_malformed"' in got.body
        await app.send(get("/v/b"))
        assert (await app.message()).body == b"own"
        assert upstream.connections == 2


async def test_an_answer_that_comes_byte_by_byte_is_the_same_answer() -> None:
    """Also with interim responses before it, and the connection is used again."""
    raw = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    async def script(peer: Peer) -> None:
        for answer in (raw, chunked, raw):
            await peer.message()
            for byte in answer:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(get("/v/a"))
            assert (await app.message()).body == b"hello"
        assert upstream.connections == 1


async def test_a_refused_token_leaves_nothing_of_its_answer_in_the_next() -> None:
    """The body of the refusal was read to see that it is one; the app gets only the second answer."""
    answers = [ok(b'{"e":"stale"}').replace(b"200 OK", b"400 Bad"), ok(b"fresh")]
    tokens = [b'{"access_token": "CANARY-1", "expires_in": 60}', b'{"access_token": "CANARY-2", "expires_in": 60}']
    async with vendor(answering(*answers)) as api, vendor(answering(*map(ok, tokens))) as auth:
        config = {
            "credentials": {
                "key": {
                    "grant": {
                        "request": {"method": "POST", "url": f"http://127.0.0.1:{auth.port}/token", "form": {"a": "b"}},
                        "response": {"token": "access_token", "expires": {"in": "expires_in"}},
                    }
                }
            },
            "routes": {
                "v": {
                    "credential": "key",
                    "upstream": f"http://127.0.0.1:{api.port}",
                    "refusal_signs": [{"status": 400, "path": "e", "values": ["stale"]}],
                }
            },
        }
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            got = await app.message()
            assert (got.status, got.body) == (200, b"fresh")
