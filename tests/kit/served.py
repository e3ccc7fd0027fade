"""Runs `gatepass serve` in its own process, and apps that call it continuously.

For tests that need a process: signals, changed files, passed sockets, kill -9.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml

from tests.kit.configuration import ROOT
from tests.kit.ports import free_port
from tests.kit.wire import PATIENCE, connect, get

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

READY_WITHIN = 90.0


def accepts(port: int) -> bool:
    """Whether connections to this port are accepted. Uses no event loop, because uvloop leaks a refused socket."""
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait until `condition` holds; return the seconds that it took, and fail after `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def _quick(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without the grace period, because tests stop many gateways.

    Access is open if a test configures no clients, because its requests have any `Host`.
    """
    access = {} if "clients" in config else {"access": "open"}
    return {**access, **config, "drain": {"grace": "0s", **config.get("drain", {})}}


class Served:
    """A gateway process on free ports; `config` is its configuration, without `listen` and `admin`."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, **top: Any
    ) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.address = ("127.0.0.1", self.port)
        self.path = folder / "config.yaml"
        self.log_path = folder / "gateway.log"
        self._top = {"listen": f"127.0.0.1:{self.port}", "admin": f"127.0.0.1:{self.admin_port}", **top}
        self._environ = dict(environ or {})
        self.process: asyncio.subprocess.Process | None = None
        self.write(config)

    def write(self, config: Mapping[str, Any] | str, **top: Any) -> None:
        """Replace the configuration file by another file, as a careful editor does."""
        text = config if isinstance(config, str) else yaml.safe_dump(_quick({**self._top, **top, **config}))
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.path)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "gateway", "serve", "-c", str(self.path)]

    async def start(self, *, passed: Sequence[int] = (), wrapper: Sequence[str] = ()) -> Self:
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *wrapper,
                *self.command,
                cwd=ROOT,
                env={**os.environ, **self._environ},
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=passed,
            )
        await self.ready()
        return self

    async def ready(self) -> None:
        async with asyncio.timeout(READY_WITHIN):
            while await self.readiness() != 200:
                assert self.process is None or self.process.returncode is None, self.text
                await asyncio.sleep(0.02)

    async def readiness(self) -> int:
        """Return the status of `/readyz`; 0 without an answer."""
        status, _ = await self.ask("/readyz")
        return status

    async def ask(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
                session.get(f"http://127.0.0.1:{self.admin_port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError):
            return 0, ""

    async def metric(self, sample: str) -> float:
        """Return the value of a line of `/metrics`; 0 without such a line."""
        _, text = await self.ask("/metrics")
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{sample} ")), 0.0)

    @property
    def held_up(self) -> float:
        """Return the seconds that the process has waited for a processor, as Linux counts them; elsewhere 0."""
        assert self.process is not None
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            return 0.0

    @property
    def text(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return all events of this name in the log."""
        mark = f'"event":"{name}"'
        return [json.loads(line) for line in self.text.splitlines() if mark in line and line.endswith("}")]

    async def seen(self, name: str, count: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the `count`-th event of this name."""
        await until(lambda: len(self.events(name)) >= count, seconds)
        return self.events(name)[count - 1]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, seconds: float = 60.0) -> int:
        """Wait for the process to end by itself."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Apps:
    """Apps that send requests to `path`, each one after another, and count the answers.

    `kept`: each app uses one connection as long as the gateway keeps it open; otherwise each request opens its own. An
    app continues after a failed request; every failure is recorded with its cause.
    """

    def __init__(
        self,
        address: tuple[str, int],
        path: str | Callable[[int], str],
        *,
        apps: int = 8,
        pause: float = 0.005,
        kept: bool = True,
        post: bool = False,
    ) -> None:
        self._address = address
        self._path = path if callable(path) else lambda _: path
        self._apps = apps
        self._pause = pause
        self._kept = kept
        self._post = post
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.good = 0
        self.failures: Counter[str] = Counter()
        self.last_good = 0.0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._app(number)) for number in range(self._apps)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _app(self, number: int) -> None:
        peer = None
        while not self._over.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    peer = peer or await connect(self._address)
                    await peer.send(self._request(number))
                    answer = await peer.message()
                if answer.status == 200:
                    self.good += 1
                    self.last_good = time.monotonic()
                else:
                    self.failures[f"{answer.status} {answer.body[:120]!r}"] += 1
                closing = b"close" in answer.all("Connection")
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures[f"{type(error).__name__} {error}"[:80]] += 1
                closing = True
            if peer is not None and (closing or not self._kept):
                peer.close()
                peer = None
            await asyncio.sleep(self._pause)
        if peer is not None:
            peer.close()

    def _request(self, number: int) -> bytes:
        path = self._path(number)
        if not self._post:
            return get(path)
        return get(path, "Content-Type: application/json", "Content-Length: 2", method="POST") + b"{}"
