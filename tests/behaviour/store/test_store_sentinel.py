"""A store behind Sentinel: fail-over, an old master that comes back, Sentinels that hang or do not know the name."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.errors import StoreAway
from gateway.model import Address, Secret, StoreConfig, StoreServer
from gateway.store.look import look
from tests.kit.instances import all_show, instances, vendors, vendors_config
from tests.kit.ports import free_port
from tests.kit.served import Apps, until
from tests.kit.storeclient import COUNT, client
from tests.kit.valkey import STORE_KEY, Guarded, block, command, guarded

if TYPE_CHECKING:
    from pathlib import Path


def by_sentinel(*ports: int, master: str = "mymaster") -> StoreConfig:
    addresses = tuple(Address("127.0.0.1", port) for port in ports)
    return StoreConfig(StoreServer(addresses, master=master), (Secret(STORE_KEY),))


async def counted(it: Guarded) -> bytes | None:
    """Return the value of the test's counter on the present master."""
    found: bytes | None = await command(await it.master(), "GET", "gp1:gatepass:n")
    return found


@pytest.mark.slow
async def test_a_fail_over_is_a_short_outage_and_an_old_master_is_not_used(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it, client(by_sentinel(*it.sentinels)) as store:
        assert store.is_up
        old = await it.master()
        assert await store.run(COUNT, [store.key("n")], []) == 1
        await it.fail_over()
        async with asyncio.timeout(30):
            while (await command(old, "ROLE"))[0] != b"slave":  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
            while True:  # a write to the old master fails, and then the new one is used
                try:
                    await store.run(COUNT, [store.key("n")], [])
                    break
                except StoreAway:
                    await asyncio.sleep(0.1)
        assert await counted(it) is not None
        await until(lambda: store.is_up, 10)
        await store.beat()
        findings = await look(by_sentinel(*it.sentinels))
        assert findings.members == 1


@pytest.mark.slow
async def test_after_the_master_dies_its_replica_is_used(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it, client(by_sentinel(*it.sentinels)) as store:
        old = await it.master()
        [dead] = [server for server in it.servers if server.port == old]
        await dead.kill()
        await until(lambda: not store.is_up, 10)
        await it.another_than(old)
        await until(lambda: store.is_up, 20)
        await dead.start()
        await asyncio.sleep(2)
        assert store.is_up
        assert await store.run(COUNT, [store.key("n")], []) >= 1
        assert await counted(it) is not None


async def test_one_sentinel_that_answers_is_enough_if_the_others_hang_or_are_down(tmp_path: Path) -> None:
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()  # and never accept
        async with guarded(tmp_path, sentinels=2) as it:
            ports = (hung.getsockname()[1], free_port(), *it.sentinels)
            async with client(by_sentinel(*ports)) as store:
                await until(lambda: store.is_up, 10)


async def test_a_name_that_no_sentinel_knows_is_reported(tmp_path: Path) -> None:
    async with guarded(tmp_path, sentinels=2) as it:
        with pytest.raises(StoreAway, match=r"no Sentinel names the server other: it does not know that name"):
            await look(by_sentinel(*it.sentinels, master="other"))
    with pytest.raises(StoreAway, match=r"no Sentinel names the server mymaster: connection refused"):
        await look(by_sentinel(free_port()))


@pytest.mark.slow
async def test_a_fail_over_under_load_fails_no_request_and_costs_no_token_request(tmp_path: Path) -> None:
    async with vendors() as sandbox, guarded(tmp_path) as it:
        config = vendors_config(sandbox, ["idfy"], store=block(it.url))
        async with instances(tmp_path, 3, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", 3)
            async with Apps(fleet[0].address, "/idfy/sandbox/status/200") as apps:
                await it.fail_over()
                await asyncio.sleep(3)
                await all_show(fleet, "gatepass_store_up", 1)
                await all_show(fleet, "gatepass_store_members", 3)
            assert not apps.failures
            assert sandbox.vendors["idfy"].counters.token_requests == 1
            async with asyncio.timeout(20):  # the new master may not have got it: instances write it again
                while len(await command(await it.master(), "KEYS", "gp1:gatepass:{*}:t")) != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
