"""What a connection writes in one round of the loop leaves at its end: together, in order, never after its close."""

from __future__ import annotations

import asyncio
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
