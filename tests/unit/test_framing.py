"""Where a body ends and what belongs to it: the same however the stream is cut, and nothing else passes for it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.body import Body
from gateway.proxy.framing import TRAILER_LIMIT, Chunked, FramingError, Sized, UntilClose
from gateway.proxy.wire import Outbox, Wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.proxy.framing import Decoder

PLAIN = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
TRAILED = b'5 ;a="b;c";d\t\r\nhello\r\n006\r\n world\r\n000;last\r\nX-T: 1\r\nX-U:\t\xff\r\n\r\n'
EMPTY = b"0\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n\r\n"
SIZE_LINE = 4096
"""Bytes of the longest chunk-size line."""
CUTS = st.lists(st.integers(0, 400), max_size=12)


def new() -> Body:
    return Body(Wire(None, Outbox(None)))  # type: ignore[arg-type]  # nobody waits here, so no loop is needed


def feed(decoder: Decoder, body: Body, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Feed the pieces until the body has ended; return what belongs to it, and all that stands behind it."""
    for index, piece in enumerate(pieces):
        rest = decoder.feed(piece)
        if body.ended:
            return body.take(), rest + b"".join(pieces[index + 1 :])
        assert rest == b""
    return body.take(), b""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in pairwise(marks)]


def bytewise(data: bytes) -> list[bytes]:
    return cut(data, list(range(len(data))))


# ------------------------------------------------------------------------------------------------------------- bodies


@given(CUTS, st.sampled_from([PLAIN, TRAILED]))
@example([], PLAIN)
@example(list(range(400)), TRAILED)
def test_a_chunked_body_is_the_same_and_ends_at_the_same_byte_however_it_is_cut(places: list[int], raw: bytes) -> None:
    body = new()
    assert feed(Chunked(body), body, cut(raw + NEXT, places)) == (b"hello world", NEXT)
    assert body.ended
    assert body.size == 11


@given(CUTS)
def test_a_chunked_body_of_no_bytes_ends(places: list[int]) -> None:
    body = new()
    assert feed(Chunked(body), body, cut(EMPTY + NEXT, places)) == (b"", NEXT)
    assert body.ended


@pytest.mark.parametrize("raw", [PLAIN, TRAILED, EMPTY])
def test_a_chunked_body_has_not_ended_before_its_last_byte(raw: bytes) -> None:
    """What ends with the connection there is no whole body."""
    for end in range(len(raw)):
        body = new()
        assert Chunked(body).feed(raw[:end]) == b""
        assert not body.ended


TOKEN = st.text("abcXYZ019!#-_.~", min_size=1, max_size=8).map(str.encode)
VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20).map(
    lambda text: text.encode("latin-1", "ignore").translate(None, bytes(range(0x7F, 0xA0)))
)
EXTENSIONS = st.one_of(st.just(b""), VISIBLE.map(lambda value: b";" + value))
TRAILERS = st.lists(st.builds(lambda name, value: b"X-%b:%b\r\n" % (name, value), TOKEN, VISIBLE), max_size=4)
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=300), EXTENSIONS, st.integers(0, 3)), max_size=8)


@given(CHUNKS, EXTENSIONS, TRAILERS, st.binary(max_size=20), st.lists(st.integers(0, 3000)))
def test_any_chunks_that_are_right_are_read_right(
    chunks: list[tuple[bytes, bytes, int]], last: bytes, trailers: list[bytes], behind: bytes, places: list[int]
) -> None:
    raw = b"".join(
        b"0" * zeros + b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk, extension, zeros in chunks
    )
    raw += b"0" + last + b"\r\n" + b"".join(trailers) + b"\r\n"
    body = new()
    assert feed(Chunked(body), body, cut(raw + behind, places)) == (b"".join(chunk for chunk, _, _ in chunks), behind)
    assert body.ended


@given(st.integers(1, 50), CUTS)
def test_a_sized_body_ends_after_its_length(length: int, places: list[int]) -> None:
    body = new()
    assert feed(Sized(body, length), body, cut(b"x" * 50 + b"more", places)) == (
        b"x" * length,
        b"x" * (50 - length) + b"more",
    )
    assert body.ended


