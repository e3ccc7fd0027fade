"""Bodies: any framing in, the right framing out; streamed both ways, bounded, and never complete when they are not."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from gateway.proxy.phase import BODY, BROKEN
from tests.kit.gateway import one_route, running
from tests.kit.rest import settled, until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from tests.kit.gateway import Running

ANSWERS = {
    "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked in capitals": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;x="y"\r\nhello\r\n0\r\n\r\n',
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "HTTP/1.0 sized": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.0 until close": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "HTTP/1.0 chunked": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_arrives_in_the_framing_that_the_app_understands(name: str, version: str) -> None:
    """A length stays a length; all else is chunked for HTTP/1.1 and ends with the connection for HTTP/1.0."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(ANSWERS[name])

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(f"GET /v/a {version}\r\nHost: x\r\n\r\n".encode())
        got = await app.message()
        assert (got.status, got.body) == (200, b"hello")
        assert got.start.startswith(b"HTTP/1.1 ")
        length, coding = got.all("Content-Length"), got.all("Transfer-Encoding")
        if "sized" in name:
            assert (length, coding) == ([b"5"], [])
        else:
            assert (length, coding) == ([], [b"chunked"] if version == "HTTP/1.1" else [])
        assert (got.all("Connection") == [b"close"]) == (version == "HTTP/1.0")
        if version == "HTTP/1.0":
            assert await app.at_end()


