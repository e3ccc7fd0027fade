"""Measures what a gateway needs: memory and open files per connection and request, CPU per request.

    python -m benchmarks.sizing [--number 2000]

Runs `gatepass serve` in its own process, with keys, metrics and the access log. Linux only, because it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvloop
from rich.console import Console
from rich.table import Table

from gateway.sandbox.demo.process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "gp_sizing-key-of-no-value"
CONFIG = """\
listen: {listen}
admin: {admin}
clients:
  - {{name: sizing, key_sha256: {digest}}}
credentials:
  sizing: {{static: {{token: made-up-token}}}}
routes:
  sizing: {{credential: sizing, upstream: "http://127.0.0.1:{port}", pool: {{size: 20000}}, timeouts: {{idle: 5m}}}}
"""
LARGE = 32 * 1024 * 1024
SECONDS = 5.0


async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once; `/large` with a large body, `/hang` never."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/hang" in head:
                await reader.read()
            elif b"/large" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
                for _ in range(LARGE // 65536):
                    writer.write(bytes(65536))
                    await writer.drain()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class App(asyncio.Protocol):
    """One connection that requests `path` a number of times; it may stop to read after the first answer."""

    def __init__(self, path: str, *, deaf: bool = False, again: bool = False) -> None:
        self.request = f"GET /sizing{path} HTTP/1.1\r\nHost: x\r\nX-Gatepass-Key: {KEY}\r\n\r\n".encode()
        self.deaf, self.again, self.answers = deaf, again, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count, and go on or not."""
        if not self.answers and not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(data.decode("latin-1"))
        self.answers += 1
        if self.deaf:
            self.transport.pause_reading()
        elif self.again:
            self.transport.write(self.request)


class Seen:
    """Figures of a process from /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def kib(self) -> float:
        """Resident memory."""
        return int((self._folder / "statm").read_text().split()[1]) * resource.getpagesize() / 1024

    def files(self) -> int:
        """Open files."""
        return len(list((self._folder / "fd").iterdir()))

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def hold(gateway: GatewayProcess, seen: Seen, number: int, path: str, *, deaf: bool = False) -> tuple[str, ...]:
    """Open connections, let them settle, and return what each costs."""
    host, port = gateway.listen.split(":")
    memory, files = seen.kib(), seen.files()
    loop, apps = asyncio.get_running_loop(), []
    for _ in range(number):
        _, app = await loop.create_connection(lambda: App(path, deaf=deaf), host, int(port))
        apps.append(app)
    await asyncio.sleep(4)
    row = (f"{(seen.kib() - memory) / number:.1f} KiB", f"{(seen.files() - files) / number:.1f}")
    for app in apps:
        app.transport.abort()
    await asyncio.sleep(2)
    return row


async def busy(gateway: GatewayProcess, seen: Seen) -> tuple[float, float]:
    """Keep 32 connections busy; return requests per second and CPU seconds per request."""
    host, port = gateway.listen.split(":")
    loop = asyncio.get_running_loop()
    apps = [(await loop.create_connection(lambda: App("/", again=True), host, int(port)))[1] for _ in range(32)]
    await asyncio.sleep(1)
    began, spent, before = loop.time(), seen.cpu(), sum(app.answers for app in apps)
    await asyncio.sleep(SECONDS)
    took, used, done = loop.time() - began, seen.cpu() - spent, sum(app.answers for app in apps) - before
    for app in apps:
        app.transport.abort()
    return done / took, used / done


@contextlib.asynccontextmanager
async def fresh(folder: Path, vendor_port: int) -> AsyncIterator[tuple[GatewayProcess, Seen]]:
    """Run a new gateway that has served some requests. A used one would reuse memory of the measurement before."""
    config = folder / "config.yaml"
    gateway = GatewayProcess([config], {}, folder / "gateway.log")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    text = CONFIG.format(listen=gateway.listen, admin=gateway.admin, digest=digest, port=vendor_port)
    config.write_text(text, encoding="utf-8")
    async with gateway:
        process = gateway._process  # noqa: SLF001 - its id is all that is wanted
        assert process is not None
        seen = Seen(process.pid)
        await hold(gateway, seen, 20, "/")
        yield gateway, seen


async def measure(number: int) -> None:
    """Measure, and print a table."""
    server = await asyncio.start_server(vendor, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    table = Table("", "memory", "open files", title="What each one costs")
    kinds = (
        ("idle connection of an app", number, "/", False),
        ("request that waits for its vendor", number, "/hang", False),
        ("download whose app does not read", 100, "/large", True),
    )
    with tempfile.TemporaryDirectory() as name:
        async with fresh(Path(name), port) as (gateway, seen):
            table.add_row("the gateway itself", f"{seen.kib() / 1024:.0f} MiB", str(seen.files()))
            rate, each = await busy(gateway, seen)
        for kind, several, path, deaf in kinds:
            async with fresh(Path(name), port) as (gateway, seen):
                table.add_row(kind, *await hold(gateway, seen, several, path, deaf=deaf))
    Console().print(table)
    Console().print(
        f"{each * 1e6:.0f} µs of CPU for a small request: {1 / each:,.0f} a second from a whole core", end=""
    )
    Console().print(f" ({rate:,.0f} a second while this ran beside it)")
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Memory, files and CPU for each connection and request.")
    parser.add_argument("--number", type=int, default=2000, help="connections of each kind")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(uvloop.run(measure(parser.parse_args().number)))
