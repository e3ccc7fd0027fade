"""Runs a gateway in its own process, to measure its memory and to set its limits."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.kit.gateway import CANARY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PATIENCE = 60.0


@dataclass
class Process:
    """A gateway that serves."""

    address: tuple[str, int]
    pid: int

    @property
    def rss(self) -> int:
        """Return resident memory in bytes (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def files(self) -> int:
        """Return the number of open files, including sockets (Linux)."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def raise_file_limit(wanted: int) -> bool:
    """Let this process and its children open `wanted` files; return False if the machine does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return True
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


@asynccontextmanager
async def serving(config: Mapping[str, object], **environ: str) -> AsyncIterator[Process]:
    """Run `python -m gateway serve` on a free port until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        access = {} if "clients" in config else {"access": "open"}  # a test's requests have any `Host`
        whole = {
            "listen": "127.0.0.1:0",
            "admin": None,
            "logs": {"format": "json", "access": False},
            **access,
            **config,
        }
        path.write_text(yaml.safe_dump(whole))  # noqa: ASYNC240 - a test's own small file
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway", "serve", "-c", str(path)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "CANARY": CANARY, **environ},
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                started = await _started(process.stdout)
            drain = asyncio.create_task(process.stdout.read(-1))
            host, _, port = started["data"].rpartition(":")
            yield Process((host, int(port)), process.pid)
            drain.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _started(stdout: asyncio.StreamReader) -> dict[str, str]:
    async for line in stdout:
        event: dict[str, str] = json.loads(line)
        if event.get("event") == "started":
            return event
    msg = "the gateway did not start"
    raise AssertionError(msg)
