"""One app's pipelined requests do not hold up the others, whatever the gateway answers to them."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import answering, connect, get, ok, post, vendor

COUNT = 2000
ANSWERED_AT_ONCE = {
    "no route": ({}, get("/nowhere")),
    "no route, empty lines in front": ({}, b"\r\n\r\n" + get("/nowhere")),
    "no route, a body": ({}, post("/nowhere", b"{}")),
    "no route, a chunked body": (
        {},
        get("/nowhere", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n0\r\n\r\n",
    ),
    "a method that is not served": ({"methods": ["POST"]}, get("/v/a")),
}
"""Requests that are answered without waiting for anything, and what the route needs for that."""


@pytest.mark.parametrize("case", ANSWERED_AT_ONCE)
async def test_others_get_their_turn_after_a_few_answers(case: str) -> None:
    route, request = ANSWERED_AT_ONCE[case]
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port, **route)) as it:
        greedy = await connect(it.address)
        await greedy.send(get("/nowhere"))
        await greedy.message()
        assert it.gateway._data is not None
        (connection,) = it.gateway._data._connections
        sending = asyncio.create_task(greedy.send(request * COUNT))
        reading = asyncio.create_task(read_all(greedy.reader))
        longest, answered, before = 0, 0, 0
        while answered < COUNT // 2:
            await asyncio.sleep(0)  # the loop runs everything that is ready once
            now = connection.unparsed.pending
            took = max(0, before - now) // len(request)
            longest, answered, before = max(longest, took), answered + took, now
        for task in (sending, reading):
            task.cancel()
        assert longest <= 16


async def read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(2**16):
        pass
