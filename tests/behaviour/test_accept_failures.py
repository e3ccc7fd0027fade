"""Errors of accept(2): the port logs them, and goes on accepting."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kit.gateway import Running, one_route, running
from tests.kit.rest import until
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Failing(socket.socket):
    """A listening socket whose next calls of accept raise `errors`."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "made up")
        return super().accept()


def config(port: int) -> dict[str, object]:
    """Return a configuration whose sweeps are 50 ms apart."""
    return {**one_route(port), "limits": {"header_timeout": "200ms"}}


@asynccontextmanager
async def failing(*errors: int) -> AsyncIterator[tuple[Running, Failing]]:
    """Run a gateway whose listening socket fails so many times."""
    async with vendor(answering(ok())) as there, running(config(there.port)) as it:
        data = it.gateway._data
        assert data is not None
        [listening] = data._acceptor.sockets
        sock = Failing(fileno=socket.dup(listening.fileno()))
        sock.setblocking(False)
        sock.errors = list(errors)
        data._acceptor.stop(take_queued=False)
        data._acceptor.start([sock])
        yield it, sock


def failures(it: Running) -> list[str]:
    events = [json.loads(line) for line in it.log.splitlines()]
    return [event["reason"] for event in events if event["event"] == "accept_failed"]


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "EMFILE", "ENOBUFS"])
async def test_an_app_is_served_after_accepting_has_failed(name: str) -> None:
    """At once after an error of one connection, and at the next sweep after any other."""
    async with failing(getattr(errno, name)) as (it, sock):
        app = await connect(it.address)
        await app.send(get("/v/x"))
        assert (await app.message()).start == b"HTTP/1.1 200 OK"
        assert not sock.errors
        assert failures(it) == ([] if name == "ECONNABORTED" else [name])


async def test_accepting_that_fails_again_and_again_is_logged_once_a_second() -> None:
    async with failing(*[errno.EMFILE] * 1000) as (it, sock):
        began = asyncio.get_running_loop().time()
        await connect(it.address)
        await until(lambda: len(sock.errors) <= 990)
        assert 1 <= len(failures(it)) <= asyncio.get_running_loop().time() - began + 1
        sock.errors.clear()
        app = await connect(it.address)
        await app.send(get("/v/x"))
        assert (await app.message()).start == b"HTTP/1.1 200 OK"
