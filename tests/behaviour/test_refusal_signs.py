"""A vendor's own way to say that a token has died, in a body as vendors send them, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.gateway import running
from tests.kit.wire import Message, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.kit.wire import Peer

STALE = {"code": 498, "error": {"dead": True, "kinds": ["x", "token_stale"], "word": "stale"}}
TEXT = json.dumps(STALE).encode()
BROTLI = bytes.fromhex(
    "1b5500008cd463ad30da09c46da92f1b0dfa5445e4f037db0dc27980e8e4880f84ffa9f0c081062db7b121e2143c12d42949fe489fa351a277"
    "62aec667dbacb002587c7c8073e2e97536356810942a"
)
ZSTD = bytes.fromhex(
    "28b52ffd00585d020062c511189029e9e3509f84a64132e8466cc8ee7abb923e4b7577090149321a25a16b5f1ec4adc168948408079a936e9d"
    "58501bdd6130b7f090a9f615bc91da7932f1162050d4c63b859100"
)
"""`TEXT` in these codings; no module of Python's 3.11 undoes them."""


def answer(body: bytes, *fields: str, status: str = "400 Bad Request") -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def calling(
    script: Callable[[Peer], Awaitable[None]], sign: dict[str, Any]
) -> AsyncIterator[tuple[Peer, list[bytes]]]:
    """Yield an app of a gateway whose vendor follows `script`, and the tokens so far: CANARY-1, CANARY-2 and so on."""
    issued: list[bytes] = []

    async def tokens(peer: Peer) -> None:
        await peer.message()
        issued.append(b"CANARY-%d" % (len(issued) + 1))
        await peer.send(ok(b'{"access_token": "%s", "expires_in": 600}' % issued[-1]))

    async with vendor(script) as api, vendor(tokens) as auth:
        request = {"url": f"http://127.0.0.1:{auth.port}/token", "form": {"a": "b"}}
        upstream = f"http://127.0.0.1:{api.port}"
        config = {
            "credentials": {"key": {"grant": {"request": request}}},
            "routes": {"v": {"credential": "key", "upstream": upstream, "refusal_signs": [sign]}},
        }
        async with running(config) as it:
            yield await connect(it.address), issued


async def told(
    first: bytes, sign: dict[str, Any], *, ask: bytes | None = None, slowly: bool = False
) -> tuple[Message, list[Message], int]:
    """Let a vendor answer `first` and then 200; return what the app got, what the vendor got, and token requests."""
    seen: list[Message] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.message())
            if slowly and len(seen) == 1:
                head, end, body = first.partition(b"\r\n\r\n")
                await peer.send(head + end)
                for at in range(0, len(body), 6):
                    await peer.send(body[at : at + 6])
                    await asyncio.sleep(0)
            else:
                await peer.send(first if len(seen) == 1 else ok(b"fresh"))

    async with calling(script, {"status": 400} | sign) as (app, issued):
        await app.send(ask or get("/v/a"))
        return await app.message(), seen, len(issued)


WORD = {"path": "error.word", "values": ["stale"]}


def in_bytes(sized: bytes) -> bytes:
    """The same answer with a chunk for each byte of its body."""
    head, _, body = sized.partition(b"\r\n\r\n")
    lines = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return lines + b"\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(answer(TEXT, "Content-Type: application/json"), id="JSON"),
        pytest.param(answer(TEXT, "Content-Type: application/problem+json"), id="problem+json"),
        pytest.param(answer(TEXT, "Content-Type: text/html; charset=utf-8"), id="text/html"),
        pytest.param(answer(TEXT, "Content-Type: text/plain"), id="text/plain"),
        pytest.param(answer(TEXT), id="no type"),
        pytest.param(answer(b"\xef\xbb\xbf" + TEXT, "Content-Type: application/json"), id="a BOM"),
        pytest.param(answer(TEXT.decode().encode("utf-16"), "Content-Type: application/json"), id="UTF-16"),
        pytest.param(answer(TEXT.decode().encode("utf-16-be")), id="UTF-16 without a BOM"),
        pytest.param(answer(TEXT.decode().encode("utf-32-be")), id="UTF-32 without a BOM"),
        pytest.param(answer(gzip.compress(TEXT), "Content-Encoding: gzip"), id="gzip"),
        pytest.param(answer(gzip.compress(TEXT), "Content-Type: application/json"), id="gzip without a label"),
        pytest.param(answer(zlib.compress(TEXT), "Content-Encoding: deflate"), id="deflate"),
        pytest.param(answer(b"\r\n  " + TEXT), id="blanks in front"),
    ],
)
@pytest.mark.parametrize("pieces", ["at once", "in chunks of a byte", "byte by byte"])
async def test_a_refusal_is_read_however_it_is_sent(first: bytes, pieces: str) -> None:
    slowly = pieces == "byte by byte"
    got, seen, issued = await told(first if pieces == "at once" else in_bytes(first), WORD, slowly=slowly)
    assert (got.status, got.body) == (200, b"fresh")
    assert [each.one("Authorization") for each in seen] == [b"Bearer CANARY-1", b"Bearer CANARY-2"]
    assert issued == 2


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("code", [498]), ("code", ["498"]), ("error.dead", [True]), ("error.dead", ["true"]),
        ("error.kinds", ["token_stale"]), ("error.kinds.1", ["token_stale"]), ("code", [1, 498, "x"]),
    ],
)  # fmt: skip
async def test_numbers_and_booleans_are_values_too(path: str, values: list[object]) -> None:
    got, _, issued = await told(answer(TEXT, "Content-Type: application/json"), {"path": path, "values": values})
    assert (got.status, issued) == (200, 2)


