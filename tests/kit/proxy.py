"""Runs a real forward proxy, tinyproxy, like the one at the edge of a company's network."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.tools import SBIN, tool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = ("vendor.test", "auth.test", "login.test", "collector.test")
USER, PASSWORD = "gatepass", "CANARY-proxy-password"


class Proxy:
    """A running tinyproxy."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    @property
    def tunnels(self) -> list[str]:
        """The targets of all CONNECT requests so far, in order."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        requests = [line.partition("): ")[2] for line in lines if "Request (file descriptor" in line]
        return [request.split()[1] for request in requests if request.startswith("CONNECT ")]


def _configured(folder: Path, port: int, *, login: bool) -> tuple[Path, Path, Path]:
    """Write tinyproxy's configuration, its log and its hosts file."""
    config, log, hosts = folder / "config", folder / "log", folder / "hosts"
    lines = [
        f"Port {port}",
        "Listen 127.0.0.1",
        "Timeout 60",
        f'LogFile "{log}"',
        "LogLevel Info",
        "MaxClients 300",
        "Allow 127.0.0.1",
        *([f"BasicAuth {USER} {PASSWORD}"] if login else []),
    ]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log.touch()
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in NAMES), encoding="utf-8")
    return config, log, hosts


def _needed() -> str:
    """Return the program. Skip the test if it, or the library that resolves names for it, is missing."""
    if not any(Path("/usr/lib").glob("*/libnss_wrapper.so")):
        pytest.skip("libnss-wrapper is not installed")
    return tool("tinyproxy", SBIN)


@asynccontextmanager
async def tinyproxy(*, login: bool = False) -> AsyncIterator[Proxy]:
    """Run tinyproxy on a free port. It resolves `NAMES` with Debian's nss_wrapper; the gateway cannot resolve them."""
    program = _needed()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config, log, hosts = _configured(Path(folder), port, login=login)
        resolved = {"LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_HOSTS": str(hosts)}
        process = await asyncio.create_subprocess_exec(program, "-d", "-c", str(config), env={**os.environ, **resolved})
        try:
            await _listens(port)
            yield Proxy(port, log)
        finally:
            process.terminate()
            await process.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@asynccontextmanager
async def tls_in_front(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Terminate TLS in front of a plain port, as stunnel does; yield the port that speaks TLS."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
