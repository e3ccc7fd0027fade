"""Four real gateways with emulated vendors and one store, which fails in every way while apps send requests.

Tokens are valid for the whole test, so more than one token request per vendor is an error.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kit.faults import FaultProxy
from tests.kit.instances import all_show, call, instances, vendors, vendors_config
from tests.kit.served import Apps, Served, until
from tests.kit.valkey import Store, block, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.sandbox import Sandbox

NAMES = ("idfy", "akiba")
FOUR = 4


def requested(sandbox: Sandbox) -> int:
    return sum(sandbox.vendors[name].counters.token_requests for name in NAMES)


@asynccontextmanager
async def calling(fleet: list[Served]) -> AsyncIterator[list[Apps]]:
    """Send requests to every instance all the time; none of them may fail."""
    async with AsyncExitStack() as stack:
        apps = [
            await stack.enter_async_context(
                Apps(it.address, lambda number: f"/{NAMES[number % 2]}/sandbox/status/200", apps=2, pause=0.02)
            )
            for it in fleet
        ]
        yield apps
    assert [app.failures for app in apps] == [{}] * len(fleet)
    assert all(app.good > 50 for app in apps)


@pytest.mark.slow
async def test_no_fault_of_the_store_fails_a_request_or_costs_a_token_request(tmp_path: Path) -> None:
    async with vendors() as sandbox, store(tmp_path) as server, FaultProxy(server.port) as proxy:
        config = vendors_config(sandbox, NAMES, store=block(proxy.url))
        async with instances(tmp_path, FOUR, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", FOUR)
            assert requested(sandbox) == len(NAMES), "four instances that start at once"
            async with calling(fleet):
                for name in ("hangs", "refuses", "is slow", "is full", "is read-only", "ends"):
                    await break_it(name, server, proxy)
                    await all_show(fleet, "gatepass_store_up", 0)
                    assert {await it.readiness() for it in fleet} == {200}
                    await mend_it(name, server, proxy)
                    await all_show(fleet, "gatepass_store_up", 1)
                await server.command("FLUSHALL")
                await asyncio.sleep(2.5)
                assert len(await server.command("KEYS", "*:t")) == len(NAMES), "written again"
            assert requested(sandbox) == len(NAMES)
            for it in fleet:
                assert len(it.events("store_away")) == len(it.events("store_up")) - 1 >= 6
                assert "CANARY" not in it.text


async def break_it(name: str, server: Store, proxy: FaultProxy) -> None:
    if name == "hangs":
        proxy.hang()
    elif name == "refuses":
        await proxy.refuse()
    elif name == "is slow":
        proxy.delay = 2.0
    elif name == "is full":
        await server.command("CONFIG", "SET", "maxmemory", "1")
    elif name == "is read-only":
        await server.command("REPLICAOF", "127.0.0.1", "1")
    else:
        await server.kill()


async def mend_it(name: str, server: Store, proxy: FaultProxy) -> None:
    if name == "is full":
        await server.command("CONFIG", "SET", "maxmemory", "0")
    elif name == "is read-only":
        await server.command("REPLICAOF", "NO", "ONE")
    elif name == "ends":
        await server.start()
    else:
        await proxy.heal()


@pytest.mark.slow
async def test_requests_cause_hardly_any_commands_to_the_store(tmp_path: Path) -> None:
    """Fewer than 20 commands for 1,000 requests."""
    async with vendors() as sandbox, store(tmp_path) as server:
        config = vendors_config(sandbox, NAMES, store=block(server))
        async with instances(tmp_path, 2, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", 2)
            before = await sent(server)
            async with AsyncExitStack() as stack:
                path = "/idfy/sandbox/status/200"
                apps = [await stack.enter_async_context(Apps(it.address, path, apps=4, pause=0)) for it in fleet]
                await until(lambda: sum(app.good for app in apps) >= 2000, 60)
                after, calls = await sent(server), sum(app.good for app in apps)
            assert (after - before) / calls * 1000 < 20


async def sent(server: Store) -> int:
    """Return how many commands clients have sent so far; those inside a script are not counted again."""
    facts = await server.statistics()
    counts = {key: int(value.split(",")[0].removeprefix("calls=")) for key, value in facts.items() if "cmdstat_" in key}
    return sum(count for key, count in counts.items() if key in {"cmdstat_evalsha", "cmdstat_eval"})


@pytest.mark.slow
async def test_an_instance_with_another_store_key_works_alone_and_reports_it(tmp_path: Path) -> None:
    """It gives other names to the same things, so it never reads a record of another instance."""
    other = "CANARY-other-key-0123456789abcdefghij"
    async with vendors() as sandbox, store(tmp_path) as server:
        config = vendors_config(sandbox, NAMES, store=block(server))
        wrong = {"store": block(server, keys=[other])}
        async with instances(tmp_path, 2, config, sandbox.environ(), each=({}, wrong)) as fleet:
            await all_show(fleet, "gatepass_store_members", 2)
            assert [await call(it, "idfy") for it in fleet] == [200, 200]
            assert requested(sandbox) == 2 * len(NAMES), "each for itself, under a name of its own"
            for it in fleet:
                await all_show([it], "gatepass_store_strangers", 1)
                assert await it.metric('gatepass_store_mode{mode="alone"}') == 1
                assert await it.metric("gatepass_store_up") == 1
                assert (await it.seen("store_strangers"))["level"] == "warning"
                assert "CANARY" not in it.text


@pytest.mark.slow
async def test_a_gateway_starts_with_a_store_that_is_down_or_hangs(tmp_path: Path) -> None:
    async with vendors() as sandbox, store(tmp_path) as server:
        server.pause()
        config = vendors_config(sandbox, NAMES, store=block(server))
        async with instances(tmp_path, 2, config, sandbox.environ()) as fleet:
            assert [await call(it, "idfy") for it in fleet] == [200, 200]
            for it in fleet:
                await it.seen("store_away")
                assert len(it.events("store_away")) == 1
            server.go_on()
            await all_show(fleet, "gatepass_store_up", 1)
            await all_show(fleet, "gatepass_store_members", 2)
