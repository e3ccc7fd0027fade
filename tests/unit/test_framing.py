"""Where a body ends: found at the same byte however the stream is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.framing import BodyEnd, ChunkedEnd, SizedEnd, edge, head_end

PLAIN = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
TRAILED = b"5\r\nhello\r\n0;last\r\nX-T: 1\r\nX-U: 2\r\n\r\n"


def feed(end: BodyEnd, pieces: list[bytes]) -> int:
    total = 0
    for piece in pieces:
        total += end.within(piece)
        if end.done:
            break
    return total


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in pairwise(marks)]


@given(st.lists(st.integers(0, 200)), st.sampled_from([PLAIN, TRAILED]))
def test_a_chunked_body_ends_at_the_same_byte_however_it_is_cut(places: list[int], body: bytes) -> None:
    end = ChunkedEnd()
    assert feed(end, cut(body + b"GET / HTTP/1.1\r\n", places)) == len(body)
    assert end.done
    assert end.trailers == (body == TRAILED)


@given(st.integers(0, 50), st.lists(st.integers(0, 200)))
def test_a_sized_body_ends_after_its_length(length: int, places: list[int]) -> None:
    end = SizedEnd(length)
    assert feed(end, cut(b"x" * 50 + b"more", places)) == length
    assert end.done


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 3000)))
def test_any_chunks_that_are_right_are_read_right(chunks: list[bytes], places: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    end = ChunkedEnd()
    assert feed(end, cut(body + b"\r\n", places)) == len(body)
    assert not end.trailers


@pytest.mark.parametrize("line", [b"zz", b"", b"-5", b"0x5", b"+5", b"5_0", b" 5", b"0" * 100 + b"5"])
def test_a_size_that_is_none_neither_raises_nor_runs_away(line: bytes) -> None:
    """The parser beside it refuses the same bytes; the two are compared."""
    end = ChunkedEnd()
    assert end.within(line + b"\r\nhello\r\n0\r\n\r\n") <= len(line) + 14


def test_an_endless_extension_takes_no_memory() -> None:
    end = ChunkedEnd()
    for _ in range(1000):
        assert end.within(b"5;" + b"x" * 1000) == 1002
    assert len(end._line) <= 32


@pytest.mark.parametrize("cut", range(1, 22))
def test_the_end_of_a_head_is_found_wherever_it_is_cut(cut: int) -> None:
    raw = b"GET / HTTP/1.1\r\n\r\nbody\r\n\r\n"
    end = raw.index(b"\r\n\r\n") + 4
    first = head_end(b"", raw[:cut])
    if cut >= end:
        assert first == end
    else:
        assert first == 0
        assert cut + head_end(edge(b"", raw[:cut]), raw[cut:]) == end
