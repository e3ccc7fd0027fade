"""How long a vendor's connection is used: not past its age, the vendor's own time-out, or the vendor's move."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.proxy.response import read_response
from tests.kit.gateway import Running, one_route, running
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.rest import until
from tests.kit.wire import Peer, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD, NEW = "127.0.0.1", "127.0.0.2"


def numbered(*fields: bytes) -> tuple[list[int], object]:
    """Return a list of the connections on which requests arrive, and the script that fills it."""
    used: list[int] = []
    connections = 0

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        while True:
            await peer.message()
            used.append(mine)
            await peer.send(ok(b"{}", *fields))

    return used, script


async def ask(app: Peer, request: bytes = get("/v/a")) -> int:
    await app.send(request)
    return (await app.message()).status


async def test_a_connection_is_not_used_past_its_greatest_age() -> None:
    """Under steady load, too: else a vendor that has moved would be noticed only after a pause."""
    used, script = numbered()
    async with (
        vendor(script) as upstream,  # type: ignore[arg-type]
        running(one_route(upstream.port, pool={"max_age": "300ms"})) as it,
    ):
        app = await connect(it.address)
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.0
        while loop.time() < end:
            assert await ask(app, post("/v/a", b"x")) == 200
            await asyncio.sleep(0.01)
        assert 3 <= upstream.connections <= 5
        assert used == sorted(used), "no old connection was used again"
        await until(lambda: len(upstream.open) <= 1)


async def test_connections_opened_together_do_not_end_together() -> None:
    held = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await held.wait()
            await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        apps = [await connect(it.address) for _ in range(20)]
        asking = [asyncio.ensure_future(ask(app)) for app in apps]
        await until(lambda: upstream.connections == 20)
        held.set()
        await asyncio.gather(*asking)
        now = asyncio.get_running_loop().time()
        ages = [connection.retire_at - now for connection in it.routes[0].pool._idle]
    assert 260 < min(ages) < max(ages) <= 300
    assert max(ages) - min(ages) > 5


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ("timeout=2", True),
        ("timeout=1000", True),
        ("max=100", True),
        ("timeout=1", False),
        ("max=7, timeout=0", False),
        ("timeout=x", True),
    ],
)
async def test_a_vendor_s_own_time_out_is_honoured_less_a_second(field: str, kept: bool) -> None:
    """A POST on a connection that the vendor is closing would fail: it may not be sent twice."""
    used, script = numbered(b"Keep-Alive: " + field.encode())
    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:  # type: ignore[arg-type]
        app = await connect(it.address)
        for _ in range(3):
            assert await ask(app, post("/v/a", b"x")) == 200
        assert used == ([1, 1, 1] if kept else [1, 2, 3])


async def test_an_idle_connection_is_not_used_in_the_last_second_of_the_vendor_s_time_out() -> None:
    used, script = numbered(b"Keep-Alive: timeout=2")
    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:  # type: ignore[arg-type]
        app = await connect(it.address)
        assert await ask(app) == 200
        await asyncio.sleep(1.05)
        assert await ask(app, post("/v/a", b"x")) == 200
        assert used == [1, 2]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"Keep-Alive: timeout=5", 5),
        (b"keep-alive:timeout=5,max=100", 5),
        (b"Keep-Alive: max=100, Timeout = 15", 15),
        (b'Keep-Alive: timeout="20"', 20),
        (b"Keep-Alive: timeout=5;max=3", 5),
        (b"Keep-Alive: max=100", None),
        (b"Keep-Alive: timeout=-5", None),
        (b"Keep-Alive: timeout=5s", None),
        (b"Keep-Alive: idletimeout=5", None),
        (b"Keep-Alive: timeout=99999999999999999999", None),
        (b"Keep-Alive:", None),
        (b"X-Keep-Alive: timeout=5", None),
    ],
)
def test_a_keep_alive_field_names_the_vendor_s_time_out(line: bytes, seconds: int | None) -> None:
    assert read_response(b"HTTP/1.1 200 OK\r\n" + line).idle_timeout == seconds


# ------------------------------------------------------------------------------------------------------ a vendor moves


class Moving:
    """A vendor that listens on two addresses, and the name that leads to one of them."""

    def __init__(self) -> None:
        self.system = System()
        self.requests: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.port = 0
        self.held: asyncio.Event | None = None

    def leads_to(self, *addresses: str) -> None:
        self.system.addresses["vendor.test"] = list(addresses)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        self.open[address] += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests[address] += 1
                if self.held is not None:
                    await self.held.wait()
                writer.write(ok())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open[address] -= 1
            writer.close()


@asynccontextmanager
async def moving(**route: object) -> AsyncIterator[tuple[Moving, Running]]:
    it = Moving()
    it.leads_to(OLD)
    server = await asyncio.start_server(it.serve, OLD, 0)
    it.port = server.sockets[0].getsockname()[1]
    second = await asyncio.start_server(it.serve, NEW, it.port)
    config = one_route(it.port, upstream=f"http://vendor.test:{it.port}", **route)
    try:
        async with running({**config, "allow_addresses": ["127.0.0.0/8"]}, resolver=resolver_of(it.system)) as gateway:
            yield it, gateway
    finally:
        server.close()
        second.close()


async def both_at_once(it: Moving, gateway: Running, count: int = 2) -> None:
    """Have as many requests in flight together, so that as many connections are open."""
    it.held = asyncio.Event()
    apps = [await connect(gateway.address) for _ in range(count)]
    before = sum(it.requests.values())
    asking = [asyncio.ensure_future(ask(app)) for app in apps]
    await until(lambda: sum(it.requests.values()) == before + count)
    it.held.set()
    assert set(await asyncio.gather(*asking)) == {200}
    it.held = None


async def test_a_look_up_that_changed_retires_connections_to_addresses_that_are_gone() -> None:
    """Under load: the kept connections go on to answer, so nothing but the look-up says that the vendor has moved."""
    async with moving() as (it, gateway):
        await both_at_once(it, gateway, 3)
        assert it.open == {OLD: 3}
        it.leads_to(NEW)
        await both_at_once(it, gateway, 4)
        await until(lambda: not it.open[OLD])
        assert it.open[NEW] == 1
        app = await connect(gateway.address)
        before = it.requests[NEW]
        for _ in range(5):
            assert await ask(app) == 200
        assert it.requests[NEW] == before + 5


async def test_a_request_in_flight_ends_on_the_address_that_is_gone() -> None:
    async with moving() as (it, gateway):
        await both_at_once(it, gateway)
        it.held = asyncio.Event()
        app = await connect(gateway.address)
        asking = asyncio.ensure_future(ask(app))
        await until(lambda: it.requests[OLD] == 3)
        it.leads_to(NEW)
        others = [asyncio.ensure_future(ask(await connect(gateway.address))) for _ in range(2)]
        await until(lambda: it.requests[NEW] == 1)
        await until(lambda: it.open[OLD] <= 2)
        it.held.set()
        assert await asking == 200
        assert set(await asyncio.gather(*others)) == {200}
        await until(lambda: not it.open[OLD])


async def test_an_address_that_is_still_there_keeps_its_connections() -> None:
    async with moving() as (it, gateway):
        await both_at_once(it, gateway)
        it.leads_to(NEW, OLD)
        await both_at_once(it, gateway, 3)
        pool = gateway.routes[0].pool
        pool.sweep(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        assert it.open == {OLD: 2, NEW: 1}


async def test_a_name_server_that_answers_with_another_address_each_time_does_not_stop_reuse() -> None:
    async with moving() as (it, gateway):
        pool = gateway.routes[0].pool
        for turn in range(10):
            it.leads_to((NEW, OLD)[turn % 2])
            await both_at_once(it, gateway, turn + 1)
            pool.sweep(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        assert sum(it.open.values()) >= 8


async def test_addresses_that_were_known_serve_on_while_the_name_does_not_resolve() -> None:
    async with moving() as (it, gateway):
        await both_at_once(it, gateway)
        it.system.failing = {"vendor.test"}
        await both_at_once(it, gateway, 5)
        assert it.requests == {OLD: 7}
        assert "name_not_resolved" in gateway.log
        it.system.failing = set()
        await both_at_once(it, gateway, 7)
        await until(lambda: "name_resolved_again" in gateway.log)
