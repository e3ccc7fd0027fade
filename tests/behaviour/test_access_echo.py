"""The echo guard on real sockets: the app never gets its vendor's token back, and every framing stays true."""

from __future__ import annotations

import asyncio
import base64
import gzip
from typing import TYPE_CHECKING

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, answering, connect, get, vendor

if TYPE_CHECKING:
    from gateway.proxy.body import Body

MASK = b"*" * len(CANARY)
GUARDED = {"echo_guard": True}


def sized(body: bytes, *fields: bytes, kind: bytes = b"application/json") -> bytes:
    head = (b"HTTP/1.1 200 OK", b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *fields)
    return b"\r\n".join((*head, b"", body))


BODY = b'{"headers": {"Authorization": "Bearer ' + CANARY.encode() + b'"}, "more": 1}'
CLEAN = BODY.replace(CANARY.encode(), MASK)


async def fetch(answer: bytes, seen: list[Message] | None = None, *fields: str, **route: object) -> Message:
    """Ask for `answer` twice through a gateway; both times it must be the same."""
    return (await fetch_and_count(answer, seen, *fields, **route))[0]


async def fetch_and_count(
    answer: bytes, seen: list[Message] | None = None, *fields: str, **route: object
) -> tuple[Message, list[float]]:
    """Do as `fetch` does; return also how many tokens were counted in heads and in bodies."""
    async with (
        vendor(answering(answer, seen=seen)) as upstream,
        running(one_route(upstream.port, **(route or GUARDED))) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", *fields))
        got = await app.message()
        await app.send(get("/v/a"))
        assert (await app.message()).body == got.body
        return got, [it.metric("gatepass_echoed_tokens_total", route="v", place=place) for place in ("header", "body")]


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        sized(BODY),
        CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    ],
    ids=["sized", "one chunk", "a chunk a byte"],
)
async def test_a_token_in_a_text_body_is_masked_in_every_framing(answer: bytes) -> None:
    got, counted = await fetch_and_count(answer)
    assert got.body == CLEAN
    assert counted == [0, 2]


async def test_a_token_in_a_field_is_masked_in_all_its_forms_and_counted() -> None:
    encoded = base64.b64encode(b"Bearer " + CANARY.encode())
    got, counted = await fetch_and_count(
        sized(b"{}", b"X-Echo: Bearer " + CANARY.encode(), b"X-Basic: " + encoded, b"Location: /?t=" + CANARY.encode())
    )
    assert got.one("X-Echo") == b"Bearer " + MASK
    assert got.one("Location") == b"/?t=" + MASK
    assert len(got.one("X-Basic")) == len(encoded)
    assert b"*" * 20 in got.one("X-Basic")
    assert counted == [2, 0]


NO_TYPE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
WIDE = BODY.decode().encode("utf-16-le")


@pytest.mark.parametrize(
    "answer",
    [
        NO_TYPE,
        sized(BODY, kind=b"application/octet-stream"),
        sized(BODY, kind=b"image/png"),
        sized(BODY, kind=b"application/x-ndjson; charset=x"),
        sized(BODY, b"Content-Encoding: identity"),
        sized(WIDE, kind=b"text/plain; charset=utf-16"),
        sized(BODY.decode().encode("utf-16"), kind=b"text/plain; charset=utf-16"),
        sized(BODY.replace(b"-", b"\\u002D")),
        sized(BODY.replace(b"-", b"&#45;"), kind=b"text/html"),
        sized(BODY.replace(b"-", b"&amp;#x2d;"), kind=b"text/html"),
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY.replace(b"-", b"\\u002d")) + b"0\r\n\r\n",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in WIDE) + b"0\r\n\r\n",
    ],
    ids=[
        *(
            "no type",
            "binary",
            "image",
            "lines",
            "identity",
            "UTF-16",
            "UTF-16 with a mark",
            "JSON",
            "HTML",
            "HTML twice",
        ),
        *("JSON, a chunk a byte", "UTF-16, a chunk a byte"),
    ],
)
async def test_a_token_is_masked_whatever_the_type_and_the_escapes_of_the_body(answer: bytes) -> None:
    got, counted = await fetch_and_count(answer)
    sent = answer.partition(b"\r\n\r\n")[2]
    assert b"Chunked" in answer or b"chunked" in answer or len(got.body) == len(sent)
    shown = got.body.replace(b"\0", b"")
    assert b"*" * len(CANARY) in shown
    assert b"CANARY" not in shown
    assert b'"more": 1}' in shown
    assert counted == [0, 2]


async def test_a_token_in_the_reason_is_masked() -> None:
    got, counted = await fetch_and_count(
        b"HTTP/1.1 400 Bad %b\r\nContent-Length: 0\r\n\r\n" % CANARY.encode(),
    )
    assert got.start == b"HTTP/1.1 400 Bad " + MASK
    assert counted == [2, 0]


