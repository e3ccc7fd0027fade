"""Heads without a socket: what is dropped, aliased, nominated, remembered, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, ExchangeError, HeadersTooLarge, UpstreamMalformed
from gateway.model import Injection, Limits, Route, Upstream
from gateway.proxy import response as answers
from gateway.proxy.fields import (
    DATE,
    DROP,
    HOST,
    PASS,
    Head,
    Verdicts,
    values,
    verdicts_down,
    verdicts_nowhere,
    verdicts_up,
)
from gateway.proxy.forward import forwarded_line
from gateway.proxy.request import TARGET_LIMIT, Inbound, RequestHead, check_beginning, read_request
from gateway.proxy.response import Outbound, check_answer_beginning, read_response
from gateway.proxy.routing import check_path, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[bytes, int], None]

SECRET = "s3cr3t-c4n4ry"
CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte != 0x09]


@pytest.fixture(autouse=True)
def _down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a table of its own for what vendors send: the gateway has one for all of them."""
    monkeypatch.setattr(answers, "_DOWN", verdicts_down())


def route(**fields: object) -> Route:
    injections = (Injection("X-Api-Key", "key", "{token}"),)
    given = {"injections": injections, **fields}
    return Route("v", "/v", Upstream("http", "vendor.example", 80), **given)  # type: ignore[arg-type]


def head(*lines: str, start: str = "GET /v/a HTTP/1.1") -> RequestHead:
    return RequestHead("\r\n".join((start, *lines)).encode("latin-1"))


def request(*lines: str, start: str = "GET /v/a HTTP/1.1", verdicts: Verdicts | None = None) -> Inbound:
    table = verdicts_up(route()) if verdicts is None else verdicts
    return read_request(head(*lines, start=start), table, Limits())


def response(*lines: str, start: str = "HTTP/1.1 200 OK") -> Outbound:
    return read_response("\r\n".join((start, *lines)).encode("latin-1"))


def facts(found: Inbound | Outbound) -> dict[str, object]:
    """Return all that was understood, but for the notes on `Connection`, of which that is made."""
    return {
        name: getattr(found, name)
        for name in (*Head.__annotations__, *type(found).__annotations__, "lines")
        if name != "connection"
    }


# --------------------------------------------------------------------------------------------------------- what goes up

NEVER = ["Cookie", "Origin", "Referer", "Forwarded", "X-Forwarded-For", "X-Forwarded-X", "Keep-Alive", "TE", "Trailer"]


@pytest.mark.parametrize("name", [*NEVER, "X-Api-Key", "Proxy-Connection", "HTTP2-Settings", "X-Real-IP"])
def test_a_field_and_its_look_alikes_do_not_go_up(name: str) -> None:
    """In any case, and with underscores."""
    spellings = {name, name.lower(), name.upper(), name.replace("-", "_")}
    assert request("Host: x", *(f"{each}: 1" for each in spellings)).lines == []


CLAIMS = [
    *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Original-URI"),
    *("X-Rewrite-URL", "X-Override-URL", "X-Original-Host", "X-Host", "X-HTTP-Host-Override", "Alt-Used"),
    *("True-Client-IP", "X-Client-IP", "Client-IP", "X-Cluster-Client-IP", "X-Forwarded", "CF-Connecting-IP"),
    *("Fastly-Client-IP", "Fly-Client-IP", "X-Remote-Addr", "X-Originating-IP", "Client-Cert", "Client-Cert-Chain"),
]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_field_that_overrides_method_target_or_caller_goes_up_only_where_the_route_says_so(name: str) -> None:
    """Some servers believe them more than the request line, past a route's methods and a rule's paths."""
    spellings = [name, name.lower(), name.replace("-", "_"), name.upper().replace("-", "."), name.replace("-", "_", 1)]
    assert request("Host: x", *(f"{each}: /denied" for each in spellings)).lines == []
    passing = verdicts_up(route(pass_headers=frozenset({name.lower()})))
    assert request("Host: x", f"{name}: 1", verdicts=passing).lines == [f"{name}: 1".encode()]


