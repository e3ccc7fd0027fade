"""Targets on the wire: no path leaves the route's prefix or the vendor's base path; the rest passes byte for byte."""

from __future__ import annotations

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, answering, connect, get, ok, vendor
from tests.unit.test_routing import REFUSED

PASSED = [
    "/", "/a", "/a/", "/a/b%2Fc", "/a%2fb", "/did:hid:testnet:z6Mk%23key-1", "/sch:hid:testnet:z6:1.0", "/a+b",
    "/%20", "/a%20b", "/?", "/?q", "/?q=", "/?q=&q=&q", "/?a=1&a=2", "/?x=%2F..%2F", "/?next=/../x",
    "/?u=http://x//y", "/?a=b;c=d", "/?%00", "/?q=a+b%20c", "/a?b?c", "/a;v=1/b;w", "/...", "/..a", "/a..b",
    "/.well-known/x", "/~u", "/a,b", "/a=b", "/a@b:c", "/%E2%82%AC", "/100%25", "/a%3Fb", "/a%26b", "/(a)",
    "/a!b*c'd", "/$&", "/a|b", "/%41", "/?j={%22a%22:[1,2]}", "/?'\"<>`^|\\",
]  # fmt: skip


@pytest.mark.parametrize("base", ["", "/api/v2"], ids=["no base path", "base path"])
async def test_what_is_not_refused_passes_byte_for_byte(base: str) -> None:
    """Not decoded, not sorted, not normalised."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, upstream=f"http://127.0.0.1:{upstream.port}{base}")
        async with running(config) as it:
            app = await connect(it.address)
            for path in PASSED:
                await app.send(get("/v" + path))
                assert (await app.message()).status == 200, path
    assert [message.target.decode() for message in seen] == [base + path for path in PASSED]


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", "/v", b"/"),
        ("", "/v?q=1", b"/?q=1"),
        ("", "/v/", b"/"),
        ("/api/v1", "/v", b"/api/v1"),
        ("/api/v1", "/v?q=1", b"/api/v1?q=1"),
        ("/api/v1", "/v/", b"/api/v1/"),
        ("/api/v1", "http://x/v", b"/api/v1"),
    ],
)
async def test_exactly_the_prefix_gets_no_slash_that_nobody_asked_for(base: str, path: str, target: bytes) -> None:
    """Only a target without any path needs one (RFC 9112 §3.2.1)."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, upstream=f"http://127.0.0.1:{upstream.port}{base}", deny=["/x"])
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get(path))
            assert (await app.message()).status == 200
    assert seen[0].target == target


async def test_no_path_of_the_corpus_reaches_a_vendor() -> None:
    """More than a hundred ways to leave a prefix, each answered 400 (or 404, or not a request at all)."""
    seen: list[Message] = []
    paths = [path.replace("/idfy", "/v") for path in REFUSED]
    assert len(set(paths)) >= 100
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        for path in paths:
            app = await connect(it.address)
            await app.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await app.message()).status in {400, 404}, path
            app.close()
    assert seen == []


@pytest.mark.parametrize("path", ["/vX", "/V/a", "/v2/a", "/", "/x/v/a", "/%76/a", "/v;x/a", "/v%2Fa"])
async def test_a_neighbour_of_a_prefix_is_not_its_route(path: str) -> None:
    """Whole segments, case kept, nothing decoded."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get(path))
        got = await app.message()
        assert (got.status, b"route_not_found" in got.body) == (404, True)
        await app.send(get("/v/a"))
        assert (await app.message()).status == 200  # the connection goes on
    assert len(seen) == 1


@pytest.mark.parametrize(
    "target", ["http://evil.example/v/a?b=c", "HTTP://evil.example:99/v/a?b=c", "https://u:p@evil.example/v/a?b=c"]
)
async def test_the_authority_of_an_absolute_target_is_ignored(target: str) -> None:
    """It never chooses the upstream, nor the Host that the vendor sees (RFC 9112 §3.2.2)."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get(target))
        assert (await app.message()).status == 200
    assert seen[0].target == b"/a?b=c"
    assert seen[0].one("Host") == f"127.0.0.1:{upstream.port}".encode()


REFUSED_TARGETS = {
    "asterisk": (b"OPTIONS * HTTP/1.1", 400),
    "authority": (b"GET gatepass:80 HTTP/1.1", 400),
    "CONNECT": (b"CONNECT gatepass:443 HTTP/1.1", 400),
    "CONNECT to a path": (b"CONNECT /v/a HTTP/1.1", 405),
    "TRACE": (b"TRACE /v/a HTTP/1.1", 405),
    "fragment": (b"GET /v/a#b HTTP/1.1", 400),
    "fragment in the query": (b"GET /v/a?b#c HTTP/1.1", 400),
    "no slash": (b"GET v/a HTTP/1.1", 400),
    "another scheme": (b"GET ftp://x/v/a HTTP/1.1", 400),
    "empty": (b"GET  HTTP/1.1", 400),
    "two targets": (b"GET /v/a /v/b HTTP/1.1", 400),
}


@pytest.mark.parametrize("name", REFUSED_TARGETS)
async def test_forms_of_a_target_that_are_not_served(name: str) -> None:
    """CONNECT would make a tunnel of us, TRACE would echo the token."""
    seen: list[Message] = []
    line, status = REFUSED_TARGETS[name]
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(line + b"\r\nHost: x\r\n\r\n")
        got = await app.message()
        assert got.status == status
        if "CONNECT" in name or status == 400:  # what follows would be read as a tunnel's bytes
            assert got.one("Connection") == b"close"
            assert await app.at_end()
        assert it.at_rest()
    assert seen == []
