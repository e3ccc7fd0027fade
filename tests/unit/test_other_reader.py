"""An independent reader of the same bytes: whatever we take for a message, llhttp takes for the same message.

llhttp is what aiohttp's parsers are made of, and what Node reads with. Two readers that disagree are how smuggling
starts, so ours may refuse what it takes, and never the other way round; `KNOWN` has the few differences, each of which
is harmless.
"""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aiohttp import http_parser
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ExchangeError
from gateway.model import Limits
from gateway.model.http import METHODS, UNSERVED_METHODS
from gateway.proxy.body import Body
from gateway.proxy.fields import verdicts_nowhere
from gateway.proxy.framing import Chunked, FramingError, Sized, UntilClose
from gateway.proxy.request import RequestHead, read_request
from gateway.proxy.response import read_response
from gateway.proxy.routing import check_path, split_target
from gateway.proxy.wire import Outbox, Wire
from tests.kit.mutation import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.proxy.framing import Decoder
    from gateway.proxy.request import Inbound
    from gateway.proxy.response import Outbound

_TRAILER_NAME = re.compile(rb"\n([^:\r\n]+):")
ROOMY = {"auto_decompress": False, "max_line_size": 2**17, "max_field_size": 2**17, "max_headers": 1000}
"""Bounds are ours to keep (`Limits`): they must not hide what theirs would read."""