@pytest.mark.parametrize("injected", ["X-Api-Key", "X_Api_Key", "x-api_KEY", "X.Api.Key"])
@pytest.mark.parametrize("kept", [frozenset[str](), frozenset({"x-api-key"}), frozenset({"x_api_key"})])
def test_no_look_alike_of_the_injected_field_goes_up_however_the_route_writes_it(
    injected: str, kept: frozenset[str]
) -> None:
    table = verdicts_up(route(injections=(Injection(injected, "key", "{token}"),), pass_headers=kept))
    names = ["X-Api-Key", "x-api-key", "X_Api_Key", "X-Api_Key", "X_API-KEY", "X.Api.Key", "X~Api!Key"]
    assert request("Host: x", *(f"{name}: mine" for name in names), verdicts=table).lines == []
    assert request("Host: x", "X-Api-Keys: 1", verdicts=table).lines == [b"X-Api-Keys: 1"]


@pytest.mark.parametrize("stripped", ["x-internal-user", "x_internal_user"])
def test_strip_headers_names_look_alikes_too(stripped: str) -> None:
    table = verdicts_up(route(strip_headers=frozenset({stripped})))
    assert request("Host: x", "X-Internal-User: 1", "X_Internal_User: 2", verdicts=table).lines == []


@pytest.mark.parametrize(
    "name",
    [
        "Alt-Svc",
        "Proxy-Status",
        "X-Accel-Redirect",
        "X-Sendfile",
        "X-Reproxy-URL",
        "X-Request-Id",
        "Proxy-Authenticate",
    ],
)
def test_what_a_vendor_says_in_our_name_or_to_a_proxy_in_front_of_us_does_not_come_down(name: str) -> None:
    spellings = {name, name.lower(), name.replace("-", "_")}
    assert response(*(f"{each}: 1" for each in spellings)).lines == []
    assert response("X-Accel-Buffering: no").lines == [b"X-Accel-Buffering: no"]


@pytest.mark.parametrize("name", ["Accept", "Via", "X-Forwarding", "Cookies", "X-Original", "Authorization-X", "Range"])
@pytest.mark.parametrize("value", [": a  b", ":a", ":", ": a\tb ", ":\t\xe9\xff"])
def test_everything_else_goes_up_as_it_came(name: str, value: str) -> None:
    """Name, space and value, byte for byte."""
    assert request("Host: x", name + value).lines == [(name + value).encode("latin-1")]


def test_what_connection_names_is_dropped_wherever_it_stands() -> None:
    lines = (
        "X-One: 1",
        "Host: x",
        "Connection: x-one",
        "X-Two: 2",
        "Connection: keep-alive ,\tX-TWO, close",
        "X-Three: 3",
    )
    assert request(*lines).lines == [b"X-Three: 3"]


@pytest.mark.parametrize("connection", ["", ",", " , ,", "keep-alive", "Keep-Alive, Close", "upgrade"])
def test_connection_that_names_no_field_drops_none(connection: str) -> None:
    assert request("Host: x", "Accept: a", f"Connection: {connection}").lines == [b"Accept: a"]


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
def test_credentials_of_the_app_are_read_and_ambiguity_is_none(
    lines: tuple[str, ...], expected: tuple[bytes | None, bytes | None]
) -> None:
    """Which of two would be judged must not depend on who reads."""
    found = request("Host: x", *lines)
    assert (found.key, found.bearer) == expected


@pytest.mark.parametrize(
    ("start", "lines", "expected"),
    [
        ("GET /v/a HTTP/1.1", (), True),
        ("GET /v/a HTTP/1.1", ("Connection: keep-alive",), True),
        ("GET /v/a HTTP/1.1", ("Connection: x, CLOSE",), False),
        ("GET /v/a HTTP/1.1", ("Connection: keep-alive", "Connection: close"), False),
        ("GET /v/a HTTP/1.0", (), False),
        ("GET /v/a HTTP/1.0", ("Connection: keep-alive",), False),
        ("GET /v/a HTTP/1.1", ("Upgrade: h2c",), False),
        ("CONNECT x:1 HTTP/1.1", (), False),
    ],
    ids=["1.1", "said", "close", "both", "1.0", "1.0 keep-alive", "upgrade", "CONNECT"],
)
def test_whether_the_apps_connection_may_go_on(start: str, lines: tuple[str, ...], expected: bool) -> None:
    assert request("Host: x", *lines, start=start).keep_alive is expected


