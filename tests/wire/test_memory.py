"""Memory: of large bodies and of ten thousand idle connections, measured on a gateway in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, cast

import pytest
import trustme

from tests.behaviour.test_serve_tls import issue, trusting
from tests.kit.gateway import one_route
from tests.kit.process import Process, raise_file_limit, serving
from tests.kit.rest import until
from tests.kit.wire import Peer, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")

MIB = 2**20
BLOCK = bytes(2**18)
SIZES = [
    pytest.param(2**30, id="1 GiB"),
    pytest.param(10 * 2**30, id="10 GiB", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
]


async def _most(gateway: Process, work: asyncio.Task[None]) -> int:
    most = gateway.rss
    while not work.done():
        await asyncio.sleep(0.02)
        most = max(most, gateway.rss)
    await work
    return most


async def _discard(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        data = await reader.read(MIB)
        assert data
        size -= len(data)


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_download_takes_no_memory(size: int) -> None:
    """The gateway grows by less than 16 MiB."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(BLOCK)):
            await peer.send(BLOCK)

    async with vendor(script) as upstream, serving(one_route(upstream.port)) as gateway:
        before = gateway.rss
        app = await connect(gateway.address)
        await app.send(get("/v/a"))
        head = await app.head()
        assert int(head.one("Content-Length")) == size
        assert await _most(gateway, asyncio.create_task(_discard(app.reader, size))) - before < 16 * MIB


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_upload_takes_no_more_memory_than_its_replay(size: int) -> None:
    """16 MiB are kept for a replay and dropped when they are exceeded."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await _discard(peer.reader, size)
        await peer.send(ok(b"whole"))

    async with vendor(script) as upstream, serving(one_route(upstream.port, max_body=None)) as gateway:
        before = gateway.rss
        app = await connect(gateway.address)
        await app.send(get("/v/a", f"Content-Length: {size}", method="POST"))

        async def upload() -> None:
            for _ in range(size // len(BLOCK)):
                await app.send(BLOCK)

        assert await _most(gateway, asyncio.create_task(upload())) - before < 48 * MIB
        assert (await app.message()).body == b"whole"


@pytest.mark.slow
@pytest.mark.parametrize(
    "used",
    [pytest.param(False, id="that never asked", marks=pytest.mark.long), pytest.param(True, id="that asked once")],
)
async def test_ten_thousand_idle_connections_take_ten_kib_each(used: bool) -> None:
    """And others are served meanwhile."""
    count = 10_000
    if not raise_file_limit(count + 500):
        pytest.skip("this machine does not allow so many open files")
    limits = {"connections": 20_000, "header_timeout": 290, "connections_per_address": 20_000}

    async def patient(peer: Peer) -> None:
        while await peer.reader.readuntil(b"\r\n\r\n"):
            await peer.send(ok())

    async with vendor(patient) as upstream, serving({**one_route(upstream.port), "limits": limits}) as gateway:
        first = await connect(gateway.address)
        await first.send(get("/v/a"))
        await first.message()
        before = gateway.rss
        request = get("/v/a")
        for _ in range(count // 500):
            apps = await asyncio.gather(*(connect(gateway.address) for _ in range(500)))
            if used:
                for app in apps:
                    app.writer.write(request)
                for app in apps:
                    assert (await app.message()).status == 200
        await until(lambda: gateway.files >= count)
        await first.send(get("/v/a"))
        assert (await first.message()).status == 200
        assert (gateway.rss - before) / count < 10 * 1024


async def _stuck(address: tuple[str, int], ca: trustme.CA | None) -> Peer:
    """Begin a download and read nothing of it but its first bytes."""
    name = None if ca is None else "localhost"
    app = Peer(*await asyncio.open_connection(*address, ssl=trusting(ca) if ca else None, server_hostname=name))
    await app.send(get("/v/a"))
    await app.reader.readexactly(100)
    cast("asyncio.Transport", app.writer.transport).pause_reading()
    return app


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_a_slow_reader_over_tls_takes_about_as_much_memory_as_one_without(framing: str, tmp_path: Path) -> None:
    """Bytes are encrypted when they are written, so only few are written before the app has read them."""
    count, size, ca = 24, 2**25, trustme.CA()
    head = b"Content-Length: %d" % size if framing == "sized" else b"Transfer-Encoding: chunked"
    block = BLOCK if framing == "sized" else b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        for _ in range(size // len(BLOCK)):
            await peer.send(block)

    config = {"tls": issue(tmp_path, ca)}
    async with vendor(script) as upstream, serving({**one_route(upstream.port), **config}) as gateway:
        first = [await _stuck(gateway.address, ca) for _ in range(3)]
        await asyncio.sleep(1)
        before = gateway.rss
        apps = [await _stuck(gateway.address, ca) for _ in range(count)]
        await asyncio.sleep(2)
        assert (gateway.rss - before) / count < 1.2 * MIB
        for app in (*first, *apps):
            app.writer.transport.abort()
