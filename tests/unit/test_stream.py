"""A body between who feeds it and who reads it: nothing is lost, little waits, and a broken one never looks whole."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.body import HIGH, NO_BODY, Body
from gateway.proxy.wire import BACKLOG, Outbox, Wire
from tests.kit.transport import Transport


def recorded(loop: asyncio.AbstractEventLoop | None = None) -> tuple[Wire, list[str]]:
    """Return a wire, and what is asked of its transport."""
    wire = Wire(loop, Outbox(loop))  # type: ignore[arg-type]  # only who waits needs a loop
    transport = Transport()
    wire.connection_made(transport)  # type: ignore[arg-type]
    return wire, transport.calls


class Broken(Exception):
    pass


def reading(wire: Wire | None = None) -> tuple[Body, asyncio.Task[bytes]]:
    body = Body(wire or recorded(asyncio.get_running_loop())[0])
    return body, asyncio.get_running_loop().create_task(body.read())


# -------------------------------------------------------------------------------------------------------------- reading


async def test_reading_waits_for_a_byte() -> None:
    body, read = reading()
    await asyncio.sleep(0)
    body.feed(b"", last=False)
    await asyncio.sleep(0)
    assert not read.done()
    body.feed(b"a", last=False)
    body.feed(b"b", last=False)
    assert await read == b"ab"


async def test_what_is_there_is_read_at_once_and_together() -> None:
    body = Body(recorded(asyncio.get_running_loop())[0])
    for piece in (b"a", b"b", b"c"):
        body.feed(piece, last=False)
    assert await body.read() == b"abc"
    body.feed(b"d", last=True)
    assert await body.read() == b"d"
    assert await body.read() == b""
    assert await body.read() == b""
    assert body.size == 4


async def test_reading_ends_with_the_body() -> None:
    body, read = reading()
    await asyncio.sleep(0)
    body.feed(b"", last=True)
    assert await read == b""
    assert body.ended


async def test_reading_raises_what_the_body_failed_with() -> None:
    """Every time; and at once, where it failed before."""
    body, read = reading()
    await asyncio.sleep(0)
    body.fail(Broken())
    for waiting in (read, body.read(), body.read()):
        with pytest.raises(Broken):
            await waiting
    with pytest.raises(Broken):
        body.take()


async def test_who_gives_up_reading_takes_nothing_away() -> None:
    body, read = reading()
    await asyncio.sleep(0)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    body.feed(b"a", last=True)
    assert await body.read() == b"a"


async def test_bytes_that_come_in_the_moment_of_giving_up_are_still_there() -> None:
    body, read = reading()
    await asyncio.sleep(0)
    body.feed(b"a", last=False)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    body.feed(b"b", last=True)
    assert await body.read() == b"ab"


async def test_feeding_and_failing_twice_in_one_turn_wakes_the_reader_once() -> None:
    body, read = reading()
    await asyncio.sleep(0)
    body.feed(b"a", last=False)
    body.feed(b"b", last=False)
    body.fail(Broken())
    with pytest.raises(Broken):
        await read


def test_taking_never_waits() -> None:
    body = Body(recorded()[0])
    assert body.take() == b""
    body.feed(b"a", last=False)
    assert (body.take(), body.take(), body.ended) == (b"a", b"", False)
    body.feed(b"b", last=True)
    assert (body.take(), body.take(), body.ended) == (b"b", b"", True)


# -------------------------------------------------------------------------------------------------------------- failing


def test_a_failure_wins_over_bytes_that_wait() -> None:
    """A body that broke off never looks whole."""
    body = Body(recorded()[0])
    body.feed(b"a", last=False)
    body.fail(Broken())
    with pytest.raises(Broken):
        body.take()


def test_a_body_that_has_ended_is_never_failed() -> None:
    """The connection may break behind it, before it was read."""
    body = Body(recorded()[0])
    body.feed(b"a", last=True)
    body.fail(Broken())
    assert body.error is None
    assert body.take() == b"a"


def test_the_first_failure_stays() -> None:
    body = Body(recorded()[0])
    body.fail(Broken("first"))
    body.fail(Broken("second"))
    with pytest.raises(Broken, match="first"):
        body.take()


# --------------------------------------------------------------------------------------------------------- flow control


def test_reading_from_the_connection_stops_when_too_much_waits_and_goes_on_when_it_is_taken() -> None:
    wire, calls = recorded()
    body = Body(wire)
    body.feed(b"x" * (HIGH // 2), last=False)
    assert calls == []
    body.feed(b"x" * (HIGH // 2), last=False)
    body.feed(b"x", last=False)
    assert calls == ["pause"]
    assert len(body.take()) == HIGH + 1
    assert calls == ["pause", "resume"]
    assert body.take() == b""
    assert calls == ["pause", "resume"]


@pytest.mark.parametrize("last", [b"x", b""])
def test_the_end_of_a_body_lets_the_connection_read_on_though_nobody_has_read_it(last: bytes) -> None:
    """What comes behind it is the next message's, and has a bound of its own."""
    wire, calls = recorded()
    body = Body(wire)
    body.feed(b"x" * HIGH, last=False)
    assert calls == ["pause"]
    body.feed(last, last=True)
    assert calls == ["pause", "resume"]
    body.take()
    assert calls == ["pause", "resume"]