def test_a_sized_body_has_not_ended_before_its_last_byte() -> None:
    body = new()
    decoder = Sized(body, 3)
    for piece in (b"", b"a", b"", b"b"):
        assert decoder.feed(piece) == b""
        assert not body.ended
    assert decoder.feed(b"cd") == b"d"
    assert body.ended


@given(st.binary(max_size=50), CUTS)
def test_a_body_that_ends_with_its_connection_is_all_that_comes(raw: bytes, places: list[int]) -> None:
    """Its end is told by who sees the connection end."""
    body = new()
    assert feed(UntilClose(body), body, cut(raw, places)) == (raw, b"")
    assert not body.ended


@pytest.mark.parametrize(
    "size", [b"0000000000000005", b"0" * 30 + b"5", b"00000000000000000005;a=b", b"0" * 4000 + b"5"]
)
def test_zeros_in_front_of_a_chunk_size_mean_nothing(size: bytes) -> None:
    """RFC 9112 §7.1: `chunk-size` is any number of hex digits."""
    body = Body(None)
    body.ended = False
    assert Chunked(body).feed(size + b"\r\nhello\r\n" + b"0" * 20 + b"\r\n\r\nnext") == b"next"
    assert (body.take(), body.ended) == (b"hello", True)


# -------------------------------------------------------------------------------------------------------- what is none