@pytest.mark.parametrize(
    ("fields", "raw", "framing"),
    [
        ("Content-Length: 5", b"hello", ("Content-Length", b"5")),
        ("Content-Length: 0005", b"hello", ("Content-Length", b"5")),
        ("Content-Length: 0", b"", ("Content-Length", b"0")),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", ("Transfer-Encoding", b"chunked")),
        (
            "Transfer-Encoding: Chunked",
            b'2;a=b;c="d"\r\nhe\r\n3\r\nllo\r\n0;x\r\n\r\n',
            ("Transfer-Encoding", b"chunked"),
        ),
        ("Transfer-Encoding: chunked", b"0\r\n\r\n", ("Transfer-Encoding", b"chunked")),
    ],
    ids=["sized", "leading zeros", "sized and empty", "chunked", "chunk extensions", "chunked and empty"],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_request_body_goes_up_in_its_own_kind_of_framing(
    fields: str, raw: bytes, framing: tuple[str, bytes], method: str
) -> None:
    """Written anew from what was understood: extensions and leading zeros end here."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", fields, method=method) + raw)
        assert (await app.message()).status == 200
    assert seen[0].body == (b"" if raw[:1] in {b"0", b""} else b"hello")
    assert seen[0].one(framing[0]) == framing[1]
    assert len([name for name, _ in seen[0].headers if name in {b"Content-Length", b"Transfer-Encoding"}]) == 1


async def test_one_byte_chunks_arrive_whole_both_ways() -> None:
    """Twenty thousand of them, and as one stream of bytes."""
    chunks = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"

    async def script(peer: Peer) -> None:
        request = await peer.message()
        assert request.body == b"x" * 20_000
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Transfer-Encoding: chunked", method="POST") + chunks)
        assert (await app.message()).body == b"x" * 20_000


async def test_a_body_is_passed_on_at_once_in_both_directions() -> None:
    """Each side sends its next byte only when the other has got the last one."""

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head.one("Transfer-Encoding") == b"chunked"
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := await peer.chunk():
            await peer.send(b"%x\r\n%b\r\n" % (len(data), data))
        await peer.send(b"0\r\n\r\n")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Transfer-Encoding: chunked", method="POST"))
        assert (await app.head()).status == 200
        for index in range(20):
            await app.send(b"2\r\n%02d\r\n" % index)
            assert await app.chunk() == b"%02d" % index
        await app.send(b"0\r\n\r\n")
        assert await app.chunk() == b""
        assert await app.at_end()  # the answer began before the request had ended


BLOCK = b"x" * 2**16
PLENTY = 2**26
HELD = 3 * 2**23
"""What kernel buffers on two loopback connections and our own may hold together; far less than PLENTY."""


async def test_an_app_that_does_not_read_stops_the_vendor() -> None:
    """What is in flight stays the same however large the answer is."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PLENTY)
        while sent < PLENTY:
            await peer.send(BLOCK)
            sent += len(BLOCK)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        app.pause_reading()
        await app.send(get("/v/a"))
        assert await settled(lambda: sent) < HELD
        app.resume_reading()
        head = await app.head()
        left = int(head.one("Content-Length"))
        while left and (data := await app.reader.read(2**20)):
            left -= len(data)
        assert left == 0


@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_a_vendor_that_does_not_read_stops_the_app(framing: str) -> None:
    """The same the other way round."""
    go, sent = asyncio.Event(), 0

    async def script(peer: Peer) -> None:
        peer.pause_reading()
        await go.wait()
        peer.resume_reading()
        request = await peer.head()
        size = 0
        if framing == "chunked":
            while data := await peer.chunk():
                size += len(data)
        else:
            while size < int(request.one("Content-Length")):
                size += len(await peer.reader.read(2**20))
        await peer.send(ok(b"%d" % size))

    async with vendor(script) as upstream, running(one_route(upstream.port, max_body=None)) as it:
        app = await connect(it.address)
        field = f"Content-Length: {PLENTY}" if framing == "sized" else "Transfer-Encoding: chunked"
        await app.send(get("/v/a", field, method="POST"))

        async def upload() -> None:
            nonlocal sent
            while sent < PLENTY:
                await app.send(BLOCK if framing == "sized" else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
                sent += len(BLOCK)
            await app.send(b"" if framing == "sized" else b"0\r\n\r\n")

        task = asyncio.create_task(upload())
        assert await settled(lambda: sent) < HELD
        go.set()
        assert (await app.message()).body == b"%d" % PLENTY
        await task


async def test_pipelined_answers_that_nobody_reads_do_not_pile_up() -> None:
    """Small requests for answers of 100 KB each: the gateway stops asking."""
    asked = 0
    answer = ok(b"x" * 100_000)

    async def script(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.message()
            asked += 1
            await peer.send(answer)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        app.pause_reading()
        app.writer.write(get("/v/a") * 1000)
        assert await settled(lambda: asked) < 200
        app.resume_reading()
        for _ in range(1000):
            assert len((await app.message()).body) == 100_000


LIMITED = {
    "sized": (get("/v/a", "Content-Length: 101", method="POST"), 0),
    "sized and sent": (post("/v/a", b"x" * 101), 0),
    "chunked at once": (
        get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n",
        0,
    ),
    "chunked in pieces": (
        get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"32\r\n" + b"x" * 50 + b"\r\n",
        2,
    ),
}


@pytest.mark.parametrize("name", LIMITED)
async def test_a_body_over_the_routes_limit_is_413_and_the_vendor_never_sees_it_whole(name: str) -> None:
    """Before a byte was sent where the length is known; else the upload is cut off."""
    seen: list[Message] = []
    raw, more = LIMITED[name]
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running(one_route(upstream.port, max_body=100)) as it,
    ):
        app = await connect(it.address)
        await app.send(raw)
        for _ in range(more):
            await asyncio.sleep(0.02)
            await app.send(b"32\r\n" + b"x" * 50 + b"\r\n")
        got = await app.message()
        assert (got.status, b'"body_too_large"' in got.body) == (413, True)
        assert got.one("Connection") == b"close"
        assert await app.at_end()
        await app.send(b"x") if not app.writer.is_closing() else None
        assert it.at_rest()
    assert seen == []


async def test_a_body_of_exactly_the_limit_passes() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port, max_body=100)) as it:
        app = await connect(it.address)
        await app.send(post("/v/a", b"x" * 100))
        assert (await app.message()).status == 200
    assert len(seen[0].body) == 100


async def test_bad_chunks_in_the_middle_of_an_upload_are_400_and_the_vendor_sees_it_cut_off() -> None:
    """The upstream connection is aborted, never used again."""
    came, cut = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.chunk() == b"hello"
        came.set()
        assert await peer.at_end()
        cut.set()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
        await came.wait()
        await app.send(b"zz\r\n")
        got = await app.message()
        assert (got.status, got.one("Connection")) == (400, b"close")
        await cut.wait()
        assert it.at_rest()