def test_a_body_that_comes_whole_pauses_nothing() -> None:
    wire, calls = recorded()
    body = Body(wire)
    body.feed(b"x" * 4 * HIGH, last=True)
    assert body.take() == b"x" * 4 * HIGH
    assert calls == []


def test_pieces_of_one_byte_pause_long_before_they_are_that_many_bytes() -> None:
    """Each costs more than its byte."""
    wire, calls = recorded()
    body = Body(wire)
    while not calls:
        body.feed(b"x", last=False)
    assert HIGH // 100 < body.size < HIGH // 50
    assert len(body.take()) == body.size
    assert calls == ["pause", "resume"]
    before = body.size
    while len(calls) == 2:
        body.feed(b"x", last=False)
    assert body.size == 2 * before


def test_a_pause_with_another_reason_outlasts_the_body() -> None:
    wire, calls = recorded()
    body = Body(wire)
    wire.pause_reading(BACKLOG)
    body.feed(b"x" * HIGH, last=False)
    body.take()
    assert calls == ["pause"]
    wire.resume_reading(BACKLOG)
    assert calls == ["pause", "resume"]


@given(st.lists(st.one_of(st.sampled_from(["all", "some"]), st.integers(0, HIGH)), max_size=30), st.booleans())
def test_whatever_is_fed_is_taken_and_nothing_stays_paused(steps: list[str | int], ends: bool) -> None:
    """A word takes, a number feeds that many bytes."""
    wire, calls = recorded()
    body = Body(wire)
    fed, taken = 0, 0
    for step in steps:
        if step == "some":
            some = len(body.take_some())
            assert some or fed == taken
            taken += some
            assert wire.reading_paused or fed - taken <= HIGH
        elif isinstance(step, str):
            taken += len(body.take())
            assert fed == taken
            assert not wire.reading_paused
        else:
            body.feed(b"x" * step, last=False)
            fed += step
            assert wire.reading_paused or fed - taken <= HIGH
    if ends:
        body.feed(b"", last=True)
        assert not wire.reading_paused
    assert taken + len(body.take()) == fed == body.size
    assert not wire.reading_paused
    assert calls == ["pause", "resume"] * (len(calls) // 2)


# ------------------------------------------------------------------------------------------------ large pieces, a sink


async def test_large_pieces_are_read_one_by_one_and_small_ones_together() -> None:
    body = Body(recorded(asyncio.get_running_loop())[0])
    large = [bytes([number]) * 50_000 for number in range(2)]
    for piece in large:
        body.feed(piece, last=False)
    assert await body.read() is large[0], "not copied"
    assert await body.read() is large[1]
    for piece in (b"a", b"b", b"c"):
        body.feed(piece, last=True)
    assert await body.read() == b"abc"


async def test_a_sink_gets_what_comes_at_once_and_nothing_waits_or_pauses() -> None:
    wire, calls = recorded(asyncio.get_running_loop())
    body, got = Body(wire), list[bytes | memoryview]()
    body.sink = got.append
    ended = asyncio.get_running_loop().create_task(body.end())
    for _ in range(3):
        body.feed(b"x" * HIGH, last=False)
        await asyncio.sleep(0)
        assert not ended.done()
    body.feed(b"y", last=True)
    await ended
    assert [len(piece) for piece in got] == [HIGH, HIGH, HIGH, 1]
    assert body.size == 3 * HIGH + 1
    assert calls == []


async def test_waiting_for_the_end_raises_what_the_body_failed_with() -> None:
    body = Body(recorded(asyncio.get_running_loop())[0])
    ended = asyncio.get_running_loop().create_task(body.end())
    await asyncio.sleep(0)
    body.fail(Broken())
    with pytest.raises(Broken):
        await ended
    with pytest.raises(Broken):
        await body.end()


# -------------------------------------------------------------------------------------------------------------- no body


async def test_no_body_is_at_its_end_and_stays_so() -> None:
    """All messages without one share it."""
    assert NO_BODY.ended
    assert await NO_BODY.read() == NO_BODY.take() == b""
    NO_BODY.fail(Broken())
    assert NO_BODY.error is None
    assert await NO_BODY.read() == b""
    assert NO_BODY.size == 0
