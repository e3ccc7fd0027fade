"""Budgets across restarts, as processes: a clean stop, a kill, and a file that cannot be used."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.access import hash_key
from gateway.access.statefile import INTERVAL
from gateway.errors import StateError
from tests.kit.gateway import one_route, running
from tests.kit.rest import until
from tests.kit.wire import Message, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "gp_CANARY-5f1d2c-do-not-print-web"


def config(port: int, state: Path, hard: int) -> dict[str, Any]:
    budgets = [{"route": "v", "per": "month", "hard": hard}]
    return {
        **one_route(port),
        "state_file": str(state),
        "clients": [{"name": "web", "key_sha256": hash_key(KEY), "budgets": budgets}],
    }


async def ask(address: tuple[str, int]) -> Message:
    app = await connect(address)
    await app.send(get("/v/a", f"X-Gatepass-Key: {KEY}"))
    return await app.message()


async def test_what_was_used_is_still_used_after_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    async with vendor(answering(ok())) as upstream:
        for hard, statuses in ((2, [200, 200, 429]), (3, [200, 429]), (3, [429])):
            async with running(config(upstream.port, state, hard)) as it:
                assert [(await ask(it.address)).status for _ in statuses] == statuses
    (row,) = [each for each in json.loads(state.read_text())["counts"] if " " not in each["period"]]
    assert (row["client"], row["route"], row["calls"]) == ("web", "v", 3)


async def test_a_state_file_that_is_broken_stops_the_start_and_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"format": 1, "counts"')
    with pytest.raises(StateError, match=r"state\.json is not JSON"):
        async with running(config(1, state, 1)):
            pytest.fail("it started")


@asynccontextmanager
async def served(folder: Path, port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, tuple[str, int]]]:
    """Run `serve` as a process of its own; yield it with its address."""
    path = folder / "config.yaml"
    path.write_text("listen: 127.0.0.1:0\nadmin: null\n" + yaml.safe_dump(config(port, folder / "state.json", 5)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve", "-c", str(path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "CANARY": "CANARY-5f1d2c-do-not-print"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(90):
            while (event := json.loads(await process.stdout.readline()))["event"] != "started":
                pass
        host, _, own = event["data"].rpartition(":")
        yield process, (host, int(own))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def calls(state: Path) -> int:
    """What the file says; it is replaced as a whole, and not there at first."""
    rows = json.loads(state.read_text())["counts"] if state.exists() else []
    return sum(row["calls"] for row in rows if " " not in row["period"])


async def test_a_process_that_is_killed_has_lost_at_most_its_last_second(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as upstream:
        async with served(tmp_path, upstream.port) as (process, address):
            assert [(await ask(address)).status for _ in range(3)] == [200] * 3
            await until(lambda: calls(tmp_path / "state.json") == 3, within=INTERVAL + 30)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        async with served(tmp_path, upstream.port) as (_, address):
            assert [(await ask(address)).status for _ in range(3)] == [200, 200, 429]