async def test_a_final_answer_ends_the_wait_for_100_continue() -> None:
    """No 100 (Continue) is written into the middle of an answer that takes longer than the wait."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await asyncio.sleep(1.3)
        await peer.send(b"world")

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        got = await app.message()
        assert (got.status, got.body, got.one("Connection")) == (200, b"helloworld", b"close")
        assert await app.at_end()
        assert it.at_rest()


async def test_a_body_that_does_not_wait_for_100_continue_is_taken_as_it_comes() -> None:
    """And no 100 is sent for it (RFC 9110 §10.1.1)."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(post("/v/a", b"body", "Expect: 100-continue"))
        assert (await app.message()).status == 200
        await app.send(post("/v/a", b"body", "Expect: 100-Continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert (await app.message()).status == 200
    assert [message.body for message in seen] == [b"body", b"body"]


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("sent", ["10 sized", "chunked", "chunked before the last chunk", "chunked in its size"])
async def test_a_framed_answer_that_breaks_off_never_looks_complete(sent: str, how: str) -> None:
    """The app's connection is reset before the end of the framing."""
    raw = {
        "10 sized": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello",
        "chunked before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "chunked in its size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
    }[sent]

    half = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(raw)
        await half.wait()
        peer.reset() if how == "RST" else peer.close()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        head = await app.head()
        half.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await app.body(head)
        assert it.at_rest()


async def test_the_largest_body_that_is_kept_for_replay_does_not_outgrow_the_budget() -> None:
    """Beyond it an exchange is simply not replayable; everything still passes."""
    seen: list[Message] = []
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running({**one_route(upstream.port), "replay_budget": "1KiB"}) as it,
    ):
        apps = [await connect(it.address) for _ in range(4)]
        for app in apps:
            await app.send(post("/v/a", b"x" * 700))
        assert [(await app.message()).status for app in apps] == [200] * 4
        assert it.gateway._handler is not None
        assert it.gateway._handler._budget._left == 1024
    assert [len(message.body) for message in seen] == [700] * 4


CHUNKS = get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n"


@pytest.mark.parametrize(
    "begun",
    [CHUNKS, get("/v/a", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST")],
    ids=["begun", "expecting 100"],
)
async def test_a_body_that_is_malformed_while_its_request_waits_for_a_connection_is_400_and_nothing_is_sent(
    begun: bytes,
) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await go.wait()
            await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 1, "wait": 60})) as it:
        holder = await connect(it.address)
        await holder.send(get("/v/hold"))
        await until(lambda: upstream.received)
        app = await connect(it.address)
        await app.send(begun)
        await until(lambda: len(it.routes[0].pool._queue) == 1)
        await app.send(b"zz\r\n")
        data = it.gateway._data
        assert data is not None
        await until(lambda: any(each.phase == BROKEN for each in data._connections))
        go.set()
        assert (await holder.message()).status == 200
        got = await app.message()
        assert (got.status, got.one("Connection")) == (400, b"close")
        assert await app.at_end()
        assert it.at_rest()
    assert b"POST" not in upstream.received


async def test_a_vendor_that_resets_while_the_last_bytes_of_a_body_wait_is_502_and_no_defect() -> None:
    """The whole body has arrived, and the task that sends it waits until the vendor reads."""
    got_some, resets = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.chunk()
        got_some.set()
        await resets.wait()
        peer.reset()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(CHUNKS)
        await got_some.wait()
        await end_while_the_vendor_does_not_read(app, it)
        resets.set()
        got = await app.message()
        assert (got.status, b'"upstream_reset"' in got.body) == (502, True)
        await until(it.at_rest)
        gc.collect()  # an exception of a task that nobody awaits is logged then
        assert "never retrieved" not in it.log


async def end_while_the_vendor_does_not_read(app: Peer, it: Running) -> None:
    """Send the end of a chunked body, and wait until the task that sends it waits for the vendor."""
    [to_vendor] = it.routes[0].pool._open
    to_vendor.pause_writing()  # as its transport does when its buffer is full
    await app.send(b"0\r\n\r\n")
    await until(lambda: to_vendor._drain_waiter is not None)


async def test_a_defect_in_an_upload_is_500_for_one_app_and_is_logged() -> None:
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        other = await connect(it.address)
        await other.send(get("/v/a"))
        assert (await other.message()).status == 200
        app = await connect(it.address)
        await app.send(CHUNKS)
        await until(lambda: b"hello" in upstream.received)
        data = it.gateway._data
        assert data is not None
        [broken] = [each._body for each in data._connections if each.phase == BODY]
        broken.fail(ZeroDivisionError("made up"))
        got = await app.message()
        assert (got.status, b'"internal"' in got.body, got.one("Connection")) == (500, True, b"close")
        await other.send(get("/v/a"))
        assert (await other.message()).status == 200
        app.close()
        await until(lambda: len(data._connections) == 1)
        del broken
        gc.collect()  # an exception of a task that nobody awaits is logged then
        assert "never retrieved" in it.log
        assert "upload.py" in it.log
