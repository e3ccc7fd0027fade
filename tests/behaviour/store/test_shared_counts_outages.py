"""Counts of several real gateways while the store is down, stopped, read-only or empty, and across restarts."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.budgets import App, counting_together, reach
from tests.kit.faults import FaultProxy
from tests.kit.served import until
from tests.kit.valkey import store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.served import Served
    from tests.kit.valkey import Store

USED = 'gatepass_client_budget_used{client="web",route="v",per="day"}'
AWAY = 'gatepass_store_away_calls_total{client="web",route="v"}'
UP, MEMBERS = "gatepass_store_up", "gatepass_store_members"


def budget(hard: int, **more: Any) -> dict[str, Any]:
    return {"budgets": [{"route": "v", "per": "day", "hard": hard, **more}]}


async def go_away(server: Store, how: str) -> None:
    if how == "killed":
        await server.kill()
    elif how == "stopped":
        server.pause()
    elif how == "read-only":
        await server.command("REPLICAOF", "127.0.0.1", "1")
    else:
        await server.command("CONFIG", "SET", "maxmemory", "1")


async def come_back(server: Store, how: str) -> None:
    if how == "killed":
        await server.start()
    elif how == "stopped":
        server.go_on()
    elif how == "read-only":
        await server.command("REPLICAOF", "NO", "ONE")
    else:
        await server.command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.slow
async def test_in_an_outage_granted_calls_are_admitted_and_others_refused_until_the_store_is_back(
    tmp_path: Path,
) -> None:
    """For each kind of outage, and also if the store comes back empty."""
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 2, budget(1600)) as (made, witness, app),
    ):
        await reach(made, MEMBERS, 2)
        assert await app.load(75, apps=1) == 150
        for how in ("full", "read-only", "stopped", "killed"):
            before, refused = witness.billed, app.statuses[429]
            await go_away(server, how)
            try:
                await reach(made, UP, 0)
                alone = await app.load(500, apps=1)
                assert (witness.billed - before, app.statuses[429] - refused) == (alone, 2), how
                assert 0 < alone <= 2 * 100, how
            finally:
                await come_back(server, how)
            await reach(made, UP, 1)
            await reach(made, USED, witness.billed)
            assert await app.load(10, apps=1) == 20, how
        assert sum([await it.metric(AWAY) for it in made]) > 0
        await app.load(2000)
        assert 1600 - 2 <= witness.billed <= 1600


@pytest.mark.slow
async def test_with_outage_open_exactly_outage_allowance_more_calls_are_admitted(tmp_path: Path) -> None:
    client = budget(30, outage="open", outage_allowance=10)
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 2, client) as (made, witness, app),
    ):
        await reach(made, MEMBERS, 2)
        await app.load(100)
        assert witness.billed == 30
        await server.kill()
        await reach(made, UP, 0)
        await asyncio.sleep(1)  # each instance checks once a second
        await app.load(100)
        assert witness.billed == 40
        await server.start()
        await reach(made, UP, 1)
        await reach(made, USED, 40)


async def test_a_gateway_starts_without_its_store_and_refuses_what_it_cannot_count(tmp_path: Path) -> None:
    async with (
        FaultProxy(1) as nobody,
        counting_together(tmp_path, nobody.url, 1, budget(100)) as (made, _, app),
    ):
        assert await app.load(5, apps=1) == 0
        assert (await made[0].seen("store_away"))["level"] == "warning"


@pytest.mark.slow
async def test_an_instance_that_restarts_uses_its_field_again(tmp_path: Path) -> None:
    """With the rest of its grant, even if the store has lost the field. After kill -9 the rest counts as spent."""
    folder = tmp_path / "state"
    folder.mkdir()
    files = [{"state_file": str(folder / f"{number}.json")} for number in range(2)]
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 2, budget(400), each=files) as (made, witness, app),
    ):
        await app.run(made[0], 60)
        await app.run(made[1], 60)
        for end in (signal.SIGTERM, signal.SIGKILL):
            await until(lambda: bool(fields(folder / "0.json")))
            before = fields(folder / "0.json")
            made[0].signal(end)
            await made[0].end()
            if end == signal.SIGTERM:
                await server.command("FLUSHALL")
            await made[0].start()
            assert fields(folder / "0.json").keys() == before.keys()
            await app.run(made[0], 30)
        await app.load(2000)
        assert 400 - 2 * 25 <= witness.billed <= 400


def fields(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text()).get("fields", []) if path.exists() else []
    return {each["field"]: each for each in found if each["counts"]}


@pytest.mark.slow
async def test_rates_and_limits_in_flight_are_divided_among_the_live_instances(tmp_path: Path) -> None:
    client = {"limits": [{"in_flight": 8}]}
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 4, client) as (made, witness, _),
    ):
        await reach(made, MEMBERS, 4)
        await asyncio.sleep(1)  # each instance checks once a second
        witness.pause = 0.5
        assert await asyncio.gather(*(at_once(it, 6) for it in made)) == [2, 2, 2, 2]
        made[0].signal(signal.SIGKILL)
        await made[0].end()
        made[1].signal(signal.SIGTERM)
        await made[1].end()
        live = made[2:]
        assert await reach(live, MEMBERS, 2, within=5) < 5
        await asyncio.sleep(1)
        assert await asyncio.gather(*(at_once(it, 6) for it in live)) == [4, 4]
        await server.kill()
        await reach(live, UP, 0)
        assert await asyncio.gather(*(at_once(it, 6) for it in live)) == [4, 4], "without the store the last part stays"


async def at_once(it: Served, calls: int) -> int:
    """Send calls at the same time; return how many were admitted."""
    app = App([it])
    await asyncio.gather(*(app.run(it, 1) for _ in range(calls)))
    return app.statuses[200]
