"""The gateway's own answers: a problem document (RFC 9457), a Proxy-Status (RFC 9209), a connection that goes on."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from gateway.proxy.phase import LINGERING
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.stall import unless_stalled
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def problem_of(got: Message, *, body: bool = True) -> dict[str, object]:
    """Return the document, having looked at everything that each of them must have."""
    assert got.one("Content-Type") == b"application/problem+json"
    assert got.one("Cache-Control") == b"no-store"
    assert got.one("Date").endswith(b" GMT")
    document: dict[str, object] = json.loads(got.body) if body else {}
    if body:
        assert set(document) >= {"type", "title", "status", "detail", "code", "route", "request_id"}
        assert document["status"] == got.status
        assert got.one("X-Request-Id").decode() == document["request_id"]
        assert f'details="{document["code"]}"'.encode() in got.one("Proxy-Status")
    assert CANARY.encode() not in got.body
    return document


RAISED = {
    "route_not_found": (get("/nowhere"), 404, b"destination_not_found", True),
    "path_refused": (get("/v/../x"), 400, b"http_request_denied", False),
    "path_refused by a rule": (get("/v/denied"), 400, b"http_request_denied", True),
    "method_not_allowed": (get("/v/a", method="DELETE"), 405, b"http_request_denied", True),
    "bad_request": (b"GARBAGE\r\n\r\n", 400, b"http_request_error", False),
    "headers_too_large": (get("/v/a", f"X: {'y' * 9000}"), 431, b"http_request_error", False),
    "body_too_large": (post("/v/a", b"x" * 11), 413, b"http_request_error", False),
    "upstream_unreachable": (get("/closed/a"), 502, b"connection_refused", True),
    "upstream_unreachable by name": (get("/unnamed/a"), 502, b"dns_error", True),
    "upstream_reset": (get("/v/reset"), 502, b"connection_terminated", True),
    "upstream_malformed": (get("/v/malformed"), 502, b"http_response_incomplete", True),
    "upstream_timeout": (get("/v/slow"), 504, b"connection_read_timeout", True),
}


@pytest.mark.parametrize("name", RAISED)
async def test_what_fails_is_said_in_one_form(name: str) -> None:
    """Status, code and error type as documented; the app's connection lives on where it can."""
    raw, status, error, goes_on = RAISED[name]

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.target == b"/reset":
                return
            if request.target == b"/slow":
                await peer.at_end()
                return
            await peer.send(b"garbage\r\n\r\n" if request.target == b"/malformed" else ok())

    async with vendor(script) as upstream:
        route = {"methods": ["GET", "POST"], "deny": ["/denied"], "max_body": 10, "timeouts": {"first_byte": "100ms"}}
        config = one_route(upstream.port, **route)
        config["routes"]["closed"] = {"credential": "key", "upstream": f"http://127.0.0.1:{closed_port()}"}
        config["routes"]["unnamed"] = {"credential": "key", "upstream": "https://does-not-exist.invalid"}
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(raw)
            got = await app.message()
            document = problem_of(got)
            code = name.partition(" ")[0]
            assert (got.status, document["code"]) == (status, code)
            assert b"gatepass; error=" + error in got.one("Proxy-Status")
            assert (got.all("Connection") == [b"close"]) != goes_on
            if goes_on:
                await app.send(get("/v/a"))
                assert (await app.message()).status == 200
            else:
                assert await app.at_end()
            assert f'"code":"{code}"' in it.log
            refused = [json.loads(line) for line in it.log.splitlines() if f'"code":"{code}"' in line]
            assert [each.get("bytes_out", len(got.body)) for each in refused] == [len(got.body)]
            assert it.at_rest()


