"""Header rules without a socket: what is dropped, aliased, nominated, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp.http import HttpRequestParser, HttpResponseParser

from gateway.errors import BadRequest, HeadersTooLarge, UpstreamMalformed
from gateway.model import Injection, Limits, Route, Upstream
from gateway.proxy.headers import (
    PASS,
    Verdicts,
    forwarded_line,
    has_control,
    read_request,
    read_response,
    status_line,
    verdicts_down,
    verdicts_nowhere,
    verdicts_up,
)

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage, RawResponseMessage


def route(**fields: object) -> Route:
    injections = (Injection("X-Api-Key", "key", "{token}"),)
    values = {"injections": injections, **fields}
    return Route("v", "/v", Upstream("http", "vendor.example", 80), **values)  # type: ignore[arg-type]


async def request(*lines: str) -> RawRequestMessage:
    raw = "\r\n".join(("GET /v/a HTTP/1.1", *lines, "", "")).encode("latin-1")
    parser = HttpRequestParser(asyncio.Protocol(), asyncio.get_running_loop(), 2**16)  # type: ignore[arg-type]
    return parser.feed_data(raw)[0][0][0]


async def response(*lines: str, start: str = "HTTP/1.1 200 OK") -> RawResponseMessage:
    raw = "\r\n".join((start, *lines, "", "")).encode("latin-1")
    parser = HttpResponseParser(asyncio.Protocol(), asyncio.get_running_loop(), 2**16)  # type: ignore[arg-type]
    return parser.feed_data(raw)[0][0][0]


NEVER = ["Cookie", "Origin", "Referer", "Forwarded", "X-Forwarded-For", "X-Forwarded-X", "Keep-Alive", "TE", "Trailer"]


@pytest.mark.parametrize("name", [*NEVER, "X-Api-Key", "Proxy-Connection", "HTTP2-Settings", "X-Real-IP"])
async def test_a_field_and_its_look_alikes_do_not_go_up(name: str) -> None:
    """In any case, and with underscores."""
    spellings = {name, name.lower(), name.upper(), name.replace("-", "_")}
    found = read_request(
        await request("Host: x", *(f"{each}: 1" for each in spellings)), verdicts_up(route()), Limits()
    )
    assert found.lines == []


@pytest.mark.parametrize(
    "name", ["Accept", "Via", "X-Forwarding", "Cookies", "X-Original-URL", "Authorization-X", "Range"]
)
async def test_everything_else_goes_up_as_it_came(name: str) -> None:
    found = read_request(await request("Host: x", f"{name}: a  b"), verdicts_up(route()), Limits())
    assert found.lines == [f"{name}: a  b".encode()]


async def test_what_connection_names_is_dropped_wherever_it_stands() -> None:
    lines = (
        "X-One: 1",
        "Host: x",
        "Connection: x-one",
        "X-Two: 2",
        "Connection: keep-alive ,\tX-TWO, close",
        "X-Three: 3",
    )
    found = read_request(await request(*lines), verdicts_up(route()), Limits())
    assert found.lines == [b"X-Three: 3"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("Authorization: Bearer abc",), (None, b"abc")),
        (("Authorization: bearer  abc ",), (None, b"abc")),
        (("Authorization: Basic abc",), (None, b"")),
        (("Authorization: Bearer a", "Authorization: Bearer b"), (None, b"")),
        (("X-Gatepass-Key: k",), (b"k", None)),
        (("X-Gatepass-Key: k", "X-Gatepass-Key: l"), (b"", None)),
    ],
    ids=["bearer", "case and spaces", "basic", "two", "key", "two keys"],
)
async def test_credentials_of_the_app_are_read_and_ambiguity_is_none(
    lines: tuple[str, ...], expected: tuple[bytes | None, bytes | None]
) -> None:
    """Which of two would be judged must not depend on who reads."""
    found = read_request(await request("Host: x", *lines), verdicts_up(route()), Limits())
    assert (found.key, found.bearer) == expected


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "a,b:c", "[::1", "a:b", "a\\b", 'a"b', "a?b", "a#b"])
async def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(BadRequest):
        read_request(await request(f"Host: {host}"), verdicts_up(route()), Limits())


@pytest.mark.parametrize("host", ["a", "a.b", "a:8080", "[::1]", "[::1]:80", "1.2.3.4", "a_b", "xn--a", "a:"])
async def test_a_host_that_is_one_is_taken(host: str) -> None:
    read_request(await request(f"Host: {host}"), verdicts_nowhere(), Limits())


async def test_a_head_over_the_limits_is_refused() -> None:
    message = await request("Host: x", *(f"X-{index}: y" for index in range(20)))
    with pytest.raises(HeadersTooLarge):
        read_request(message, verdicts_up(route()), Limits(fields=20))
    with pytest.raises(HeadersTooLarge):
        read_request(message, verdicts_up(route()), Limits(head_bytes=100))
    read_request(message, verdicts_up(route()), Limits(fields=21))


def test_verdicts_remember_only_so_many_names() -> None:
    """Names come from strangers."""
    verdicts = Verdicts({})
    for index in range(5000):
        assert verdicts[b"X-%d" % index] == PASS
    assert len(verdicts) < 1000
    with pytest.raises(BadRequest):
        verdicts[b"X Y"]


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
    ids=["both", "unknown coding", "twice"],
)
async def test_a_response_whose_framing_is_in_doubt_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises((UpstreamMalformed, Exception)) as raised:
        read_response(await response(*lines), verdicts_down())
    assert type(raised.value).__name__ in {"UpstreamMalformed", "BadHttpMessage", "TransferEncodingError"}


async def test_http_1_0_with_chunks_is_read_and_not_trusted_again() -> None:
    found = read_response(await response("Transfer-Encoding: chunked", start="HTTP/1.0 200 OK"), verdicts_down())
    assert found.chunked
    assert not found.keep_alive


async def test_connection_close_among_other_options_is_seen() -> None:
    found = read_response(await response("Connection: x-hop, Close", "X-Hop: 1", "Content-Length: 0"), verdicts_down())
    assert not found.keep_alive
    assert found.lines == []


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\x0b", b"\x1b", b"\x7f", b"\x01"])
def test_a_control_byte_in_a_response_head_is_seen(bad: bytes) -> None:
    assert has_control(b"HTTP/1.1 200 OK\r\nX: a" + bad + b"b", 1)
    assert not has_control(b"HTTP/1.1 200 OK\r\nX: a\tb\xff", 1)


def test_a_reason_keeps_its_bytes() -> None:
    assert status_line(200, b"\xfc\xff OK".decode("utf-8", "surrogateescape")) == b"HTTP/1.1 200 \xfc\xff OK"


@pytest.mark.parametrize(
    ("kind", "remote", "expected"),
    [
        ("rfc7239", "10.0.0.1", b'Forwarded: for=10.0.0.1;host="h"'),
        ("rfc7239", "2001:db8::1", b'Forwarded: for="[2001:db8::1]";host="h"'),
        ("x-forwarded", "2001:db8::1", b"X-Forwarded-For: 2001:db8::1"),
    ],
)
def test_the_field_that_tells_who_called(kind: str, remote: str, expected: bytes) -> None:
    assert forwarded_line(kind, remote, "h") == expected
