"""The gateway of the demo: `gatepass serve` as its own process, as a user would run it.

Uses only its command line, its two ports, its log file and its metrics.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

READY_WITHIN = 30.0
"""Seconds until the process must be ready; a busy machine starts Python slowly."""
STOP_WITHIN = 5.0
_POLL = 0.02
_TAIL = 30


class GatewayDied(Exception):
    """The process ended, or was not ready in time; the text has its last lines."""


def free_port() -> int:
    """Return a TCP port of the loopback address that is free now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class GatewayProcess:
    """`python -m gateway serve -c … -c …`: an asynchronous context manager, entered when the gateway is ready."""

    def __init__(self, configs: Sequence[Path], environ: Mapping[str, str], log: Path) -> None:
        self.listen, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.log = log
        self.ready_after = 0.0
        """Seconds from the start of the process to its first ready answer."""
        self._configs = configs
        self._environ = {**os.environ, **environ}
        self._process: asyncio.subprocess.Process | None = None
        self._answer = "nobody listens on the admin port"

    @property
    def command(self) -> list[str]:
        """The command line."""
        options = [part for path in self._configs for part in ("-c", str(path))]
        return [sys.executable, "-m", "gateway", "serve", *options]

    async def __aenter__(self) -> Self:
        began = time.monotonic()
        with self.log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, env=self._environ, stdout=output, stderr=asyncio.subprocess.STDOUT
            )
        try:
            await asyncio.wait_for(self._ready(), READY_WITHIN)
        except BaseException as error:
            await self._stop()
            if isinstance(error, TimeoutError):
                raise GatewayDied(f"not ready after {READY_WITHIN:.0f} s: {self._answer}\n{self.tail()}") from error
            raise
        self.ready_after = time.monotonic() - began
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                self.check()
                try:
                    async with session.get(f"http://{self.admin}/readyz") as response:
                        self._answer = await response.text()
                        if response.status == 200:  # noqa: PLR2004 - OK
                            return
                except aiohttp.ClientConnectionError:
                    pass  # not listening yet
                await asyncio.sleep(_POLL)

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()

    def check(self) -> None:
        """Raise GatewayDied if the process has ended."""
        if self._process is not None and self._process.returncode is not None:
            raise GatewayDied(f"exit status {self._process.returncode}\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines that the process printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])

    def errors(self) -> list[str]:
        """Return the lines that are errors: log events of that level, and lines that are not log events."""
        return [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if _is_error(line)]

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.admin}/metrics", headers={"Accept": "text/plain"}) as response,
        ):
            text = await response.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def _is_error(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return bool(line.strip())
    return isinstance(event, dict) and event.get("level") in {"error", "critical"}
