"""What aiohttp's C parsers do, seen by running them: every behaviour that the data plane rests on or guards against.

When one of these fails after an upgrade of aiohttp, the sentence that names it says which code to look at again.
"""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import http_parser
from aiohttp.http import HttpRequestParser, HttpResponseParser
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader


class Protocol:
    """What aiohttp's streams ask of a protocol, written down call by call."""

    connected = True

    def __init__(self) -> None:
        self._reading_paused = False
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.calls.append("pause")

    def resume_reading(self, resume_parser: bool = True) -> None:
        self._reading_paused = False
        self.calls.append("resume" if resume_parser else "resume, parser done")


def requests(protocol: Protocol | None = None, **options: object) -> HttpRequestParser:
    loop = asyncio.get_running_loop()
    return HttpRequestParser(protocol or Protocol(), loop, 2**16, auto_decompress=False, **options)  # type: ignore[arg-type]


def responses(protocol: Protocol | None = None, **options: object) -> HttpResponseParser:
    loop = asyncio.get_running_loop()
    options = {"read_until_eof": True, "auto_decompress": False, **options}
    return HttpResponseParser(protocol or Protocol(), loop, 2**16, **options)  # type: ignore[arg-type]


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"


def test_the_c_parsers_are_what_is_imported() -> None:
    """The gateway refuses to start on the pure-Python ones."""
    assert HttpRequestParser is not http_parser.HttpRequestParserPy
    assert HttpResponseParser is not http_parser.HttpResponseParserPy


# ------------------------------------------------------------------------------------------------------------- requests


async def test_an_error_discards_messages_that_were_already_parsed() -> None:
    """So the parser is fed one message at a time."""
    with pytest.raises(HttpProcessingError):
        requests().feed_data(GET + b"GARBAGE\r\n\r\n")


async def test_with_a_queue_of_one_the_parser_stops_behind_the_first_message() -> None:
    """`message_consumed` and an empty feed bring the next one, or its error."""
    parser = requests(max_msg_queue_size=1)
    messages, _, _ = parser.feed_data(GET + GET + b"GARBAGE\r\n\r\n")
    assert len(messages) == 1
    parser.message_consumed()
    assert len(parser.feed_data(b"")[0]) == 1
    parser.message_consumed()
    with pytest.raises(HttpProcessingError):
        parser.feed_data(b"")


async def test_the_last_trailer_becomes_the_first_field_of_the_next_request() -> None:
    """So `framing` watches for trailers, and a parser that saw one is replaced. The day this fails is a good one."""
    parser = requests(max_msg_queue_size=1)
    parser.feed_data(CHUNKED + b"X-First: 1\r\nX-Last: 7\r\n\r\n")
    parser.message_consumed()
    [(message, body)], _, _ = parser.feed_data(GET)
    assert message.raw_headers == ((b"X-Last", b"7"), (b"Host", b"x"))
    assert body is EMPTY_PAYLOAD


async def test_without_trailers_nothing_is_carried_over() -> None:
    parser = requests(max_msg_queue_size=1)
    parser.feed_data(CHUNKED + b"\r\n")
    parser.message_consumed()
    assert parser.feed_data(GET)[0][0][0].raw_headers == ((b"Host", b"x"),)


async def test_a_body_that_is_empty_is_the_shared_empty_payload() -> None:
    """It is at its end from the beginning and takes no exception."""
    [(_, body)], _, _ = requests().feed_data(GET)
    assert body is EMPTY_PAYLOAD
    assert body.is_eof()
    body.set_exception(ValueError())
    assert body.exception() is None
    assert body.read_nowait(-1) == b""
    assert await body.readany() == b""


async def test_a_chunked_body_of_no_bytes_is_a_stream_of_its_own() -> None:
    [(message, body)], _, _ = requests().feed_data(CHUNKED.replace(b"5\r\nhello\r\n", b"") + b"\r\n")
    assert message.chunked
    assert body is not EMPTY_PAYLOAD
    assert body.is_eof()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"GET /a HTTP/0.9\r\nHost: x\r\n\r\n", (0, 9)),
        (b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", (2, 0)),
        (b"GET /a RTSP/1.0\r\nHost: x\r\n\r\n", (1, 0)),
    ],
    ids=["HTTP/0.9", "HTTP/2.0", "RTSP/1.0"],
)
async def test_versions_that_are_accepted_and_refused_by_us(raw: bytes, what: tuple[int, int]) -> None:
    """`read_request` and `_says_http_1_0` refuse them."""
    [(message, _)], _, _ = requests().feed_data(raw)
    assert tuple(message.version) == what


LENIENT = {
    "HTTP/1.0 with Transfer-Encoding": b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "host with a space": b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "length of 2^64-1": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n",
    "a head of 300 KiB": b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"X: %b\r\n" % (b"y" * 8000) * 40 + b"\r\n",
}