UPGRADE = ("Connection: Upgrade", "Upgrade: WebSocket")


@pytest.mark.parametrize(
    ("start", "lines", "expected"),
    [
        ("GET /v/a HTTP/1.1", UPGRADE, True),
        ("GET /v/a HTTP/1.1", (*UPGRADE, "Content-Length: 0"), True),
        ("GET /v/a HTTP/1.1", UPGRADE[1:], False),
        ("GET /v/a HTTP/1.1", ("Connection:", UPGRADE[1]), False),
        ("GET /v/a HTTP/1.1", ("Connection: close", UPGRADE[1]), False),
        ("GET /v/a HTTP/1.1", (*UPGRADE, "Upgrade: h2c"), False),
        ("GET /v/a HTTP/1.1", (*UPGRADE, "Content-Length: 5"), False),
        ("GET /v/a HTTP/1.1", (*UPGRADE, "Transfer-Encoding: chunked"), False),
        ("POST /v/a HTTP/1.1", UPGRADE, False),
        ("GET /v/a HTTP/1.0", UPGRADE, False),
    ],
)
def test_what_asks_for_a_websocket(start: str, lines: tuple[str, ...], expected: bool) -> None:
    found = request("Host: x", *lines, start=start)
    assert found.websocket is expected
    assert found.upgrade
    assert found.lines == []


# ---------------------------------------------------------------------------------------------- what is refused of apps


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "a,b:c", "[::1", "a:b", "a\\b", 'a"b', "a?b", "a#b"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(BadRequest):
        request(f"Host: {host}")


@pytest.mark.parametrize("host", ["a", "a.b", "a:8080", "[::1]", "[::1]:80", "1.2.3.4", "a_b", "xn--a", "a:"])
def test_a_host_that_is_one_is_taken(host: str) -> None:
    request(f"Host: {host}", verdicts=verdicts_nowhere())


def test_a_head_over_the_limits_is_refused() -> None:
    message = head("Host: x", *(f"X-{index}: y" for index in range(20)))
    with pytest.raises(HeadersTooLarge):
        read_request(message, verdicts_up(route()), Limits(fields=20))
    with pytest.raises(HeadersTooLarge):
        read_request(message, verdicts_up(route()), Limits(head_bytes=100))
    read_request(message, verdicts_up(route()), Limits(fields=21))


@pytest.mark.parametrize("line", [f"X: {'y' * 101}", f"{'X' * 101}: y"])
def test_a_field_over_the_limit_is_refused(line: str) -> None:
    with pytest.raises(HeadersTooLarge):
        read_request(head("Host: x", line), verdicts_up(route()), Limits(field_bytes=100))
    read_request(head("Host: x", line), verdicts_up(route()), Limits(field_bytes=101))


def test_a_target_over_the_limit_is_refused() -> None:
    head(start=f"GET /{'a' * (TARGET_LIMIT - 1)} HTTP/1.1")
    with pytest.raises(HeadersTooLarge):
        head(start=f"GET /{'a' * TARGET_LIMIT} HTTP/1.1")


@pytest.mark.parametrize(
    "start",
    [
        *(
            "",
            " ",
            "GET",
            "GET /v/a",
            "GET  HTTP/1.1x",
            " GET /v/a HTTP/1.1",
            "GET /v/a HTTP/1.1 ",
            "GET /v/a  HTTP/1.1",
        ),
        *("GET  /v/a HTTP/1.1", "GET /v /a HTTP/1.1", "GET\t/v/a\tHTTP/1.1", "GET /v/a\tHTTP/1.1", "get /v/a HTTP/1.1"),
        *("FOO /v/a HTTP/1.1", "GET: /v/a HTTP/1.1", "GET /v/a HTTP/1.2", "GET /v/a HTTP/2.0", "GET /v/a HTTP/0.9"),
        *("GET /v/a http/1.1", "GET /v/a HTTP/1.1x", "GET /v/a HTTP/01.1", "GET /v/a HTTP/1.10", "GET /v/a RTSP/1.0"),
        *(
            "GET /v/caf\xe9 HTTP/1.1",
            "GE\0T /v/a HTTP/1.1",
            "GET /v/a HTTP/1.1\r",
            "GET /v/a HTTP/1.1\n",
            "\nGET / HTTP/1.1",
        ),
    ],
)
def test_a_request_line_that_is_none_is_refused(start: str) -> None:
    with pytest.raises(BadRequest):
        head("Host: x", start=start)


