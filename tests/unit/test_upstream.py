"""A vendor's connection between the kernel and the exchange: what comes faster than it is looked at stays bounded."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamReset
from gateway.model import Timeouts
from gateway.proxy.body import HIGH
from gateway.proxy.upstream import UpstreamConnection
from gateway.proxy.wire import AT_ONCE, Outbox
from tests.kit.transport import Transport

_SEGMENT = 256_000
"""Bytes that one read brings at most."""


def connected() -> tuple[UpstreamConnection, Transport]:
    """Return a connection that waits for a response, and its transport."""
    loop = asyncio.get_running_loop()
    connection = UpstreamConnection(loop, Outbox(loop), lambda _: None)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.begin(Timeouts(), head=False)
    return connection, transport


@pytest.mark.parametrize("framing", ["sized", "chunked", "until close"])
async def test_a_large_answer_that_is_there_before_it_is_looked_at_stops_the_reading(framing: str) -> None:
    """The loop reads up to 32 segments before any task runs; 8 MiB would be joined, one segment to all before it."""
    connection, transport = connected()
    body = bytes(range(256)) * 16_384  # 4 MiB
    if framing == "sized":
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        chunks = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        answer = b"HTTP/1.0 200 OK\r\n\r\n" + body

    sent = 0
    while transport.reading and sent < len(answer):
        connection.data_received(answer[sent : sent + _SEGMENT])
        sent += _SEGMENT
    assert sent <= HIGH + 2 * _SEGMENT

    head, stream = await connection.response()
    assert head.code == 200
    got = bytearray()
    while piece := await stream.read():
        got += piece
        while transport.reading and sent < len(answer):
            connection.data_received(answer[sent : sent + _SEGMENT])
            sent += _SEGMENT
        if framing == "until close" and sent >= len(answer) and connection.transport is not None:
            connection.eof_received()
            connection.connection_lost(None)
    assert got == body
    assert connection.answered


async def test_a_large_head_is_looked_at_before_all_of_it_is_there() -> None:
    connection, _ = connected()
    lines = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(60))
    assert AT_ONCE < len(lines) < AT_ONCE * 1.3
    answer = lines + b"Content-Length: 5\r\n\r\nhello"
    response = asyncio.create_task(connection.response())
    for at in range(0, len(answer), 1000):
        connection.data_received(answer[at : at + 1000])
        await asyncio.sleep(0)
    head, stream = await response
    assert len(head.lines) == 60
    assert await stream.read() == b"hello"


async def test_small_segments_wait_for_the_exchange_and_are_understood_together() -> None:
    connection, transport = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-")
    connection.data_received(b"Length: 2\r\n\r\nok")
    assert connection.silent is False
    head, stream = await connection.response()
    assert (head.code, await stream.read(), transport.calls) == (200, b"ok", [])


async def test_a_connection_that_closed_before_its_request_says_so_at_once() -> None:
    """As when a vendor closes what was just opened: no answer and no close can follow."""
    loop = asyncio.get_running_loop()
    connection = UpstreamConnection(loop, Outbox(loop), lambda _: None)
    connection.connection_made(Transport())  # type: ignore[arg-type]
    connection.connection_lost(None)
    connection.begin(Timeouts(), head=False)
    with pytest.raises(UpstreamReset) as error:
        await asyncio.wait_for(connection.response(), 10)
    assert error.value.reason == "closed before the request was sent"