@pytest.mark.parametrize("name", LENIENT)
async def test_what_is_accepted_and_refused_by_us(name: str) -> None:
    """`read_request` and `split_target` refuse them."""
    messages, _, _ = requests().feed_data(LENIENT[name])
    assert len(messages) == 1


async def test_a_length_of_two_to_the_64_minus_one_reads_as_no_body() -> None:
    [(_, body)], _, _ = requests().feed_data(LENIENT["length of 2^64-1"])
    assert body is EMPTY_PAYLOAD


STRICT = {
    "bare LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    "bare CR": b"GET /a HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "obs-fold": b"GET /a HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "space before colon": b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
    "NUL": b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "length and chunked": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "length list": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
    "signed length": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
    "raw UTF-8": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "chunk size 0x": CHUNKED.replace(b"5\r\nhello", b"0x5\r\nhello"),
    "chunk size with a space": CHUNKED.replace(b"5\r\nhello", b"5 \r\nhello"),
    "chunk with bare LF": CHUNKED.replace(b"5\r\nhello", b"5\nhello"),
    "chunk too long": CHUNKED.replace(b"5\r\nhello", b"4\r\nhello"),
    "trailer without a colon": CHUNKED + b"X\r\n\r\n",
    "no Host": b"GET /a HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", STRICT)
async def test_what_the_parser_refuses_so_that_we_need_not(name: str) -> None:
    with pytest.raises(HttpProcessingError):
        requests().feed_data(STRICT[name])


async def test_limits_that_the_parser_keeps_and_how_it_names_them() -> None:
    """`_head_error` tells 431 from 400 by these."""
    with pytest.raises(LineTooLong):
        requests(max_line_size=100).feed_data(b"GET /%b HTTP/1.1\r\n" % (b"a" * 200))
    with pytest.raises(LineTooLong):
        requests(max_field_size=100).feed_data(b"GET / HTTP/1.1\r\nX: %b\r\n" % (b"a" * 200))
    with pytest.raises(BadHttpMessage, match="Too many headers"):
        requests(max_headers=5).feed_data(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 6 + b"\r\n")


async def test_an_error_inside_a_body_is_raised_and_not_given_to_the_stream() -> None:
    """So `refuse` gives it to the stream, or the exchange would wait for the rest."""
    parser = requests()
    [(_, body)], _, _ = parser.feed_data(CHUNKED[:-3])
    with pytest.raises(HttpProcessingError):
        parser.feed_data(b"zz\r\n")
    assert body.exception() is None
    assert not body.is_eof()


async def test_a_websocket_upgrade_hands_over_what_follows() -> None:
    """After `message_consumed` and an empty feed, where the queue holds one."""
    head = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    parser = requests(max_msg_queue_size=1)
    [(message, _)], upgraded, tail = parser.feed_data(head + b"early")
    assert (message.upgrade, upgraded, tail) == (True, False, b"")
    parser.message_consumed()
    _, upgraded, tail = parser.feed_data(b"")
    assert (upgraded, tail) == (True, b"early")


async def test_any_other_upgrade_swallows_the_rest_of_the_segment() -> None:
    """So the connection is closed after such an exchange."""
    head = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    messages, upgraded, tail = requests().feed_data(head + GET)
    assert (len(messages), upgraded, tail) == (1, False, b"")


async def test_raw_headers_keep_names_values_order_and_bytes() -> None:
    """What passes is written from these."""
    [(message, _)], _, _ = requests().feed_data(b"GET /a HTTP/1.1\r\nhOsT: x\r\nX-A:  \xff \r\nX-B:\r\nX-A: 2\r\n\r\n")
    assert message.raw_headers == ((b"hOsT", b"x"), (b"X-A", b"\xff"), (b"X-B", b""), (b"X-A", b"2"))


# ------------------------------------------------------------------------------------------------------------ responses

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_the_last_trailer_of_a_response_becomes_a_field_of_the_next() -> None:
    """So a connection whose chunked body did not end plainly is closed."""
    parser = responses()
    parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: a=1\r\n\r\n")
    assert parser.feed_data(OK)[0][0][0].raw_headers[0] == (b"Set-Cookie", b"a=1")


