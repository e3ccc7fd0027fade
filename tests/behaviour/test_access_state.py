"""Budgets across restarts, as processes: a clean stop, a kill, and a file that cannot be used."""

from __future__ import annotations

import asyncio
import fcntl
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
from tests.kit.served import Served
from tests.kit.wire import Message, Peer, answering, connect, get, ok, vendor

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


class Slow:
    """A vendor that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.asked = 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.message()
            self.asked += 1
            await self.go_on.wait()
            await peer.send(ok())


async def test_an_upgrade_in_place_grants_a_budget_once(tmp_path: Path) -> None:
    """Three calls under way are the whole budget; the successor knows that, though none of them has ended."""
    slow = Slow()
    async with vendor(slow) as upstream:
        gateway = Served(
            tmp_path,
            config(upstream.port, tmp_path / "state.json", 3),
            environ={"CANARY": "CANARY-5f1d2c-do-not-print"},
        )
        successor = None
        try:
            await gateway.start()
            under_way = [asyncio.create_task(ask(gateway.address)) for _ in range(3)]
            await until(lambda: slow.asked == 3, within=30)
            gateway.signal(signal.SIGUSR2)
            successor = (await gateway.seen("upgrading"))["successor"]
            await gateway.seen("draining", seconds=60)
            assert [(await ask(gateway.address)).status for _ in range(3)] == [429] * 3
            slow.go_on.set()
            assert [(await task).status for task in under_way] == [200] * 3
            assert await gateway.end() == 0
            assert (await ask(gateway.address)).status == 429
        finally:
            slow.go_on.set()
            await gateway.stop()
            if successor is not None:
                os.kill(successor, signal.SIGTERM)
        await gateway.seen("stopped", 2)
    assert calls(tmp_path / "state.json") == 3


async def test_kill_9_forgets_no_call_that_was_under_way_for_a_moment(tmp_path: Path) -> None:
    slow = Slow()
    async with vendor(slow) as upstream:
        async with served(tmp_path, upstream.port) as (process, address):
            under_way = [asyncio.create_task(ask(address)) for _ in range(4)]
            await until(lambda: calls(tmp_path / "state.json") == 4, within=30)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        slow.go_on.set()
        await asyncio.gather(*under_way, return_exceptions=True)
        async with served(tmp_path, upstream.port) as (_, address):
            assert [(await ask(address)).status for _ in range(2)] == [200, 429]


@pytest.mark.slow
async def test_sigterm_ends_a_gateway_whose_state_file_somebody_else_locks(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as upstream, served(tmp_path, upstream.port) as (process, address):
        with (tmp_path / ".state.json.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert (await ask(address)).status == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(12):
                await process.wait()
        assert process.returncode == 0