BAD_SIZES = {
    "plus": b"+5",
    "minus": b"-5",
    "0x": b"0x5",
    "underscore": b"5_0",
    "empty": b"",
    "no hex": b"zz",
    "hex and more": b"5g",
    "16 digits": b"1000000000000005",
    "2^64": b"10000000000000005",
    "100 digits": b"1" + b"0" * 100 + b"5",
    "zeros without an end": b"0" * 5000,
    "full-width digit": "５".encode(),
    "space behind": b"5 ",
    "tab behind": b"5\t",
    "space before": b" 5",
    "space within": b"5 0",
    "comma": b"5,5",
    "no size before an extension": b";a=b",
    "CR": b"5\r",
    "CR before an extension": b"5\r;a",
    "vertical tab": b"5\x0b",
    "NUL": b"5\0",
    "extension with NUL": b"5;a\0b",
    "extension with CR": b"5;a\rb",
    "extension with a control byte": b"5;a=\x01",
    "extension with DEL": b"5;a=\x7f",
    "too long": b"5;" + b"x" * (SIZE_LINE - 1),
    "endless extension": b"5;" + b"x" * 100_000,
    "a whole request": b"GET /smuggled HTTP/1.1",
}
BAD_TRAILERS = {
    "Transfer-Encoding": b"Transfer-Encoding: chunked",
    "transfer-encoding": b"transfer-encoding:chunked",
    "Content-Length": b"Content-Length: 5",
    "CONTENT-LENGTH": b"CONTENT-LENGTH:",
    "Host": b"Host: evil",
    "behind others": b"X-A: 1\r\nX-B: 2\r\nHost: evil",
    "no colon": b"X",
    "no name": b": a",
    "space before the colon": b"X : a",
    "space in the name": b"X Y: a",
    "folded": b"X: a\r\n b",
    "folded first": b" X: a",
    "NUL": b"X: \0",
    "CR": b"X: a\rb",
    "CR at the end": b"X: a\r",
    "control byte in the name": b"X\x01: a",
    "a whole request": b"GET /smuggled HTTP/1.1",
    "one that is too long": b"X: " + b"x" * TRAILER_LIMIT,
    "too many": b"X-A: 1\r\n" * (TRAILER_LIMIT // 8) + b"X:",
    "one more byte than may be": b"X: " + b"x" * (TRAILER_LIMIT - 4),
}
FIRST = b"5\r\nfirst\r\n"
MALFORMED = {
    **{f"size: {name}": (b"first", FIRST + size + b"\r\nhello\r\n0\r\n\r\n") for name, size in BAD_SIZES.items()},
    **{f"first size: {name}": (b"", size + b"\r\nhello\r\n0\r\n\r\n") for name, size in BAD_SIZES.items()},
    **{f"last size: {name}": (b"first", FIRST + size + b"\r\n\r\n") for name, size in BAD_SIZES.items()},
    **{f"trailer: {name}": (b"first", FIRST + b"0\r\n" + line + b"\r\n\r\n") for name, line in BAD_TRAILERS.items()},
    "size with a bare LF": (b"first", FIRST + b"5\nhello\r\n0\r\n\r\n"),
    "extension with a bare LF": (b"first", FIRST + b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "extension that ends with a bare LF": (b"first", FIRST + b"5;a\nhello\r\n0\r\n\r\n"),
    "last size with a bare LF": (b"first", FIRST + b"0\n\r\n"),
    "end with a bare LF": (b"first", FIRST + b"0\r\n\n"),
    "trailer with a bare LF": (b"first", FIRST + b"0\r\nX: a\n\r\n"),
    "data longer than its chunk": (b"firsthell", FIRST + b"4\r\nhello\r\n0\r\n\r\n"),
    "data shorter than its chunk": (b"firsthello\r", FIRST + b"6\r\nhello\r\n0\r\n\r\n"),
    "no line end behind data": (b"firsthello", FIRST + b"5\r\nhello0\r\n\r\n"),
    "bare LF behind data": (b"firsthello", FIRST + b"5\r\nhello\n0\r\n\r\n"),
    "bare CR behind data": (b"firsthello", FIRST + b"5\r\nhello\r0\r\n\r\n"),
    "two CR behind data": (b"firsthello", FIRST + b"5\r\nhello\r\r\n0\r\n\r\n"),
    "empty line behind data": (b"firsthello", FIRST + b"5\r\nhello\r\n\r\n0\r\n\r\n"),
    "empty line before all": (b"", b"\r\n" + FIRST + b"0\r\n\r\n"),
}


def feed_all(decoder: Decoder, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        assert decoder.feed(piece) == b""


def refused(pieces: list[bytes]) -> bytes:
    """Return what was handed on of a body that is refused at one of the pieces."""
    body = new()
    decoder = Chunked(body)
    with pytest.raises(FramingError) as raised:
        feed_all(decoder, pieces)
    assert not body.ended
    assert "smuggled" not in str(raised.value)
    return body.take()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_refused_however_it_is_cut(name: str) -> None:
    """What was right before is handed on, and not a byte of what stands behind; the error says nothing of the bytes."""
    good, raw = MALFORMED[name]
    raw += b"5\r\nafter\r\n0\r\n\r\n" + NEXT
    assert refused([raw]) == good
    assert refused(bytewise(raw)) == good
    for place in range(1, min(len(raw), 100)):
        assert refused(cut(raw, [place])) == good
        assert refused(cut(raw, [place, place + 1])) == good
        assert refused(cut(raw, [-place])) == good


@given(st.sampled_from(sorted(name for name, (_, raw) in MALFORMED.items() if len(raw) < 200)), CUTS)
def test_a_malformed_body_is_refused_in_any_pieces(name: str, places: list[int]) -> None:
    good, raw = MALFORMED[name]
    assert refused(cut(raw + NEXT, places)) == good


@given(st.binary(max_size=60), st.binary(max_size=10), CUTS)
def test_bytes_of_any_kind_are_understood_alike_however_they_are_cut(
    start: bytes, rest: bytes, places: list[int]
) -> None:
    """The same bytes handed on, the same rest, or the same refusal."""
    raw = start + b"\r\n" + rest
    assert outcome([raw]) == outcome(cut(raw, places)) == outcome(bytewise(raw))


@given(
    st.lists(
        st.sampled_from([b"0", b"1", b"5", b"\r\n", b"\r", b"\n", b";", b" ", b"a", b":", b"hello", b"Host"]),
        max_size=14,
    ),
    CUTS,
)
def test_bytes_that_look_like_chunks_are_understood_alike_however_they_are_cut(
    parts: list[bytes], places: list[int]
) -> None:
    raw = b"".join(parts)
    assert outcome([raw]) == outcome(cut(raw, places)) == outcome(bytewise(raw))


def outcome(pieces: list[bytes]) -> tuple[bytes, object]:
    """Return what is handed on, and what stands behind it, whether it goes on, or that it was refused.

    A line that cannot become right is refused at its end at the latest, so the pieces end with one.
    """
    body = new()
    try:
        _, rest = feed(Chunked(body), body, [*pieces, b"\r\n\n"])
    except FramingError:
        return body.take(), FramingError
    return b"", rest if body.ended else None


@pytest.mark.parametrize(("size", "together"), [(1, 1), (1000, 1), (20_000, 12)], ids=["tiny", "small", "large"])
def test_small_chunks_of_one_segment_are_handed_on_together_and_large_ones_are_not_copied(
    size: int, together: int
) -> None:
    """A piece that is kept for a replay takes memory besides its bytes: chunks of one byte must not multiply it."""
    body, handed = new(), list[bytes | memoryview]()
    body.sink = handed.append
    Chunked(body).feed((b"%x\r\n" % size + b"x" * size + b"\r\n") * 12)
    assert len(handed) == together
    assert b"".join(handed) == b"x" * 12 * size


# -------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("places", [[], [-1], [-2], [1], list(range(SIZE_LINE + 2))], ids=str)
def test_the_bound_of_a_size_line_is_exact_however_it_is_cut(places: list[int]) -> None:
    line = b"5;" + b"x" * (SIZE_LINE - 2)
    body = new()
    decoder = Chunked(body)
    for piece in cut(line + b"\r\n", places):
        decoder.feed(piece)
    decoder.feed(b"hello")
    assert body.take() == b"hello"


@pytest.mark.parametrize(
    "places", [[], [-1], [-2], [-3], [-4], list(range(TRAILER_LIMIT))], ids=lambda each: str(each[:4])
)
def test_the_bound_of_trailers_is_exact_however_they_are_cut(places: list[int]) -> None:
    trailers = b"X-A: 1\r\n" * (TRAILER_LIMIT // 8 - 1) + b"X-AB:1\r\n"
    body = new()
    assert feed(Chunked(body), body, cut(b"0\r\n" + trailers + b"\r\n", places)) == (b"", b"")
    assert body.ended


@pytest.mark.parametrize("start", [b"5;", b"5\r\nhello\r\n0;", b"0\r\nX: ", b"0\r\nX", b"", b"5\r\nhello\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_without_an_end_takes_bounded_memory_and_is_refused(start: bytes, size: int) -> None:
    decoder = Chunked(new())
    decoder.feed(start)
    limit, kept = (TRAILER_LIMIT if start.startswith(b"0\r\n") else SIZE_LINE), []

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * size
            kept.append(len(decoder._line))

    with pytest.raises(FramingError):
        feed_all(decoder, endless())
    assert max(kept, default=0) <= limit + 1


def test_trailers_without_an_end_are_refused() -> None:
    decoder = Chunked(new())
    decoder.feed(b"0\r\n")
    with pytest.raises(FramingError):
        feed_all(decoder, [b"X-A: 1\r\n"] * (TRAILER_LIMIT // 8 + 1))


def test_many_chunks_leave_nothing_behind_in_the_decoder() -> None:
    """Each may have its extension; they are dropped as they come."""
    body = new()
    decoder = Chunked(body)
    for _ in range(5000):
        assert decoder.feed(b"1;" + b"x" * 50 + b"\r\ny\r\n") == b""
        assert decoder._line == b""
        assert body.take() == b"y"


def test_the_longest_size_is_taken() -> None:
    """Fifteen digits: more could not be told from a negative one by those who count in 64 bits."""
    body = new()
    decoder = Chunked(body)
    decoder.feed(b"f" * 15 + b"\r\nhello")
    assert body.take() == b"hello"
    assert decoder._left == 16**15 - 1 - 5