def path_of(start: str) -> str:
    """Return the path of a request line, which was found to be right."""
    path, _ = split_target(head("Host: x", start=start).target)
    check_path(path)
    return path


@pytest.mark.parametrize("bad", CONTROLS)
@pytest.mark.parametrize(
    "place", ["G{}ET /v/a HTTP/1.1", "GET /v{}/a HTTP/1.1", "GET /v/a?b{} HTTP/1.1", "GET /v/a HTTP/{}1.1"]
)
def test_a_control_byte_in_the_request_line_is_refused(bad: int, place: str) -> None:
    """Those in the target by who reads it: it is never written anywhere before that."""
    with pytest.raises(ExchangeError) as raised:
        path_of(place.format(chr(bad)))
    assert raised.value.status == 400


@pytest.mark.parametrize("target", ["", "*", "x:80", "v/a", "ftp://x/v"])
def test_a_target_that_is_no_path_is_refused_by_who_reads_it(target: str) -> None:
    with pytest.raises(ExchangeError) as raised:
        path_of(f"GET {target} HTTP/1.1")
    assert raised.value.status == 400


ODD_LINES = {
    "folded with a space": " b",
    "folded with a tab": "\tb",
    "folded field": " Transfer-Encoding: chunked",
    "no colon": "X",
    "empty": "",
    "no name": ": a",
    "space before the colon": "X : a",
    "tab before the colon": "X\t: a",
    "space in the name": "X Y: a",
    "bytes beyond ASCII in the name": "X\xe9: a",
    "quoted name": '"X": a',
    "name with a slash": "X/Y: a",
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_a_line_that_is_no_field_is_refused_wherever_it_stands(name: str) -> None:
    line = ODD_LINES[name]
    for lines in ((line, "Host: x"), ("Host: x", line), ("Host: x", line, "Accept: a")):
        with pytest.raises(BadRequest):
            request(*lines)
    with pytest.raises(UpstreamMalformed):
        response("Server: x", line, "Content-Length: 0")


@pytest.mark.parametrize("bad", CONTROLS)
@pytest.mark.parametrize(
    "place",
    ["{}X: a", "X{}Y: a", "X{}: a", "X:{} a", "X: a{}b", "X: a{}", "Cookie: a{}", "Content-Length: 5{}", "Host{}: x"],
)
def test_a_control_byte_in_a_field_is_refused(bad: int, place: str) -> None:
    """A CR or LF alone, too; in what is dropped as in what passes."""
    line = place.format(chr(bad))
    with pytest.raises(BadRequest):
        request("Host: x", line)
    with pytest.raises(UpstreamMalformed):
        response(line)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding:",),
        ("Content-Length: 3", "Content-Length: 3"),
        ("Content-Length: 3, 3",),
        ("Content-Length: +3",),
        ("Content-Length: 1_0",),
        ("Content-Length:",),
        ("Content-Length: 1234567890123456789",),
    ],
)
def test_a_message_whose_framing_is_in_doubt_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(UpstreamMalformed):
        response(*lines)
    with pytest.raises(BadRequest):
        request("Host: x", *lines)


@pytest.mark.parametrize("lines", [(), ("Host: x", "Host: x"), ("Host: x", "host: y")])
def test_host_appears_exactly_once(lines: tuple[str, ...]) -> None:
    for _ in range(2):  # the second time its line is a steady one
        with pytest.raises(BadRequest):
            request(*lines, verdicts=verdicts_nowhere())
    if len(lines) < 2:
        request(*lines, start="GET / HTTP/1.0")


def test_http_1_0_has_no_transfer_encoding() -> None:
    with pytest.raises(BadRequest):
        request("Host: x", "Transfer-Encoding: chunked", start="POST /v/a HTTP/1.0")


def test_expect_is_100_continue_or_refused() -> None:
    assert request("Host: x", "Expect: 100-Continue").expects_continue
    assert not request("Host: x", "Expect: 100-continue", start="GET /v/a HTTP/1.0").expects_continue
    with pytest.raises(BadRequest):
        request("Host: x", "Expect: 200-ok")