class Read(NamedTuple):
    """A message as somebody has read it."""

    start: tuple[object, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes
    ended: bool


class Protocol:
    """What aiohttp's streams ask of one."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None: ...
    def resume_reading(self, resume_parser: bool = True) -> None: ...


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    """Give aiohttp's streams a loop, which never runs."""
    loop = asyncio.new_event_loop()
    Theirs.loop = loop
    yield
    loop.close()


class Theirs:
    """llhttp, as aiohttp has it."""

    loop: asyncio.AbstractEventLoop

    @classmethod
    def request(cls, raw: bytes) -> Read | None:
        return cls._read(HttpRequestParser(Protocol(), cls.loop, 2**24, **ROOMY), raw)  # type: ignore[arg-type]

    @classmethod
    def response(cls, raw: bytes) -> Read | None:
        parser = HttpResponseParser(Protocol(), cls.loop, 2**24, read_until_eof=True, **ROOMY)  # type: ignore[arg-type]
        return cls._read(parser, raw)

    @staticmethod
    def _read(parser: Any, raw: bytes) -> Read | None:
        try:
            messages, _, _ = parser.feed_data(raw)
        except HttpProcessingError:
            return None
        if not messages:
            return None  # its head is not whole
        [(message, payload)] = messages
        if hasattr(message, "method"):
            start = (message.method, message.path, tuple(message.version))
        else:
            start = (message.code, message.reason.encode("utf-8", "surrogateescape"), tuple(message.version))
        return Read(start, list(message.raw_headers), payload.read_nowait(-1), payload.is_eof())


class Ours(NamedTuple):
    """The message, and how many bytes of what was read are its own."""

    read: Read
    size: int
    extended: bool
    """A chunk of it has an extension."""
    names: list[bytes]
    """Of its fields and trailers, in lower case."""
    tab: bool
    """A tab stands behind the value of a framing field."""

    @classmethod
    def request(cls, raw: bytes) -> Ours | None:
        """Return the first message, or None if we refuse it or its head is not whole."""
        before, end, rest = raw.partition(b"\r\n\r\n")
        if not end:
            return None
        try:
            head = RequestHead(before)
            path, _ = split_target(head.target)
            check_path(path)
            found = read_request(head, verdicts_nowhere(), Limits())
        except ExchangeError:
            return None
        start = (head.method, head.target, (1, int(head.http_1_1)))
        return cls._with_body(start, head.fields, rest, len(before) + 4, found)

    @classmethod
    def response(cls, raw: bytes) -> Ours | None:
        before, end, rest = raw.partition(b"\r\n\r\n")
        if not end:
            return None
        try:
            found = read_response(before)
        except ExchangeError:
            return None
        line, *lines = before.split(b"\r\n")
        reason = found.status_line.split(b" ", 2)[2]
        start = (found.code, reason, (1, int(line.startswith(b"HTTP/1.1"))))
        bodyless = found.code < 200 or found.code in {204, 304}
        return cls._with_body(start, lines, rest, len(before) + 4, None if bodyless else found)

    @classmethod
    def _with_body(
        cls, start: tuple[object, ...], lines: list[bytes], rest: bytes, size: int, found: Inbound | Outbound | None
    ) -> Ours | None:
        parts = [line.partition(b":") for line in lines]
        fields = [(name, value.strip(b" \t")) for name, _, value in parts]
        names = [name.lower() for name, _ in fields]
        tab = any(
            value.rstrip(b" ").endswith(b"\t")
            for name, _, value in parts
            if name.lower() in {b"transfer-encoding", b"content-length"}
        )
        body = Body(Wire(None, Outbox(None)))  # type: ignore[arg-type]  # nobody waits
        decoder: Decoder
        if found is not None and found.chunked:
            decoder = Chunked(body)
        elif found is not None and found.length:
            decoder = Sized(body, found.length)
        elif found is None or found.length == 0 or start[0] in METHODS:
            return cls(Read(start, fields, b"", ended=True), size, extended=False, names=names, tab=tab)
        else:
            decoder = UntilClose(body)
        try:
            behind = decoder.feed(rest)
        except FramingError:
            return None
        own = rest[: len(rest) - len(behind)]
        extended = isinstance(decoder, Chunked) and b";" in own
        names += [found.lower() for found in _TRAILER_NAME.findall(own)]
        return cls(Read(start, fields, body.take(), body.ended), size + len(own), extended, names, tab)


# -------------------------------------------------------------------------------------------------------- differences

ONCE = frozenset(
    {b"content-type", b"user-agent", b"content-location", b"content-range", b"etag", b"server", b"max-forwards"}
)
KNOWN: dict[str, tuple[Callable[[Ours], bool], bytes]] = {
    # They wait for the rest of HTTP/2's preface; no route is ever found for its target, and its version is refused.
    "PRI": (
        lambda it: it.read.start[0] == "PRI",
        b"PRI / HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    # They read the authority as that of a URL; we drop it unread.
    "the authority of an absolute target": (
        lambda it: not str(it.read.start[1]).startswith("/"),
        b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    # Some fields that say nothing of framing may not be repeated there; we pass what came.
    "a repeated field": (
        lambda it: any(it.names.count(name) > 1 for name in ONCE),
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: a\r\nUser-Agent: b\r\n\r\n",
    ),
    # It is white space and no part of the value (RFC 9110 §5.5); they know only a space there. In a request they refuse
    # it, in a response they take a coding with it for another one, and the body for one that ends with the connection.
    "a tab behind a framing field": (
        lambda it: it.tab,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    ),
    # They want its grammar kept to the letter; it is dropped here, whatever it says, and its end is the same.
    "a chunk extension": (
        lambda it: it.extended,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5 ;;\r\nhello\r\n0\r\n\r\n",
    ),
}
"""What they refuse and we take: how it is told, and an example."""


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_differences_are_still_there(name: str) -> None:
    """One that has gone is to be taken from the table."""
    known, raw = KNOWN[name]
    ours = Ours.request(raw)
    assert ours is not None
    assert known(ours)
    assert Theirs.request(raw) is None


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_connect_has_no_body_for_them_so_it_is_never_served_and_nothing_behind_it_read(field: str) -> None:
    """What we take for its body may be a tunnel's bytes to another reader: the connection ends with the refusal."""
    head = RequestHead(f"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n{field}".encode())
    assert not read_request(head, verdicts_nowhere(), Limits()).keep_alive
    assert head.method in UNSERVED_METHODS


def test_the_other_reader_is_not_the_one_in_python() -> None:
    assert HttpRequestParser is not http_parser.HttpRequestParserPy
    assert HttpResponseParser is not http_parser.HttpResponseParserPy


def compare_requests(raw: bytes) -> bool:
    """Raise AssertionError if they read anything else than we do; return whether we take it."""
    ours = Ours.request(raw)
    if ours is None or ours.read.start[0] == "CONNECT":
        return False
    own = raw[: ours.size]
    theirs = Theirs.request(own)
    if theirs is None:
        known = any(differs(ours) for differs, _ in KNOWN.values())
        # The beginning of a chunk's line is refused there before its end has come.
        assert known or not ours.read.ended, own
        return True
    assert theirs == ours.read, own
    _not_ended_before(Theirs.request, own, ours)
    return True


def compare_responses(raw: bytes) -> bool:
    ours = Ours.response(raw)
    if ours is None or ours.tab:
        return False
    own = raw[: ours.size]
    theirs = Theirs.response(own)
    if theirs is None:
        assert ours.extended or not ours.read.ended, own
        return True
    if ours.read.start[0] in range(100, 200):
        # A body that an interim response announces is read there; here it has none, whatever it says (RFC 9110 §6.4.1).
        theirs = theirs._replace(ended=True)
    assert theirs == ours.read, own
    _not_ended_before(Theirs.response, own, ours)
    return True


def _not_ended_before(read: Callable[[bytes], Read | None], own: bytes, ours: Ours) -> None:
    """See that the message's last byte is the same one for them."""
    if ours.read.ended:
        before = read(own[:-1])
        assert before is None or not before.ended, own


# ------------------------------------------------------------------------------------------------------------ messages

TCHAR = "!#$%&'*+-.^_`|~0123456789abcXYZ"
NAMES = st.one_of(
    st.text(TCHAR, min_size=1, max_size=8),
    st.sampled_from(
        [
            "Accept",
            "Host",
            "Connection",
            "Upgrade",
            "Expect",
            "Cookie",
            "Content-Type",
            "Content_Length",
            "TE",
            "Trailer",
        ]
    ),
)
VALUES = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20),
    st.sampled_from(["", "\t", "close", "keep-alive", "upgrade", "websocket", "h2c", "100-continue", "x", "[::1]:80"]),
)
SPACE = st.sampled_from(["", " ", "\t", "  \t"])
FIELDS = st.lists(st.builds("{}:{}{}{}".format, NAMES, SPACE, VALUES, SPACE), max_size=6)
PATHS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
TARGETS = st.builds(
    lambda form, path: form + path,
    st.sampled_from(["/", "/v/a?", "/%20", "http://x/", "HTTPS://u:p@[::1]:1/", ""]),
    PATHS,
)
VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"])
EXTENSION = st.sampled_from(["", "", "", ";a", ';a="b;c"', " ;a", ";;"])
CHUNKED = st.builds(
    lambda chunks, last, trailers: (
        "".join(f"{len(chunk):x}{extension}\r\n{chunk}\r\n" for chunk, extension in chunks)
        + f"{last}\r\n"
        + "".join(f"{line}\r\n" for line in trailers)
        + "\r\n"
    ),
    st.lists(st.tuples(st.text("ab\r\n0;:", min_size=1, max_size=12), EXTENSION), max_size=4),
    st.sampled_from(["0", "000", "0;a"]),
    FIELDS,
)
BODIES: st.SearchStrategy[tuple[list[str], str]] = st.one_of(
    st.just(([], "")),
    st.text("ab\r\n0;:", max_size=12).map(lambda body: ([f"Content-Length: {len(body)}"], body)),
    st.text("ab\r\n0;:", max_size=12).map(lambda body: (["content-length:\t007 "], body)),
    CHUNKED.map(lambda body: (["Transfer-Encoding: chunked"], body)),
    CHUNKED.map(lambda body: (["transfer-encoding:\tChunked "], body)),
)
BEHIND = st.sampled_from(["", "GET /next HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n", "x"])


def written(start: str, host: list[str], fields: list[str], body: tuple[list[str], str], behind: str) -> bytes:
    return ("\r\n".join([start, *host, *fields, *body[0]]) + "\r\n\r\n" + body[1] + behind).encode("latin-1")


REQUESTS = st.builds(
    written,
    st.builds("{} {} {}".format, st.sampled_from(sorted(METHODS)), TARGETS, VERSIONS),
    st.sampled_from([["Host: x"], ["Host: x"], ["host:[::1]:80"], []]),
    FIELDS,
    BODIES,
    BEHIND,
)
REASONS = st.one_of(st.just(""), VALUES.map(lambda reason: f" {reason}"))
RESPONSES = st.builds(
    written,
    st.builds("{} {}{}".format, VERSIONS, st.one_of(st.just(200), st.integers(100, 599)), REASONS),
    st.just([]),
    FIELDS,
    BODIES,
    BEHIND,
)


@settings(max_examples=200)
@given(REQUESTS)
def test_a_request_that_we_take_is_the_same_for_them(raw: bytes) -> None:
    compare_requests(raw)


@settings(max_examples=200)
@given(RESPONSES)
def test_a_response_that_we_take_is_the_same_for_them(raw: bytes) -> None:
    compare_responses(raw)


@settings(max_examples=50)
@given(REQUESTS, st.integers(0, 2**32))
def test_a_changed_request_that_we_take_is_the_same_for_them(raw: bytes, seed: int) -> None:
    random = Random(seed)
    for _ in range(10):
        compare_requests(mutated(random, raw))


@settings(max_examples=50)
@given(RESPONSES, st.integers(0, 2**32))
def test_a_changed_response_that_we_take_is_the_same_for_them(raw: bytes, seed: int) -> None:
    random = Random(seed)
    for _ in range(10):
        compare_responses(mutated(random, raw))


PLAIN_REQUESTS = (
    b"GET /v/a?q=%20 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    b"POST /v/a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nX: 1\r\n\r\n",
    b"GET /v/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    b"DELETE /v/a HTTP/1.0\r\nCookie: a=b\r\nAuthorization: Bearer mine\r\n\r\n",
)
PLAIN_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-A: 1\r\n\r\nthe answer",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 10\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nuntil close",
)


def test_usual_messages_are_taken_by_both() -> None:
    """Else nothing was compared."""
    for raw in PLAIN_REQUESTS:
        assert compare_requests(raw)
        assert Theirs.request(raw) is not None
    for raw in PLAIN_RESPONSES:
        assert compare_responses(raw)
        assert Theirs.response(raw) is not None


@pytest.mark.parametrize("seed", range(5))
def test_usual_messages_with_a_few_bytes_changed_are_the_same_for_both(seed: int) -> None:
    """A good part of them is taken: what is compared is not only refusals."""
    random = Random(seed)
    taken = sum(compare_requests(mutated(random, random.choice(PLAIN_REQUESTS))) for _ in range(1000))
    taken += sum(compare_responses(mutated(random, random.choice(PLAIN_RESPONSES))) for _ in range(1000))
    assert taken > 300
