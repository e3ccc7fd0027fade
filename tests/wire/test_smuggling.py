"""What is not HTTP/1.1 to the letter gets a 400 or 431, is closed, and the vendor hears nothing of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.stall import unless_stalled
from tests.kit.wire import Message, answering, connect, get, ok, vendor

H = "POST /v/a HTTP/1.1\r\nHost: x\r\n"
CHUNKS = "5\r\nhello\r\n0\r\n\r\n"
MALFORMED = {
    "CL and TE": f"{H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "TE and CL": f"{H}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{CHUNKS}",
    "two CL": f"{H}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal CL": f"{H}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL list": f"{H}Content-Length: 5, 5\r\n\r\nhello",
    "CL plus": f"{H}Content-Length: +5\r\n\r\nhello",
    "CL hex": f"{H}Content-Length: 0x5\r\n\r\nhello",
    "CL negative": f"{H}Content-Length: -5\r\n\r\nhello",
    "CL empty": f"{H}Content-Length: \r\n\r\nhello",
    "CL float": f"{H}Content-Length: 5.0\r\n\r\nhello",
    "CL underscore": f"{H}Content-Length: 1_0\r\n\r\nhello12345",
    "CL 2^64": f"{H}Content-Length: 18446744073709551616\r\n\r\nhello",
    "CL 2^64-1": f"{H}Content-Length: 18446744073709551615\r\n\r\nhello",
    "CL 2^63": f"{H}Content-Length: 9223372036854775808\r\n\r\nhello",
    "TE twice": f"{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "TE identity first": f"{H}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "TE gzip, chunked": f"{H}Transfer-Encoding: gzip, chunked\r\n\r\n{CHUNKS}",
    "TE chunked, gzip": f"{H}Transfer-Encoding: chunked, gzip\r\n\r\n{CHUNKS}",
    "TE chunked, chunked": f"{H}Transfer-Encoding: chunked, chunked\r\n\r\n{CHUNKS}",
    "TE xchunked": f"{H}Transfer-Encoding: xchunked\r\n\r\n{CHUNKS}",
    "TE chunked;q": f"{H}Transfer-Encoding: chunked;q=1\r\n\r\n{CHUNKS}",
    "TE quoted": f'{H}Transfer-Encoding: "chunked"\r\n\r\n{CHUNKS}',
    "TE comma": f"{H}Transfer-Encoding: ,chunked\r\n\r\n{CHUNKS}",
    "TE vertical tab": f"{H}Transfer-Encoding: \x0bchunked\r\n\r\n{CHUNKS}",
    "TE empty": f"{H}Transfer-Encoding: \r\n\r\n{CHUNKS}",
    "TE space before colon": f"{H}Transfer-Encoding : chunked\r\n\r\n{CHUNKS}",
    "TE on a folded line": f"{H}X: y\r\n Transfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "TE in HTTP/1.0": f"POST /v/a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "chunk size plus": f"{H}Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x": f"{H}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size negative": f"{H}Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": f"{H}Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "chunk size 2^64": f"{H}Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size space": f"{H}Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "chunk with bare LF": f"{H}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk extension with LF": f"{H}Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk too long": f"{H}Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    "chunk size of 16 digits": f"{H}Transfer-Encoding: chunked\r\n\r\n1000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk extension without an end": f"{H}Transfer-Encoding: chunked\r\n\r\n5;{'x' * 5000}",
    "trailers without an end": f"{H}Transfer-Encoding: chunked\r\n\r\n0\r\n" + "X: y\r\n" * 3000,
    "bare LF in the head": "POST /v/a HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "bare CR in a value": f"{H}X: a\rb\r\n\r\n",
    "NUL in a value": f"{H}X: a\0b\r\n\r\n",
    "NUL in a name": f"{H}X\0Y: a\r\n\r\n",
    "control byte in a value": f"{H}X: a\x01b\r\n\r\n",
    "space before colon": f"{H}X : a\r\n\r\n",
    "space in a name": f"{H}X Y: a\r\n\r\n",
    "no name": f"{H}: a\r\n\r\n",
    "no colon": f"{H}X\r\n\r\n",
    "folded line": f"{H}X: a\r\n b\r\n\r\n",
    "folded first line": "POST /v/a HTTP/1.1\r\n Host: x\r\n\r\n",
    "no host": "GET /v/a HTTP/1.1\r\n\r\n",
    "two hosts": "GET /v/a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "host with a space": "GET /v/a HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with a path": "GET /v/a HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with userinfo": "GET /v/a HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "HTTP/0.9": "GET /v/a\r\n\r\n",
    "HTTP/0.9 written": "GET /v/a HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": "GET /v/a HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": "GET /v/a HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.1x": "GET /v/a HTTP/1.1x\r\nHost: x\r\n\r\n",
    "http/1.1": "GET /v/a http/1.1\r\nHost: x\r\n\r\n",
    "RTSP": "GET /v/a RTSP/1.0\r\nHost: x\r\n\r\n",
    "two spaces before the target": "GET  /v/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces behind the target": "GET /v/a  HTTP/1.1\r\nHost: x\r\n\r\n",
    "space before the method": " GET /v/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "space behind the version": "GET /v/a HTTP/1.1 \r\nHost: x\r\n\r\n",
    "tab for space": "GET\t/v/a\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case method": "get /v/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown method": "FOO /v/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "expects something else": f"{H}Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
    "raw UTF-8 target": "GET /v/caf\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "random bytes": "\x8f\x00\xfe\x01 \r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_is_400_and_closed_and_never_forwarded(name: str) -> None:
    """What follows in the same segment is not looked at either. Not one byte goes up, and no connection is opened."""
    smuggled = get("/v/smuggled")
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(MALFORMED[name].encode("latin-1") + smuggled)
        got = await app.message()
        assert got.status == 400
        assert got.one("Connection") == b"close"
        assert await app.at_end()
        assert it.at_rest()
        assert it.metric("gatepass_pool_open_connections", route="v") == 0
        await asyncio.sleep(0.01)  # for bytes that would be under way
        assert (upstream.connections, bytes(upstream.received)) == (0, b"")


BAD_CHUNKS = {
    "size plus": b"+5\r\nhello\r\n",
    "size 0x": b"0x5\r\nhello\r\n",
    "size negative": b"-1\r\nhello\r\n",
    "size empty": b"\r\nhello\r\n",
    "bare LF": b"5\nhello\r\n",
    "too long": b"4\r\nhello\r\n",
    "extension with LF": b"5;a\nb\r\nhello\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_a_body_that_turns_out_malformed_is_cut_off_and_never_ended_at_the_vendor(name: str) -> None:
    """The vendor has the beginning already: it gets no end, no byte of what follows, and no second request."""
    smuggled = get("/v/smuggled")
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(f"{H}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".encode())
        await until(lambda: b"first" in upstream.received)
        await app.send(BAD_CHUNKS[name] + b"0\r\n\r\n" + smuggled)
        got = await app.message()
        assert (got.status, got.one("Connection")) == (400, b"close")
        assert await app.at_end()
        await until(lambda: not upstream.open)
        assert it.at_rest()
        head, _, body = bytes(upstream.received).partition(b"\r\n\r\n")
        assert head.startswith(b"POST /a HTTP/1.1\r\n")
        assert body in {b"5\r\nfirst\r\n", b"5\r\nfirst\r\n4\r\nhell\r\n"}, "what was understood, and no last chunk"
        assert upstream.connections == 1
        other = await connect(it.address)
        await other.send(get("/v/b"))
        assert (await other.message()).status == 200
        assert upstream.connections == 2, "the one that was cut off is not used again"


@pytest.mark.parametrize("name", ["CL 2^64-1", "TE empty", "CL and TE", "TE gzip, chunked", "two hosts"])
@unless_stalled
async def test_the_400_arrives_although_the_app_goes_on_sending(name: str) -> None:
    """What comes behind a refused head must not turn the answer into a reset."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        head, _, rest = MALFORMED[name].partition("\r\n\r\n")
        await app.send(f"{head}\r\n\r\n".encode("latin-1"))
        for byte in (rest or "more bytes").encode("latin-1"):
            await asyncio.sleep(0.005)
            await app.send(bytes([byte]))
        got = await app.message()
        assert (got.status, got.one("Connection")) == (400, b"close")
        assert upstream.connections == 0