# --------------------------------------------------------------------------------------------------- what is remembered


def test_verdicts_remember_only_so_many_names() -> None:
    """Names come from strangers."""
    verdicts = Verdicts({})
    for index in range(5000):
        assert verdicts[b"X-%d" % index] == PASS
    assert len(verdicts) < 1000
    with pytest.raises(BadRequest):
        verdicts[b"X Y"]


def test_a_name_of_any_length_is_understood_and_only_a_short_one_remembered() -> None:
    """Five hundred names of 64 KiB would be 32 MiB for each route."""
    verdicts = Verdicts({})
    assert [verdicts[b"X" * size] for size in (10, 10_000)] == [PASS, PASS]
    assert list(verdicts) == [b"X" * 10]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (b"Accept: */*", PASS),
        (b"uSER-aGENT:x", PASS),
        (b"Content-Type: text/plain; charset=\xe9", PASS),
        (b"Accept-Encoding: gzip", DROP),
        (b"Pragma: no-cache", PASS),
        (b"Host: vendor.example:80", HOST),
        (b"Cache-Control: no-cache", PASS),
        (b"Connection: keep-alive", DROP),
    ],
)
@pytest.mark.parametrize("also", [(), ("Connection: accept, content-type",), ("Connection: close",)])
def test_a_steady_line_is_understood_as_it_was_the_first_time(line: bytes, verdict: int, also: tuple[str, ...]) -> None:
    """Whatever is done with its field, and whatever `Connection` says of it."""
    verdicts = verdicts_up(route(echo_guard=True, strip_headers=frozenset({"via"})))
    lines = [line.decode("latin-1"), "X-Other: 1", *also]
    if verdict != HOST:
        lines.append("Host: x")
    first = request(*lines, verdicts=verdicts)
    assert verdicts.steady[line] == verdict
    assert facts(request(*lines, verdicts=verdicts)) == facts(first)
    nominated = line.partition(b":")[0].lower() in b", ".join(each.encode().lower() for each in also)
    assert (line in first.lines) is (verdict == PASS and not nominated)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (b"Server: nginx", PASS),
        (b"vary:Accept", PASS),
        (b"Content-Type: text/plain", PASS),
        (b"Host: x", PASS),
        (b"Date: Sun, 06 Nov 1994 08:49:37 GMT", DATE),
        (b"connection:Keep-Alive", DROP),
    ],
)
@pytest.mark.parametrize("also", [(), ("Connection: server, vary, content-type, host, date",)])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_vendors_steady_line_is_understood_as_it_was_the_first_time(
    line: bytes, verdict: int, also: tuple[str, ...], version: str
) -> None:
    lines = (line.decode(), "X-Other: 1", *also)
    first = response(*lines, start=f"{version} 200 OK")
    assert answers._DOWN.steady[line] == verdict
    assert facts(response(*lines, start=f"{version} 200 OK")) == facts(first)
    assert (line in first.lines) is (verdict == DATE or (verdict == PASS and not also))
    assert first.date is (verdict == DATE)


def test_a_line_that_one_route_remembers_is_judged_anew_by_another() -> None:
    """What is stripped on one route passes on the next."""
    passing, stripping = verdicts_up(route()), verdicts_up(route(strip_headers=frozenset({"accept"})))
    for _ in range(2):
        assert request("Host: x", "Accept: a", verdicts=passing).lines == [b"Accept: a"]
        assert request("Host: x", "Accept: a", verdicts=stripping).lines == []


SENSITIVE = [
    *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Gatepass-Key", "X-Api-Key", "X-Auth-Token"),
    *("Referer", "Origin", "Location", "ETag", "If-None-Match", "If-Match", "From", "Forwarded", "X-Forwarded-For"),
    *("X-Real-IP", "X-Request-Id", "traceparent", "tracestate", "baggage", "Content-Disposition", "Content-Location"),
    *("WWW-Authenticate", "Link", "Idempotency-Key", "X-Anything", "Sec-WebSocket-Key"),
    *("Host_", "User_Agent", "Accept_", "X-Accept"),
]


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize(
    "pass_headers", [frozenset[str](), frozenset({"cookie", "authorization", "origin", "referer"})]
)
def test_nothing_of_a_field_that_may_hold_a_secret_is_remembered(name: str, pass_headers: frozenset[str]) -> None:
    """Nor of a person: names are, values are not."""
    verdicts = verdicts_up(route(pass_headers=pass_headers, authorization="pass" if pass_headers else "inject"))
    for _ in range(2):
        request("Host: x", f"{name}: {SECRET}", verdicts=verdicts)
        response(f"{name}: {SECRET}")
    remembered = [*verdicts, *verdicts.steady, *answers._DOWN, *answers._DOWN.steady]
    assert not any(SECRET.encode() in each for each in remembered)


