"""Runs a gateway in front of the emulated vendors, and apps that call it continuously."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import yaml

from gateway.sandbox import Sandbox
from tests.kit.clock import SteadyClock
from tests.kit.configuration import ROOT
from tests.kit.gateway import Running, running
from tests.kit.wire import PATIENCE, connect, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox.vendor import Vendor


@asynccontextmanager
async def emulated(
    routes: dict[str, dict[str, Any]] | None = None, top: dict[str, Any] | None = None, **credentials: dict[str, Any]
) -> AsyncIterator[tuple[Running, Sandbox]]:
    """Run the shipped config.yaml against the sandbox; `routes`, `credentials` and `top` add settings.

    The vendors' limits on token requests are off, because tests with many short-lived tokens would exceed them. Gateway
    and vendors use a clock that does not count stalls of the machine.
    """
    clock = SteadyClock()
    async with Sandbox(clock=clock) as sandbox:
        for vendor in sandbox.vendors.values():
            await vendor.set(rate_limit=False)
        config = yaml.safe_load((ROOT / "config.yaml").read_text())
        overlay = yaml.safe_load(sandbox.overlay())
        merged = {
            "limits": {"header_timeout": 120},  # a busy machine needs time to open a thousand connections
            "credentials": {
                name: {**config["credentials"][name], **overlay["credentials"][name], "min_interval": 0}
                | credentials.get(name, {})
                for name in config["credentials"]
            },
            "routes": {
                name: {**config["routes"][name], **overlay["routes"][name], **(routes or {}).get(name, {})}
                for name in config["routes"]
            },
            **(top or {}),
        }
        try:
            async with running(merged, clock=clock, environ=sandbox.environ()) as it:
                yield it, sandbox
        finally:
            clock.stop()


async def warm(it: Running) -> None:
    """Wait until every credential was tried."""
    async with asyncio.timeout(PATIENCE):
        await it.gateway.tokens.warmed.wait()


async def ask(it: Running, vendor: Vendor | str, path: str = "/sandbox/echo") -> tuple[int, float, dict[bytes, bytes]]:
    """Send one GET on a new connection; return status, seconds by the sandbox's clock, and the answer's headers."""
    app = await connect(it.address)
    name = vendor if isinstance(vendor, str) else vendor.name
    started = it.clock.monotonic()
    await app.send(get(f"/{name}{path}"))
    answer = await app.message()
    app.reset()
    return answer.status, it.clock.monotonic() - started, {key.lower(): value for key, value in answer.headers}


class Load:
    """Apps that each send one request after another over one connection, until they are stopped."""

    def __init__(self, it: Running, names: list[str], *, apps: int = 2, pause: float = 0.01) -> None:
        self._it = it
        self._names = names
        self._apps = apps
        self._pause = pause
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.statuses: dict[str, Counter[int]] = {name: Counter() for name in names}
        self.slowest: dict[str, float] = dict.fromkeys(names, 0.0)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._app(name)) for name in self._names for _ in range(self._apps)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _app(self, name: str) -> None:
        peer = await connect(self._it.address)
        while not self._stop.is_set():
            started = self._it.clock.monotonic()
            await peer.send(get(f"/{name}/sandbox/status/200"))
            answer = await peer.message()
            self.statuses[name][answer.status] += 1
            self.slowest[name] = max(self.slowest[name], self._it.clock.monotonic() - started)
            await asyncio.sleep(self._pause)

    @property
    def failures(self) -> int:
        """Answers other than 200."""
        return sum(count for seen in self.statuses.values() for status, count in seen.items() if status != 200)

    @property
    def total(self) -> int:
        return sum(seen.total() for seen in self.statuses.values())
