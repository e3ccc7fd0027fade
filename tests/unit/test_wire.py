"""What a connection writes in one round of the loop leaves at its end: together, in order, never after its close."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.proxy.wire import AT_ONCE, Outbox, Wire


class Transport:
    """Writes down what is done with it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def set_write_buffer_limits(self, high: int) -> None:
        del high

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.calls.append(pieces)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


@pytest.fixture
async def wires() -> list[tuple[Wire, list[Any]]]:
    """Three connections of one outbox, each with the calls of its transport."""
    loop = asyncio.get_running_loop()
    outbox, made = Outbox(loop), []
    for _ in range(3):
        wire, transport = Wire(loop, outbox), Transport()
        wire.connection_made(transport)  # type: ignore[arg-type]
        made.append((wire, transport.calls))
    return made


async def test_what_is_written_in_a_round_leaves_at_its_end_in_order(wires: list[tuple[Wire, list[Any]]]) -> None:
    (one, first), (two, second), (_, third) = wires
    one.write(b"a")
    two.write(b"b")
    one.write(b"c")
    assert first == second == []
    await asyncio.sleep(0)
    assert (first, second, third) == ([b"ac"], [b"b"], [])
    one.write(b"d")
    await asyncio.sleep(0)
    assert first == [b"ac", b"d"]


async def test_what_is_large_leaves_at_once_behind_what_was_written_before(wires: list[tuple[Wire, list[Any]]]) -> None:
    [(wire, calls), *_] = wires
    large = b"x" * (AT_ONCE + 1)
    wire.write(b"head")
    wire.write_pieces(b"size", large, b"end")
    assert calls == [[b"head", b"size", large, b"end"]]
    assert calls[0][2] is large, "not copied"
    wire.write(b"small")
    wire.write(large)
    assert calls[1:] == [b"small" + large]
    await asyncio.sleep(0)
    assert len(calls) == 2


async def test_small_pieces_are_one(wires: list[tuple[Wire, list[Any]]]) -> None:
    [(wire, calls), *_] = wires
    wire.write_pieces(b"5\r\n", b"hello", b"\r\n")
    await asyncio.sleep(0)
    assert calls == [b"5\r\nhello\r\n"]


async def test_many_small_writes_of_a_round_do_not_pile_up(wires: list[tuple[Wire, list[Any]]]) -> None:
    [(wire, calls), *_] = wires
    for _ in range(3 * AT_ONCE):
        wire.write(b"x")
    assert len(calls) == 2
    await asyncio.sleep(0)
    assert sum(map(len, calls)) == 3 * AT_ONCE


@pytest.mark.parametrize("ending", ["close", "write_eof"])
async def test_an_end_comes_behind_what_was_written(wires: list[tuple[Wire, list[Any]]], ending: str) -> None:
    [(wire, calls), *_] = wires
    wire.write(b"last")
    getattr(wire, ending)()
    await asyncio.sleep(0)
    assert calls == [b"last", ending]


async def test_a_connection_that_is_aborted_or_lost_sends_nothing_more(wires: list[tuple[Wire, list[Any]]]) -> None:
    (one, first), (two, second), _ = wires
    one.write(b"never")
    one.abort()
    two.write(b"never")
    two.connection_lost(None)
    two.write(b"nor this")
    await asyncio.sleep(0)
    assert (first, second) == (["abort"], [])


# ---------------------------------------------------------------------------------------- a connection that is closed


class Closing(Transport):
    """Is closed already, although the protocol does not know it."""

    def is_closing(self) -> bool:
        return True


class OnSocket(Transport):
    """Shows a real socket."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock

    def get_extra_info(self, _name: str) -> Any:
        return self._sock


async def test_who_waits_to_write_is_told_that_the_connection_is_closed(wires: list[tuple[Wire, list[Any]]]) -> None:
    (waiting, _), (lost, _), (closing, _) = wires
    waiting.pause_writing()
    drained = asyncio.create_task(waiting.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    waiting.connection_lost(None)
    lost.connection_lost(None)
    closing.connection_made(Closing())  # type: ignore[arg-type]
    for writer in (drained, lost.drain(), closing.drain()):
        with pytest.raises(ConnectionResetError):
            await writer


async def test_a_writer_that_waited_goes_on_when_the_transport_accepts_bytes(
    wires: list[tuple[Wire, list[Any]]],
) -> None:
    [(wire, _), *_] = wires
    wire.pause_writing()
    drained = asyncio.create_task(wire.drain())
    await asyncio.sleep(0)
    wire.resume_writing()
    await drained


async def test_a_connection_that_is_lost_has_no_reset_and_no_bytes_on_their_way() -> None:
    """A sweep may ask before the exchange or the tunnel has ended."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with near, far:
        wire = Wire(loop, Outbox(loop))
        wire.connection_made(OnSocket(near))  # type: ignore[arg-type]
        wire.ended = True
        near.setblocking(False)
        near.send(b"x" * 1000)
        before = wire.peer_reset, wire.unacknowledged() > 0
        far.close()
        reset = wire.peer_reset
        wire.connection_lost(None)
        after = wire.peer_reset, wire.unacknowledged()
    assert (before, reset, after) == ((False, True), True, (False, 0))