@pytest.mark.parametrize(
    "line", [SECRET, f" {SECRET}", f"Accept\0: {SECRET}", f"Accept: {SECRET}\r", f"Accept : {SECRET}"]
)
def test_nothing_of_a_line_that_is_refused_is_remembered(line: str) -> None:
    """Else it would be taken for right the next time; a line without a colon may be the rest of anything."""
    verdicts = verdicts_up(route())
    for _ in range(2):
        with pytest.raises(BadRequest):
            request("Host: x", line, verdicts=verdicts)
        with pytest.raises(UpstreamMalformed):
            response(line)
    remembered = [*verdicts, *verdicts.steady, *answers._DOWN, *answers._DOWN.steady]
    assert not any(SECRET.encode() in each for each in remembered)


def test_a_host_that_is_refused_is_refused_every_time() -> None:
    verdicts = verdicts_nowhere()
    for _ in range(2):
        with pytest.raises(BadRequest):
            request("Host: a b", verdicts=verdicts)
    assert verdicts.steady == {}


def test_steady_lines_take_so_much_memory_and_no_more() -> None:
    """Five hundred lines of two hundred bytes; who comes later is understood all the same."""
    verdicts = verdicts_nowhere()
    for index in range(3000):
        lines = (f"User-Agent: {index}", f"Accept: {'x' * 300}{index}")
        assert request("Host: x", *lines, verdicts=verdicts).lines == [line.encode() for line in lines]
        assert response(f"Server: {index}", f"Vary: {'x' * 300}{index}").lines[0] == b"Server: %d" % index
    for table in (verdicts, answers._DOWN):
        assert len(table.steady) <= 512
        assert max(map(len, table.steady)) <= 200


# ---------------------------------------------------------------------------------------------- the beginning of a head

GOOD_HEADS = [
    b"GET /v/a HTTP/1.1\r\nHost: x\r\nX: \t\xff\r\nY:\r\n\r\n",
    b"POST http://x/%20?q HTTP/1.0\r\n\r\n",
    b"PROPFIND / HTTP/1.1\r\n" + b"a:b\r\n" * 50 + b"\r\n",
]
GOOD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nServer: x\r\nX: \t\xff\r\n\r\n",
    b"HTTP/1.0 404\r\n\r\n",
    b"HTTP/1.1 500 \xfc\t\r\n" + b"a:b\r\n" * 50 + b"\r\n",
]


@pytest.mark.parametrize("raw", GOOD_HEADS)
def test_every_beginning_of_a_good_head_may_become_one(raw: bytes) -> None:
    for end in range(len(raw)):
        for seen in range(end + 1):
            check_beginning(raw[:end], seen)


@pytest.mark.parametrize("raw", GOOD_ANSWERS)
def test_every_beginning_of_a_good_answer_may_become_one(raw: bytes) -> None:
    for end in range(len(raw)):
        for seen in range(end + 1):
            check_answer_beginning(raw[:end], seen)


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b"\x16\x03\x01", 1),
        (b"\0", 1),
        (b"G\x7fT", 2),
        (b"GET / HTTP/1.1\nHost: x", 15),
        (b"GET / HTTP/1.1\rHost: x", 16),
        (b"GET / HTTP/1.1\r\rHost: x", 16),
        (b"GET / HTTP/1.1\r\nX: a\nY", 21),
        (b"GET / HTTP/1.1\r\nX: a\rY", 22),
        (b"GET / HTTP/1.1\r\nX: a\r\nY: \x01", 26),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 21),
        (b"GET /\r\nHost: x", 7),
        (b"GET  / HTTP/1.1\r\nHost: x", 17),
        (b"get / HTTP/1.1\r\nHost: x", 16),
        (b"GET / HTTP/2.0\r\nHost: x", 16),
        (b"\r\nGET / HTTP/1.1", 2),
    ],
)
def test_what_cannot_become_a_head_is_seen_at_the_first_byte_that_tells(raw: bytes, where: int) -> None:
    """The line end of a request line is waited for, no other byte."""
    assert _first_refused(check_beginning, raw, range(1, len(raw) + 1), BadRequest) == where