@pytest.mark.parametrize(
    ("first", "sign"),
    [
        (answer(TEXT), {"path": "code", "values": [499]}),
        (answer(TEXT), {"path": "error.dead", "values": [False]}),
        (answer(b"stale"), WORD),
        (answer(b"<p>stale</p>", "Content-Type: application/json"), WORD),
        (answer(b"\x00" * 40, "Content-Encoding: br"), WORD),
        (answer(BROTLI, "Content-Encoding: br", "Content-Type: application/json"), WORD),
        (answer(ZSTD, "Content-Encoding: zstd", "Content-Type: application/json"), WORD),
        (answer(gzip.compress(TEXT)[:20], "Content-Encoding: gzip"), WORD),
        (answer(b"{" + b" " * 200_000), WORD),
    ],
    ids=[
        "another number",
        "another boolean",
        "text",
        "HTML",
        "not br",
        "br that nobody asked for",
        "zstd that nobody asked for",
        "cut",
        "longer than is read",
    ],
)
async def test_an_answer_that_says_something_else_reaches_the_app_byte_for_byte(
    first: bytes, sign: dict[str, Any]
) -> None:
    got, seen, issued = await told(first, sign)
    assert (got.status, got.body) == (400, first.partition(b"\r\n\r\n")[2])
    assert (len(seen), issued) == (1, 1)


@pytest.mark.parametrize("first", [answer(BROTLI, "Content-Encoding: br"), answer(ZSTD, "Content-Encoding: zstd")])
async def test_a_sign_that_is_a_status_alone_counts_in_any_coding(first: bytes) -> None:
    got, seen, issued = await told(first, {})
    assert (got.status, got.body, len(seen), issued) == (200, b"fresh", 2, 2)


async def test_no_coding_is_asked_for_where_the_body_is_judged() -> None:
    ask = b"GET /v/a HTTP/1.1\r\nHost: gatepass\r\nAccept-Encoding: br, zstd;q=0.9, gzip\r\n\r\n"
    _, seen, _ = await told(answer(TEXT), WORD, ask=ask)
    assert [each.all("Accept-Encoding") for each in seen] == [[b"identity"], [b"identity"]]


async def test_a_route_without_such_a_sign_passes_the_coding_that_the_app_asks_for() -> None:
    ask = b"GET /v/a HTTP/1.1\r\nHost: gatepass\r\nAccept-Encoding: br\r\n\r\n"
    _, seen, _ = await told(answer(TEXT), {}, ask=ask)
    assert seen[0].all("Accept-Encoding") == [b"br"]


async def test_a_stream_is_not_held_back_to_be_judged() -> None:
    """The vendor keeps it open after its first event, which looks like JSON."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        head = b"HTTP/1.1 400 Bad\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        await peer.send(head + b'b\r\n{"error":1}\r\n')
        await gone.wait()

    async with vendor(script) as api:
        route = {
            "credential": "key",
            "upstream": f"http://127.0.0.1:{api.port}",
            "refusal_signs": [{"status": 400} | WORD],
        }
        config = {"credentials": {"key": {"static": {"token": "CANARY-key"}}}, "routes": {"v": route}}
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            assert (await app.head()).status == 400
            assert await app.chunk() == b'{"error":1}'
            gone.set()


def cut(body: bytes) -> list[bytes]:
    """An answer with `body`, in a length and in chunks, without its end."""
    head = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n"
    sized = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:-1])
    return [sized, head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)]


@pytest.mark.parametrize("first", [*cut(TEXT), *cut(b'{"error": "something else"}'), *cut(gzip.compress(TEXT))])
@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_an_answer_that_breaks_off_while_it_is_judged_is_502(first: bytes, how: str) -> None:
    """The app has seen nothing of it; the code says that the vendor may have processed the request."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(first)
        await asyncio.sleep(0.01)
        if how == "resets":
            peer.reset()

    async with vendor(script) as api:
        route = {"credential": "key", "upstream": f"http://127.0.0.1:{api.port}"}
        signs = {"refusal_signs": [{"status": 400} | WORD]}
        config = {"credentials": {"key": {"static": {"token": "CANARY-key"}}}, "routes": {"v": route | signs}}
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            got = await app.message()
            assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_reset")
            assert (
                it.metric("gatepass_requests_total", route="v", method="GET", status="502", code="upstream_reset") == 1
            )


@pytest.mark.parametrize("status", [200, 400, 403, 500])
async def test_a_token_is_replaced_at_once_each_time_if_the_vendor_had_accepted_it(status: int) -> None:
    """An answer with the status of a sign, whose body says something else, accepts the token as any other does."""
    fields = ("Content-Type: application/json",)
    fine, stale = (answer(body, *fields, status=f"{status} Any") for body in (b'{"error": {"word": "none"}}', TEXT))

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            dead = request.target == b"/stale" and request.one("Authorization") == b"Bearer " + dying
            await peer.send(stale if dead else ok(b"x") if status >= 500 and request.target == b"/fine" else fine)

    dying = b""
    async with calling(script, {"status": status} | WORD) as (app, issued):
        for before in range(1, 4):
            dying = b"CANARY-%d" % before
            for target in ("/v/fine", "/v/stale"):
                await app.send(get(target))
                got = await app.message()
                assert b"stale" not in got.body
            assert len(issued) == before + 1
