"""Header fields and statuses: what passes keeps its bytes and order; what could split a message does not pass."""

from __future__ import annotations

import re

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, answering, connect, get, ok, vendor


def answer(*fields: bytes, status: bytes = b"200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", body))


async def ask(raw: bytes, *fields: str, method: str = "GET", **route: object) -> Message:
    """Send one request; return the answer that comes of the vendor's `raw` one."""
    async with vendor(answering(raw)) as upstream, running(one_route(upstream.port, **route)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", *fields, method=method))
        return await app.message(is_head=method == "HEAD")


async def test_repeated_set_cookie_fields_keep_their_order_and_are_not_joined() -> None:
    cookies = [b"a=1; Path=/", b"b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT", b"a=3"]
    got = await ask(answer(*(b"Set-Cookie: " + cookie for cookie in cookies)))
    assert got.all("Set-Cookie") == cookies


async def test_via_is_added_behind_the_others_in_both_directions() -> None:
    """A recipient reads the path from it (RFC 9110 §7.6.3)."""
    seen: list[Message] = []
    raw = answer(b"Via: 1.1 vendor-edge")
    async with vendor(answering(raw, seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Via: 1.0 fred, 1.1 p.example"))
        got = await app.message()
    theirs, ours = seen[0].all("Via")
    assert theirs == b"1.0 fred, 1.1 p.example"
    assert re.fullmatch(rb"1\.1 gatepass-[0-9a-f]{12}", ours)
    assert got.all("Via") == [b"1.1 vendor-edge", b"1.1 gatepass"]


async def test_the_vendors_date_is_untouched_and_a_missing_one_is_added() -> None:
    """RFC 9110 §6.6.1."""
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert (await ask(answer(b"Date: " + date))).all("Date") == [date]
    assert (await ask(answer())).one("Date").endswith(b" GMT")


@pytest.mark.parametrize(
    ("vendors", "expected"),
    [
        ([], [b"private, no-store"]),
        ([b"Cache-Control: max-age=60"], [b"max-age=60"]),
        ([b"cache-control: public"], [b"public"]),
    ],
    ids=["none", "its own", "lower case"],
)
async def test_an_answer_without_a_cache_directive_is_marked_private(
    vendors: list[bytes], expected: list[bytes]
) -> None:
    """A cache in front of us sees no Authorization (RFC 9111 §3.5)."""
    assert (await ask(answer(*vendors))).all("Cache-Control") == expected


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"zstd", b"gzip, br", b"unheard-of"])
async def test_an_encoded_body_passes_byte_for_byte(coding: bytes) -> None:
    """Nothing is decompressed, not even what does not decompress."""
    got = await ask(answer(b"Content-Encoding: " + coding, body=b"\x1f\x8b\0not really"), "Accept-Encoding: gzip")
    assert got.one("Content-Encoding") == coding
    assert got.body == b"\x1f\x8b\0not really"


@pytest.mark.parametrize(
    "fields",
    [
        [b'ETag: "x"', b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", b"Accept-Ranges: bytes"],
        [b'ETag: W/"x"', b"Vary: Accept, *"],
        [b"Content-Range: bytes 2-3/10", b"Content-Type: multipart/byteranges; boundary=x"],
        [b"X-Empty:", b"X-Odd: \xff\xfe\x80", "X-Utf8: Grüße".encode(), b'X-Quoted: "a, b"; c=d', b"x-LoWeR: 1"],
        [b"WWW-Authenticate: Bearer realm=x, Basic", b"WWW-Authenticate: Digest"],
        [b"Location: https://vendor.example/elsewhere?x=1", b"Link: </a>; rel=next"],
    ],
    ids=["validators", "weak", "range", "odd bytes", "challenges", "location"],
)
async def test_fields_pass_byte_for_byte(fields: list[bytes]) -> None:
    got = await ask(answer(*fields, body=b"23"))
    expected = [tuple(part.strip() for part in field.split(b":", 1)) for field in fields]
    assert [pair for pair in got.headers if pair in expected] == expected


@pytest.mark.parametrize(
    "status", [200, 201, 202, 206, 226, 299, 300, 301, 302, 304, 307, 308, 400, 404, 410, 418, 451, 500, 503, 599]
)
async def test_every_status_passes_with_its_reason(status: int) -> None:
    """Redirects are not followed; a status that nobody has heard of is still the vendor's."""
    got = await ask(answer(b"Location: /x", status=b"%d Its Own \xfc Reason" % status))
    assert got.start == b"HTTP/1.1 %d Its Own \xfc Reason" % status


async def test_a_status_line_without_a_reason_passes() -> None:
    assert (await ask(answer(status=b"204"))).start == b"HTTP/1.1 204 "


RANGES = [
    "Range: bytes=0-1",
    'If-Range: "x"',
    'If-None-Match: "x", W/"y"',
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
]


async def test_conditional_and_range_requests_reach_the_vendor_as_they_are() -> None:
    seen: list[Message] = []
    raw = answer(b"Content-Range: bytes 0-1/10", status=b"206 Partial Content", body=b"01")
    async with vendor(answering(raw, seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", *RANGES))
        got = await app.message()
    assert (got.status, got.body) == (206, b"01")
    assert [f"{name.decode()}: {value.decode()}" for name, value in seen[0].headers][1:5] == RANGES


async def test_non_ascii_values_of_a_request_are_preserved() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        raw = b"GET /v/a HTTP/1.1\r\nHost: x\r\nX-A: caf\xe9\r\nX-B: \xc3\xa9\r\nX-C: a\tb\r\nX-D:\r\n\r\n"
        await app.send(raw)
        assert (await app.message()).status == 200
    assert [pair for pair in seen[0].headers if pair[0].startswith(b"X-") and pair[0] != b"X-Request-Id"] == [
        (b"X-A", b"caf\xe9"),
        (b"X-B", b"\xc3\xa9"),
        (b"X-C", b"a\tb"),
        (b"X-D", b""),
    ]


@pytest.mark.parametrize(
    "name", ["X Y", "X(", "X\x7f", "X\xe9", "", "X\t", "X/", "X@", "[X]", '"X"', "X,Y", "X;", "X=Y", "{X}"]
)
async def test_an_invalid_name_is_400(name: str) -> None:
    """Also after a thousand valid ones that nobody has heard of."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", f"{name}: y"))
        assert (await app.message()).status == 400


async def test_names_beyond_the_memory_for_verdicts_are_judged_alike() -> None:
    """Memory for names is bounded, correctness is not."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for start in range(0, 900, 90):
            await app.send(get("/v/a", *(f"X-N{start + index}: 1" for index in range(90))))
            assert (await app.message()).status == 200
        await app.send(get("/v/a", "X-Late: 1", "x_forwarded_late: 1", "cOOkie: a=b"))
        assert (await app.message()).status == 200
    names = [name.lower() for name, _ in seen[-1].headers]
    assert b"x-late" in names
    assert not {b"x_forwarded_late", b"cookie"} & set(names)


EDGES = {
    "100 fields": ("GET /v/a HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 99 + "\r\n", 200),
    "101 fields": ("GET /v/a HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 100 + "\r\n", 431),
    "a field of 8 KiB": (f"GET /v/a HTTP/1.1\r\nHost: x\r\nX: {'y' * 8191}\r\n\r\n", 200),
    "a field of more": (f"GET /v/a HTTP/1.1\r\nHost: x\r\nX: {'y' * 8193}\r\n\r\n", 431),
    "63 KiB in all": (
        "GET /v/a HTTP/1.1\r\nHost: x\r\n" + "".join(f"X{i}: {'y' * 7900}\r\n" for i in range(8)) + "\r\n",
        200,
    ),
    "71 KiB in all": (
        "GET /v/a HTTP/1.1\r\nHost: x\r\n" + "".join(f"X{i}: {'y' * 7900}\r\n" for i in range(9)) + "\r\n",
        431,
    ),
    "a target of 15 KiB": (f"GET /v/{'a' * 15360} HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "a target of 17 KiB": (f"GET /v/{'a' * 17408} HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a head without an end": ("GET /v/a HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 20_000, 431),
    "a field without an end": ("GET /v/a HTTP/1.1\r\nHost: x\r\nX: " + "y" * 100_000, 431),
}


@pytest.mark.parametrize("pace", ["at once", "in segments"])
@pytest.mark.parametrize("name", EDGES)
async def test_the_limits_of_a_head_are_where_they_are_said_to_be(name: str, pace: str) -> None:
    """And the same in one segment and in many."""
    raw, status = EDGES[name]
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        step = len(raw) if pace == "at once" else 4099
        for at in range(0, len(raw), step):
            app.writer.write(raw[at : at + step].encode())
            if step < len(raw):
                await app.writer.drain()
        got = await app.message()
        assert got.status == status
        if status == 431:
            assert b'"headers_too_large"' in got.body
            assert await app.at_end()


SPLITTERS = {
    "CR in a value": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "CR before LF": b"HTTP/1.1 200 OK\r\nX: a\r\r\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "vertical tab": b"HTTP/1.1 200 OK\r\nX: a\x0bb\r\nContent-Length: 0\r\n\r\n",
    "escape": b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\nContent-Length: 0\r\n\r\n",
    "DEL": b"HTTP/1.1 200 OK\r\nX: \x7f\r\nContent-Length: 0\r\n\r\n",
    "control byte in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
    "space in a name": b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "odd name": b"HTTP/1.1 200 OK\r\nX(Y): a\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\none",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\none",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "201 fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 201 + b"Content-Length: 0\r\n\r\n",
    "a field of 17 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 17408 + b"\r\nContent-Length: 0\r\n\r\n",
    "a head of 65 KiB": b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 8000) * 9,
}


@pytest.mark.parametrize("name", SPLITTERS)
async def test_an_answer_that_is_not_http_to_the_letter_is_502(name: str) -> None:
    """Nothing of it reaches the app, and the connection is not used again."""
    async with vendor(answering(SPLITTERS[name], ok(b"own"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert (got.status, b'"upstream_malformed"' in got.body) == (502, True)
        assert b"evil" not in b"".join(value for _, value in got.headers) + got.body
        await app.send(get("/v/b"))
        assert (await app.message()).body == b"own"
        assert upstream.connections == 2


async def test_hop_by_hop_fields_of_an_answer_end_here() -> None:
    """What its Connection names, too; never what we answer for."""
    got = await ask(
        answer(
            b"Connection: keep-alive, X-Hop, Date, Cache-Control",
            b"Keep-Alive: timeout=5",
            b"X-Hop: 1",
            b"Proxy-Authenticate: Basic",
            b"Trailer: X",
            b"Upgrade: h2c",
            b"X-Request-Id: theirs",
            b"Cache-Control: no-cache",
        ),
        "X-Request-Id: mine",
    )
    for name in ("Connection", "Keep-Alive", "X-Hop", "Proxy-Authenticate", "Trailer", "Upgrade"):
        assert not got.all(name)
    assert got.one("X-Request-Id") == b"mine"
    assert got.one("Cache-Control") == b"no-cache"


async def test_a_vendor_speaks_neither_in_our_name_nor_for_our_host() -> None:
    """Nor does it tell a proxy in front of us to send a file."""
    raw = answer(b'Alt-Svc: h3=":443"', b"proxy-status: gatepass; error=connection_refused", b"X_Accel-Redirect: /x")
    async with vendor(answering(raw)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
    names = {name.lower().replace(b"_", b"-") for name, _ in got.headers}
    assert not {b"alt-svc", b"proxy-status", b"x-accel-redirect"} & names


async def test_no_field_of_an_app_overrides_its_method_its_target_or_its_address() -> None:
    seen: list[Message] = []
    claims = (
        "X-HTTP-Method-Override: DELETE",
        "x_original_url: /denied",
        "X-Rewrite-URL: /denied",
        "X.Client-IP: 1.2.3.4",
    )
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", *claims, "X-Mine: 1"))
        assert (await app.message()).status == 200
    assert not [value for _, value in seen[0].headers if value in {b"DELETE", b"/denied", b"1.2.3.4"}]
    assert seen[0].one("X-Mine") == b"1"