def test_a_target_over_the_limit_is_seen_before_the_head_is_whole() -> None:
    with pytest.raises(HeadersTooLarge):
        check_beginning(b"GET /%b HTTP/1.1\r\n" % (b"a" * TARGET_LIMIT))


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b"\r\nHTTP/1.1 200 OK", 1),
        (b"SSH-2.0", 1),
        (b"HTTP/2 200", 6),
        (b"http/1.1", 1),
        (b"HTTP/1.1 200 OK\nX", 16),
        (b"HTTP/1.1 200 OK\rX", 17),
        (b"HTTP/1.1 200 \0", 14),
        (b"HTTP/1.1 200 OK\r\nX: a\x0b", 22),
    ],
)
def test_what_cannot_become_an_answer_is_seen_at_the_first_byte_that_tells(raw: bytes, where: int) -> None:
    assert _first_refused(check_answer_beginning, raw, range(1, len(raw) + 1), UpstreamMalformed) == where


def _first_refused(check: Check, raw: bytes, ends: Iterable[int], kind: type[ExchangeError]) -> int | None:
    """Return at which of `ends` the beginning of `raw` is refused; what was seen before is not looked at again."""
    for seen, end in pairwise((0, *ends)):
        try:
            check(raw[:end], seen)
        except kind:
            return end
    return None


@given(
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"]),
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b":", b" ", b"\t", b"\x01", b"GET / HTTP/1.1"]), max_size=12
    ),
    st.lists(st.integers(1, 60)),
)
def test_what_was_seen_before_need_not_be_looked_at_again(start: bytes, rest: list[bytes], places: list[int]) -> None:
    """A head that comes in pieces is refused at the same one as if all of it were looked at each time."""
    raw = start + b"".join(rest)
    ends = sorted({place for place in places if place < len(raw)} | {len(raw)})
    both: tuple[tuple[Check, type[ExchangeError]], ...]
    both = ((check_beginning, BadRequest), (check_answer_beginning, UpstreamMalformed))
    for check, kind in both:
        assert _first_refused(check, raw, ends, kind) == _first_refused(_anew(check), raw, ends, kind)


def _anew(check: Check) -> Check:
    return lambda part, _: check(part, 0)


# ------------------------------------------------------------------------------------------------------ what comes down