LIMITS = {
    "101 fields": "GET /v/a HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 100 + "\r\n",
    "a field of 9 KiB": f"GET /v/a HTTP/1.1\r\nHost: x\r\nX: {'y' * 9216}\r\n\r\n",
    "a name of 9 KiB": f"GET /v/a HTTP/1.1\r\nHost: x\r\n{'X' * 9216}: y\r\n\r\n",
    "a target of 17 KiB": f"GET /v/{'a' * 17408} HTTP/1.1\r\nHost: x\r\n\r\n",
    "65 KiB in all": "GET /v/a HTTP/1.1\r\nHost: x\r\n"
    + "".join(f"X{i}: {'y' * 7000}\r\n" for i in range(10))
    + "\r\n",
}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_head_over_the_limits_is_431_and_closed(name: str) -> None:
    """100 fields, 8 KiB a field, 16 KiB a target, 64 KiB in all."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(LIMITS[name].encode())
        assert (await app.message()).status == 431
        assert await app.at_end()
        await asyncio.sleep(0.01)
        assert (upstream.connections, bytes(upstream.received)) == (0, b"")


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 431)])
async def test_the_bound_of_a_head_is_exact(size: int, status: int) -> None:
    """Request line, fields and the empty line together."""
    head = "GET /v/a HTTP/1.1\r\nHost: x\r\n" + "".join(f"X{i}: {'y' * 7000}\r\n" for i in range(9))
    head += f"Z: {'z' * (size - len(head) - 7)}\r\n\r\n"
    assert len(head) == size
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(head.encode())
        assert (await app.message()).status == status


async def test_a_malformed_second_request_does_not_harm_the_first() -> None:
    """Both in one segment: the first is served, the second refused."""
    seen: list[Message] = []
    async with vendor(answering(ok(b"first"), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a") + b"GARBAGE\r\n\r\n")
        assert (await app.message()).body == b"first"
        assert (await app.message()).status == 400
        assert await app.at_end()
    assert len(seen) == 1


FIRST_ANSWERS = {
    "extra bytes": ok(b"one") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "garbage behind": ok(b"one") + b"garbage",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\none",
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    ),
    "204 with a body": b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\none",
    "304 with a body": b"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\none",
    "101 unasked": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
    "many interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + ok(b"one"),
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\none",
    "status 99": b"HTTP/1.1 099 Odd\r\nContent-Length: 3\r\n\r\none",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 3\r\n\r\none",
    "split by CR": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 3\r\n\r\none",
    "split by LF in the reason": b"HTTP/1.1 200 OK\rX\r\nContent-Length: 3\r\n\r\none",
    "control byte": b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 3\r\n\r\none",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 3\r\n\r\none",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "length and gzip coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\none",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 3\n\none",
    "bare LF at one line end": b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 3\r\n\r\none",
    "bare LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 3\n\none",
    "folded line": b"HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 30\r\nContent-Length: 3\r\n\r\none",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\none\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", FIRST_ANSWERS)
async def test_the_next_client_gets_its_own_answer_whatever_the_first_was(name: str) -> None:
    """A connection over which there is the least doubt is not used again."""
    answers = answering(FIRST_ANSWERS[name], ok(b"own"))
    async with vendor(answers) as upstream, running(one_route(upstream.port)) as it:
        first = await connect(it.address)
        await first.send(get("/v/a"))
        try:
            got = await first.message()
            assert got.body in {b"one", b""} or got.status == 502
            assert not got.all("Set-Cookie")
        except (EOFError, ConnectionError):
            pass  # broken off in the body: visible, too
        second = await connect(it.address)
        await second.send(get("/v/b"))
        assert (await second.message()).body == b"own"
        assert it.at_rest()


async def test_a_vendor_that_speaks_unasked_on_an_idle_connection_is_not_believed() -> None:
    """Its bytes would be the next app's answer."""

    async def script(peer: object) -> None:
        request = await peer.message()  # type: ignore[attr-defined]
        await peer.send(ok(request.target))  # type: ignore[attr-defined]
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")  # type: ignore[attr-defined]
        await peer.at_end()  # type: ignore[attr-defined]

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        for index in range(5):
            app = await connect(it.address)
            await app.send(get(f"/v/{index}"))
            assert (await app.message()).body == b"/%d" % index
