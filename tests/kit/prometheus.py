"""Runs a real Prometheus that scrapes a gateway, and queries it over its HTTP API."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml

from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
RULES = ROOT / "grafana" / "alerts" / "gatepass.yaml"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **params: str | float) -> Any:
        """Return the `data` of the API's answer."""
        async with self._session.get(f"{self.url}/api/v1/{path}", params=params) as answer:
            said = await answer.json()
        assert said["status"] == "success", said
        return said["data"]

    async def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return the current result of a query: labels and values."""
        said = await self.get("query", query=query)
        if said["resultType"] == "scalar":
            return [({}, float(said["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in said["result"]]

    async def until(self, query: str, seconds: float = 60.0) -> None:
        """Wait until a query has a result."""
        async with asyncio.timeout(seconds):
            while not await self.ask(query):  # noqa: ASYNC110 - Prometheus tells nobody
                await asyncio.sleep(0.1)


@asynccontextmanager
async def prometheus(target: str, *, every: str = "500ms") -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes `target` (`host:port`) as the job gatepass and evaluates our rules."""
    scrape = {"job_name": "gatepass", "static_configs": [{"targets": [target]}]}
    async with configured({"rule_files": [str(RULES)], "scrape_configs": [scrape]}, every=every) as it:
        await it.until('up{job="gatepass"} == 1')  # Prometheus waits five seconds for its first targets
        yield it


@asynccontextmanager
async def configured(config: dict[str, Any], *, every: str = "500ms") -> AsyncIterator[Prometheus]:
    """Run a Prometheus with this configuration but short intervals. Paths in it must be absolute."""
    assert PROGRAM is not None
    quick = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = Path(folder, "prometheus.yaml")
        path.write_text(  # noqa: ASYNC240 - a small file in a temporary folder
            yaml.safe_dump(config | {"global": quick})
        )
        process = await asyncio.create_subprocess_exec(
            PROGRAM, f"--config.file={path}", f"--storage.tsdb.path={folder}/data", "--log.level=error",
            f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as session:
                it = Prometheus(f"http://127.0.0.1:{port}", session)
                await _ready(it.url, session)
                yield it
        finally:
            process.terminate()
            await process.wait()


async def _ready(url: str, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with session.get(f"{url}/-/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