async def test_a_guarded_route_asks_for_whole_answers_so_that_no_half_of_a_token_comes_back() -> None:
    """A range could end inside of a token, and a multipart range would cut it in two."""
    seen: list[Message] = []
    asked = ("Range: bytes=0-49", "If-Range: x", "Accept-Encoding: gzip")
    await fetch_and_count(sized(b"{}"), seen, *asked, **GUARDED, pass_headers=["range"])
    assert [seen[0].all(name) for name in ("Range", "If-Range", "Accept-Encoding")] == [[], [], [b"identity"]]
    seen.clear()
    await fetch_and_count(sized(b"{}"), seen, *asked, websocket=True)
    assert seen[0].all("Range") == [b"bytes=0-49"]


@pytest.mark.parametrize(
    "answer",
    [
        sized(gzip.compress(BODY), b"Content-Encoding: gzip"),
        sized(b"x" * 70_000 + BODY),
    ],
    ids=["compressed all the same", "behind 64 KiB"],
)
async def test_what_is_compressed_or_lies_behind_64_kib_passes_byte_for_byte(answer: bytes) -> None:
    got, counted = await fetch_and_count(answer)
    assert got.body == answer.partition(b"\r\n\r\n")[2]
    assert counted == [0, 0]


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, identity", "utf-8", "aws-chunked", ""])
async def test_a_token_in_a_body_with_a_wrong_content_encoding_is_masked(coding: str) -> None:
    """The app's library may show the body all the same."""
    got, counted = await fetch_and_count(sized(BODY, b"Content-Encoding: " + coding.encode()))
    assert CANARY.encode() not in got.body
    assert (len(got.body), counted) == (len(BODY), [0, 2])


async def test_the_guard_is_off_unless_the_route_asks_for_it() -> None:
    got = await fetch(sized(BODY), None, websocket=True)
    assert got.body == BODY


async def test_a_guarded_route_asks_its_vendor_for_plain_answers_and_others_leave_that_to_the_app() -> None:
    seen: list[Message] = []
    await fetch(sized(b"{}"), seen, "Accept-Encoding: gzip, br")
    assert seen[0].all("Accept-Encoding") == [b"identity"]
    seen.clear()
    await fetch(sized(b"{}"), seen, "Accept-Encoding: gzip, br", websocket=True)
    assert seen[0].all("Accept-Encoding") == [b"gzip, br"]


async def test_an_event_stream_flows_without_delay_and_a_token_cut_in_two_is_still_masked() -> None:
    onward = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(CHUNKED.replace(b"text/plain", b"text/event-stream") + b"9\r\ndata: 1\n\n\r\n")
        await onward.wait()
        half = len(CANARY) // 2
        first, second = b"data: " + CANARY[:half].encode(), CANARY[half:].encode() + b"\n\n"
        await peer.send(b"%x\r\n%b\r\n" % (len(first), first))
        await asyncio.sleep(0.02)
        await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second))
        await asyncio.Event().wait()

    async with vendor(script) as upstream, running(one_route(upstream.port, **GUARDED)) as it:
        app = await connect(it.address)
        await app.send(get("/v/events"))
        await app.head()
        assert await app.chunk() == b"data: 1\n\n"
        onward.set()
        rest = b""
        while piece := await app.chunk():
            rest += piece
    assert rest == b"data: " + MASK + b"\n\n"


async def test_a_piece_that_the_guard_holds_back_whole_does_not_end_the_body() -> None:
    """An empty chunk would be the end of the body."""
    pieces = [b"plain ", CANARY[:9].encode(), CANARY[9:].encode() + b" plain"]
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(CHUNKED)
        while piece := await told.get():
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")

    async with vendor(script) as upstream, running(one_route(upstream.port, **GUARDED)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        head = await app.head()
        [connection] = it.routes[0].pool._open
        for sent in range(len(pieces)):
            told.put_nowait(pieces[sent])
            arrived = sum(map(len, pieces[: sent + 1]))
            await until(lambda: connection._body is not None and passed_on(connection._body, arrived))  # noqa: B023 - it ends before the next turn
        told.put_nowait(b"")
        assert (await app.body(head)).body == b"plain " + MASK + b" plain"


def passed_on(body: Body, size: int) -> bool:
    """Whether so many bytes have arrived, and all of them were read."""
    return body.size == size and not body._pieces


async def test_a_head_request_and_an_empty_answer_keep_their_framing() -> None:
    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 700\r\n\r\n")
        await peer.message()
        await peer.send(b"HTTP/1.1 204 No Content\r\nX-Echo: " + CANARY.encode() + b"\r\n\r\n")
        await asyncio.Event().wait()

    async with vendor(script) as upstream, running(one_route(upstream.port, **GUARDED)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", method="HEAD"))
        assert (await app.message(is_head=True)).one("Content-Length") == b"700"
        await app.send(get("/v/a"))
        assert (await app.message()).one("X-Echo") == MASK


async def test_a_token_in_the_head_of_a_websocket_handshake_is_masked() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Echo: %b\r\n\r\n"
    async with (
        vendor(answering(answer % CANARY.encode())) as upstream,
        running(one_route(upstream.port, websocket=True, **GUARDED)) as it,
    ):
        app = await connect(it.address)
        asks = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13")
        await app.send(get("/v/a", *asks))
        got = await app.head()
    assert got.status == 101
    assert got.one("X-Echo") == MASK