async def test_half_a_head_behind_a_response_is_kept_without_a_word() -> None:
    """So `UpstreamConnection` counts what belongs to a body."""
    parser = responses()
    assert len(parser.feed_data(OK + b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: ")[0]) == 1
    assert parser.feed_data(b"HTTP/1.1 204 X\r\n\r\n")[0][0][0].raw_headers[0] == (b"Set-Cookie", b"a=1")


LAX = {
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "control byte": b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "spaces behind a chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0  \r\n\r\n",
    "status 99": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", LAX)
async def test_the_response_parser_is_lax(name: str) -> None:
    """What it takes is checked before it is written to an app: `read_response`, `has_control`, `_parsed`."""
    assert len(responses().feed_data(LAX[name])[0]) == 1


async def test_a_folded_line_arrives_joined_by_a_space() -> None:
    """As RFC 9112 §5.2 wants it of a proxy."""
    assert responses().feed_data(LAX["obs-fold"])[0][0][0].raw_headers[0] == (b"X", b"a b")


async def test_whether_a_body_follows_is_a_constructor_argument() -> None:
    """So a HEAD request gets a parser of its own."""
    [(_, body)], _, _ = responses(response_with_body=False).feed_data(OK[:-2])
    assert body is EMPTY_PAYLOAD
    [(_, body)], _, _ = responses().feed_data(OK[:-2])
    assert not body.is_eof()


@pytest.mark.parametrize("code", [204, 304])
async def test_no_body_follows_a_204_or_304_whatever_the_fields_say(code: int) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % code
    messages, _, _ = responses().feed_data(head + OK)
    assert len(messages) == 2


async def test_an_interim_response_may_carry_a_body_as_the_parser_sees_it() -> None:
    """It is read with the interim response and goes nowhere."""
    messages, _, _ = responses().feed_data(b"HTTP/1.1 104 X\r\nContent-Length: 2\r\n\r\nhi" + OK)
    assert [message.code for message, _ in messages] == [104, 200]


async def test_a_101_ends_the_parsing_and_hands_over_the_rest() -> None:
    """Only with Upgrade and Connection; else it is one more interim response."""
    raw = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    messages, upgraded, tail = responses().feed_data(raw + b"early")
    assert (messages[0][0].code, upgraded, tail) == (101, True, b"early")
    _, upgraded, _ = responses().feed_data(b"HTTP/1.1 101 X\r\n\r\n")
    assert not upgraded


async def test_without_a_length_the_body_lasts_until_feed_eof() -> None:
    """Whoever calls it says that the end is the end: a reset must not."""
    parser = responses()
    [(_, body)], _, _ = parser.feed_data(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert not body.is_eof()
    parser.feed_eof()
    assert body.is_eof()
    assert body.read_nowait(-1) == b"hello"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
    ids=["sized", "chunked"],
)
async def test_feed_eof_in_the_middle_of_a_framed_body_raises(raw: bytes) -> None:
    parser = responses()
    [(_, body)], _, _ = parser.feed_data(raw)
    with pytest.raises(HttpProcessingError):
        parser.feed_eof()
    assert not body.is_eof()


# --------------------------------------------------------------------------------------------------------- flow control


async def test_a_stream_pauses_its_protocol_above_twice_the_limit_and_resumes_it_when_read() -> None:
    """It asks for `_reading_paused`, `pause_reading` and `resume_reading`, and nothing else of a BaseProtocol."""
    protocol = Protocol()
    parser = requests(protocol)
    [(_, body)], _, _ = parser.feed_data(POST.replace(b": 5", b": 300000"))
    parser.feed_data(b"x" * 2**17)
    assert protocol.calls == []
    parser.feed_data(b"x")
    assert protocol.calls == ["pause"]
    assert len(body.read_nowait(-1)) == 2**17 + 1
    assert protocol.calls[-1] == "resume"


async def test_the_end_of_a_body_always_resumes() -> None:
    """`Wire.resume_reading` must not undo a pause that has another reason."""
    protocol = Protocol()
    requests(protocol).feed_data(POST + b"hello")
    assert protocol.calls == ["resume, parser done"]


async def test_many_small_chunks_pause_before_they_are_many_bytes() -> None:
    protocol = Protocol()
    parser = requests(protocol)
    parser.feed_data(CHUNKED[:-3])
    parser.feed_data(b"1\r\nx\r\n" * 5000)
    assert "pause" in protocol.calls


async def test_reading_from_a_stream_of_a_lost_connection_raises_runtime_error() -> None:
    """So `read_body` looks at the transport first."""
    protocol = Protocol()
    [(_, body)], _, _ = requests(protocol).feed_data(POST)
    protocol.connected = False  # type: ignore[misc]
    with pytest.raises(RuntimeError):
        await body.readany()


async def test_an_exception_of_a_stream_wins_over_bytes_that_wait_in_it() -> None:
    """A body that broke off never looks whole."""
    stream = StreamReader(Protocol(), 2**16, loop=asyncio.get_running_loop())  # type: ignore[arg-type]
    stream.feed_data(b"x")
    stream.set_exception(LineTooLong(b""))
    with pytest.raises(LineTooLong):
        stream.read_nowait(-1)
    with pytest.raises(LineTooLong):
        await stream.readany()