@pytest.mark.parametrize(
    ("line", "code", "written"),
    [
        (b"HTTP/1.1 200 OK", 200, b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200", 200, b"HTTP/1.1 200 "),
        (b"HTTP/1.1 200 ", 200, b"HTTP/1.1 200 "),
        (b"HTTP/1.0 404 Not  Found\t", 404, b"HTTP/1.1 404 Not  Found\t"),
        (b"HTTP/1.1 100 Continue", 100, b"HTTP/1.1 100 Continue"),
        (b"HTTP/1.1 599 \xfc\xff OK", 599, b"HTTP/1.1 599 \xfc\xff OK"),
    ],
)
def test_a_status_line_keeps_its_code_and_the_bytes_of_its_reason(line: bytes, code: int, written: bytes) -> None:
    found = read_response(line + b"\r\nContent-Length: 0")
    assert (found.code, found.status_line, found.length) == (code, written, 0)


@pytest.mark.parametrize(
    "line",
    [
        *("", " ", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 Odd"),
        *("HTTP/1.1 600 Odd", "HTTP/1.1 20x OK", "HTTP/1.1 +20 OK", "HTTP/1.1 200OK", "HTTP/1.1 200\tOK", "ICY 200 OK"),
        *(
            "HTTP/1.1  200 OK",
            "HTTP/1.1\t200 OK",
            "HTTP/1.2 200 OK",
            "HTTP/2 200",
            "HTTP/2.0 200 OK",
            "http/1.1 200 OK",
        ),
        *(" HTTP/1.1 200 OK", "HTTP/1.10 200 OK", "HTTP/11 200 OK", "HTTP/1.1 200 OK\n", "\nHTTP/1.1 200 OK"),
        *(f"HTTP/1.1 200 a{chr(bad)}b" for bad in CONTROLS),
    ],
)
def test_a_status_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(UpstreamMalformed):
        response(start=line)


@pytest.mark.parametrize(
    ("start", "lines", "expected"),
    [
        ("HTTP/1.1 200 OK", (), True),
        ("HTTP/1.1 200 OK", ("Connection: x-hop, Close",), False),
        ("HTTP/1.1 200 OK", ("Connection: keep-alive", "Connection: close"), False),
        ("HTTP/1.0 200 OK", (), False),
        ("HTTP/1.0 200 OK", ("Connection: Keep-Alive", "Content-Length: 0"), False),
        ("HTTP/1.0 200 OK", ("Connection: keep-alive, close",), False),
        ("HTTP/1.0 200 OK", ("Connection: keep-alive", "Transfer-Encoding: chunked"), False),
        ("HTTP/1.0 200 OK", ("Keep-Alive: timeout=5",), False),
    ],
)
def test_whether_the_vendors_connection_may_go_on(start: str, lines: tuple[str, ...], expected: bool) -> None:
    assert response(*lines, start=start).keep_alive is expected


def test_http_1_0_with_chunks_is_read_and_not_trusted_again() -> None:
    found = response("Transfer-Encoding: chunked", start="HTTP/1.0 200 OK")
    assert found.chunked
    assert not found.keep_alive


def test_connection_close_among_other_options_is_seen() -> None:
    found = response("X-Hop: 1", "Connection: x-hop, Close", "x-hop: 2", "Content-Length: 0")
    assert not found.keep_alive
    assert found.lines == []


def test_what_connection_cannot_take_from_an_answer() -> None:
    """A cache in front must not be told otherwise by a field that says what is dropped."""
    found = response("Date: today", "Cache-Control: no-store", "X-A: 1", "Connection: date, cache-control, x-a")
    assert found.lines == [b"Date: today", b"Cache-Control: no-store"]
    assert found.date
    assert found.cache_control


@pytest.mark.parametrize(
    "name", ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Proxy-Authenticate", "X-Request-Id"]
)
def test_what_belongs_to_the_hop_does_not_come_down(name: str) -> None:
    assert response(f"{name}: 1", f"{name.upper()}: 1", f"{name.replace('-', '_')}: 1").lines == []


def test_an_answers_fields_come_down_as_they_came() -> None:
    lines = ["X-A:  a\tb ", "set-cookie:a=1", "Set-Cookie: \xff", "X-A:"]
    found = response(*lines)
    assert found.lines == [line.encode("latin-1") for line in lines]
    assert found.value(b"x-a") == "a\tb"
    assert found.value(b"x-b") == ""


def test_an_answer_over_the_limits_is_refused() -> None:
    response(*["X: y"] * 200)
    with pytest.raises(UpstreamMalformed):
        response(*["X: y"] * 201)
    response(f"X: {'y' * (16 * 1024 - 3)}")
    with pytest.raises(UpstreamMalformed):
        response(f"X: {'y' * (16 * 1024 - 2)}")


# ---------------------------------------------------------------------------------------------------------- small parts


def test_values_are_those_of_the_whole_name_and_in_order() -> None:
    lines = [b"X-A: 1", b"X-AB: 2", b"x-a:\t3 ", b"X: 4", b"X-A : 5", b"X-A:\xff"]
    assert values(lines, b"x-a") == ["1", "3", "\udcff"]


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


@pytest.mark.parametrize(("value", "length"), [("0" * 40, 0), ("0" * 40 + "5", 5), ("9" * 18, 10**18 - 1)])
def test_zeros_in_front_of_a_length_mean_nothing(value: str, length: int) -> None:
    """RFC 9110 §8.6: any number of digits."""
    assert request("Host: x", f"Content-Length: {value}").length == length
    assert response(f"Content-Length: {value}").length == length


@pytest.mark.parametrize("value", ["1" + "0" * 18, "", "0x0", "00 5"])
def test_a_length_of_too_many_digits_or_none_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        request("Host: x", f"Content-Length: {value}")