TRACE = "0af7651916cd43dd8448eb211c80319c"
NAMED = ("X-Request-Id: mine-1", f"traceparent: 00-{TRACE}-b7ad6b7169203331-01")
UNREAD = {
    "no route": get("/nowhere", *NAMED),
    "an ambiguous path": get("/v//a", *NAMED),
    "a target that is no path": get("*", *NAMED, method="OPTIONS"),
    "a denied path": get("/v/denied", *NAMED),
    "another method": get("/v/a", *NAMED, method="DELETE"),
    "two Host fields": get("/v/a", "Host: b", *NAMED),
    "a field without a colon": get("/v/a", "nothing", *NAMED),
    "a bad length": get("/v/a", *NAMED, "Content-Length: +1"),
    "a bad first chunk": get("/v/a", *NAMED, "Transfer-Encoding: chunked", method="POST") + b"x\r\n",
    "too many fields": get("/v/a", *NAMED, *["X: 1"] * 100),
    "a field that is too large": get("/v/a", *NAMED, f"X: {'y' * 9000}"),
    "a body that is too large": post("/v/a", b"x" * 11, *NAMED),
    "another spelling, and an unusable one behind it": get(
        "/v//a", "x-request-id:\tmine-1 ", "X-REQUEST-ID: a b", NAMED[1]
    ),
}


@pytest.mark.parametrize("raw", UNREAD.values(), ids=UNREAD)
async def test_a_refusal_has_the_id_and_the_trace_of_its_request(raw: bytes) -> None:
    """However early it is refused: an app finds its own id in the answer, the operator in the log."""
    route = {"methods": ["GET", "POST"], "deny": ["/denied"], "max_body": 10}
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port, **route)) as it:
        app = await connect(it.address)
        await app.send(raw)
        got = await app.message()
        assert (got.one("X-Request-Id"), problem_of(got)["request_id"]) == (b"mine-1", "mine-1")
        (event,) = [json.loads(line) for line in it.log.splitlines() if '"event":"request"' in line]
        assert (event["request_id"], event["trace_id"]) == ("mine-1", TRACE)
        assert not upstream.received


@pytest.mark.parametrize("given", ["", "a b", "\xe9", "a" * 129])
async def test_a_refusal_of_a_request_with_an_unusable_id_has_a_new_one(given: str) -> None:
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v//a", f"X-Request-Id: {given}", "traceparent: x", "traceparent: y"))
        got = await app.message()
        assert re.fullmatch(r"[0-9a-f]{32}", str(problem_of(got)["request_id"]))
        (event,) = [json.loads(line) for line in it.log.splitlines() if '"event":"request"' in line]
        assert event["trace_id"] is None


async def test_a_405_names_the_methods_and_an_upstream_error_the_hop() -> None:
    async with (
        vendor(answering(b"garbage\r\n\r\n")) as upstream,
        running(one_route(upstream.port, methods=["GET", "POST"])) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", method="PUT"))
        assert (await app.message()).one("Allow") == b"GET, POST"
        await app.send(get("/v/a"))
        assert b'next-hop="upstream:v"' in (await app.message()).one("Proxy-Status")


async def test_a_head_request_gets_the_problems_fields_without_its_body() -> None:
    """And the connection goes on behind it."""
    async with vendor(answering(ok(b"next"))) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/nowhere", method="HEAD") + get("/v/a"))
        got = await app.message(is_head=True)
        problem_of(got, body=False)
        assert '"bytes_out":0' in it.log
        assert (got.status, int(got.one("Content-Length")) > 0) == (404, True)
        assert (await app.message()).body == b"next"


@unless_stalled(late=0.2)  # it listens for two seconds
async def test_an_error_while_the_body_is_still_coming_closes_politely() -> None:
    """What the app goes on sending is read and thrown away, so that no reset destroys the answer (RFC 9112 §9.6)."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/nowhere", "Content-Length: 5000000", method="POST"))
        app.writer.write(b"x" * 5_000_000)
        await asyncio.sleep(0.1)
        got = await app.message()
        assert (got.status, got.one("Connection")) == (404, b"close")
        assert await app.at_end()
    assert upstream.connections == 0


async def test_a_slow_reader_gets_all_of_a_last_answer() -> None:
    """The connection lingers from when the answer has left, not from when it was written."""
    size = 2**23

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await peer.send(b"x" * size)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address, buffer=2**14)
        await app.send(get("/v/a", "Content-Length: 10", method="POST"))
        assert (await app.head()).one("Connection") == b"close"
        assert it.gateway._data is not None
        (connection,) = it.gateway._data._connections
        left = size
        while connection.phase != LINGERING:
            left -= len(await app.reader.read(2**12))
        assert left > 0
        await asyncio.sleep(2.5)
        while left and (data := await app.reader.read(2**16)):
            left -= len(data)
        assert left == 0
