"""Budgets of several real gateways: the vendor never gets a call too many, even if a gateway or the store dies."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.budgets import App, counting_together, reach
from tests.kit.served import until
from tests.kit.valkey import store

if TYPE_CHECKING:
    from pathlib import Path

USED = 'gatepass_client_budget_used{client="web",route="v",per="day"}'
GRANTED = 'gatepass_store_budget_granted{client="web",route="v",per="day"}'


def budget(hard: int | str, **more: Any) -> dict[str, Any]:
    return {"budgets": [{"route": "v", "per": "day", "hard": hard, **more}]}


@pytest.mark.slow
async def test_four_gateways_under_load_use_up_a_budget_and_never_exceed_it(tmp_path: Path) -> None:
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 4, budget("500 EUR", soft="400 EUR")) as (made, witness, app),
    ):
        good = await app.load(2000)
        assert good == witness.billed
        assert 1000 - 4 <= good <= 1000
        await reach(made, USED, good)
        assert sum([await it.metric(GRANTED) for it in made]) == 1000
        warnings = [event for it in made for event in it.events("budget_soft_limit")]
        assert 1 <= len(warnings) <= 4
        assert all(each["used"] >= 800 for each in warnings)
        usage = [json.loads((await it.ask("/usage.json"))[1]) for it in made]
        assert {(each["totals"][0]["billed"], each["totals"][0]["cost"]) for each in usage} == {
            (good, f"{good / 2:.2f}")
        }
        assert all(each["complete"] for each in usage)


async def test_after_kill_9_and_a_flush_the_calls_differ_from_the_budget_by_at_most_a_chunk_each(
    tmp_path: Path,
) -> None:
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 3, budget(640)) as (made, witness, app),
    ):
        assert await app.load(20, apps=2) == 120
        made[0].signal(signal.SIGKILL)
        await made[0].end()
        load = asyncio.create_task(asyncio.wait_for(App(made[1:]).load(2000), 60))
        await until(lambda: witness.billed >= 250)
        await server.command("FLUSHALL")
        await load
        assert 640 - 2 * 40 <= witness.billed <= 640 + 2 * 40
