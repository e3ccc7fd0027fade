"""Shared tokens in real processes: the emulated vendors count the token requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.kit.instances import all_show, call, instances, vendors, vendors_config
from tests.kit.served import Served, until
from tests.kit.valkey import block, store

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.sandbox import Sandbox

VENDORS = ("idfy", "akiba", "uqudo", "hypersign", "idfy-signicat")
PATH = "/sandbox/status/200"


def requests(sandbox: Sandbox, name: str) -> int:
    return sandbox.vendors[name].counters.token_requests


async def fingerprints(fleet: list[Served], name: str) -> set[str | None]:
    found = set()
    for it in fleet:
        _, text = await it.ask("/status.json")
        found |= {each["fingerprint"] for each in json.loads(text)["credentials"] if each["name"] == name}
    return found


async def agree(fleet: list[Served], name: str, seconds: float = 15.0) -> None:
    """Wait until all instances use one token."""
    async with asyncio.timeout(seconds):
        while len(found := await fingerprints(fleet, name)) != 1 or None in found:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_every_vendor_gets_one_request_at_the_start_and_one_after_a_revocation(tmp_path: Path) -> None:
    async with vendors() as sandbox, store(tmp_path) as server:
        names = [name for name in VENDORS if name in sandbox.vendors]
        config = vendors_config(sandbox, names, store=block(server))
        async with instances(tmp_path, 4, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", 4)
            assert {name: requests(sandbox, name) for name in names} == dict.fromkeys(names, 1)
            for name in names:
                assert [await call(it, name) for it in fleet] == [200] * 4
                await agree(fleet, name)
                sandbox.vendors[name].revoke()
                assert await asyncio.gather(*(call(it, name) for it in fleet)) == [200] * 4
                await agree(fleet, name)
            assert {name: requests(sandbox, name) for name in names} == dict.fromkeys(names, 2)
            for it in fleet:
                assert "CANARY" not in it.text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["paused", "killed"])
async def test_a_killed_or_stopped_lease_holder_delays_the_next_request_by_one_lease_at_most(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with vendors() as sandbox, store(tmp_path) as server:
        vendor = sandbox.vendors["idfy"]
        config = vendors_config(sandbox, ["idfy"], store=block(server))
        async with instances(tmp_path, 2, config, sandbox.environ()) as (holder, other):
            assert [await call(it, "idfy") for it in (holder, other)] == [200, 200]
            await agree([holder, other], "idfy")
            await vendor.set(latency=2.0)
            vendor.revoke()
            asking = asyncio.create_task(call(holder, "idfy"))
            await until(lambda: requests(sandbox, "idfy") == 2, 10)
            holder.signal(number)
            await vendor.set(latency=0.0)
            began = time.monotonic()
            assert await call(other, "idfy") == 200
            assert time.monotonic() - began < 3.0 + 1.5
            assert requests(sandbox, "idfy") == 3
            if number == signal.SIGSTOP:
                await asyncio.sleep(2)  # meanwhile its token request is answered
                holder.signal(signal.SIGCONT)
                await agree([holder, other], "idfy")
                assert await call(holder, "idfy") == 200
                assert requests(sandbox, "idfy") == 3
            with suppress(Exception):
                await asking


@pytest.mark.slow
async def test_reload_upgrade_and_a_rolling_restart_cost_no_token_request(tmp_path: Path) -> None:
    async with vendors() as sandbox, store(tmp_path) as server:
        config = vendors_config(sandbox, ["idfy", "uqudo"], store=block(server))
        async with instances(tmp_path, 2, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", 2)
            for it in fleet:
                it.write({**config, "token_timeout": "6s"})
                it.signal(signal.SIGHUP)
                await it.seen("reloaded")
            fleet[0].signal(signal.SIGUSR2)
            await fleet[0].seen("stopped")
            assert [await call(it, "idfy") for it in fleet] == [200, 200]
            fleet[1].signal(signal.SIGTERM)
            await fleet[1].end()
            await fleet[1].start()
            assert await call(fleet[1], "uqudo") == 200
            await agree(fleet, "uqudo")
            assert (requests(sandbox, "idfy"), requests(sandbox, "uqudo")) == (1, 1)
            successor = fleet[0].events("stopped")[-1]["successor"]
            with suppress(ProcessLookupError):
                os.kill(successor, signal.SIGKILL)
