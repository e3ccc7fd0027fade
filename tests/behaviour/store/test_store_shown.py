"""Whether the store is shared: on the status page, in `/status.json`, in `gatepass status`, and in the log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.commands.status import show
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.seen import admin_port
from tests.kit.served import until
from tests.kit.valkey import block, store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def asked(url: str, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}{path}") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_the_status_shows_how_many_instances_share_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with store(tmp_path) as server:
        config = {**one_route(9), "store": block(server, keys=[f"{CANARY}-0123456789"])}
        async with running(config) as it, admin_port(it) as url:
            assert it.gateway.store is not None
            await it.gateway.store.tried.wait()
            data: dict[str, Any] = json.loads(await asked(url, "/status.json"))
            assert data["store"] | {"silence": 0} == {
                "server": f"127.0.0.1:{server.port}",
                "mode": "shared",
                "members": 1,
                "silence": 0,
                "reason": None,
            }
            assert f"shared store 127.0.0.1:{server.port}: 1 instance<" in await asked(url, "/status")
            show(data)
            assert f"shared store 127.0.0.1:{server.port}: 1 instance" in capsys.readouterr().out


async def test_the_page_shows_an_outage_with_its_reason_and_the_gateway_stays_ready(tmp_path: Path) -> None:
    async with (
        store(tmp_path) as server,
        running({**one_route(9), "store": block(server)}) as it,
        admin_port(it) as url,
    ):
        kept = it.gateway.store
        assert kept is not None
        await kept.tried.wait()
        await server.kill()
        await until(lambda: not kept.is_up, 5)
        data = json.loads(await asked(url, "/status.json"))
        assert (data["store"]["mode"], data["store"]["reason"]) == ("alone", "connection refused")
        assert "this instance works alone, because connection refused; last answer" in await asked(url, "/status")
        assert data["state"] == "ready"
        assert "ready" in await asked(url, "/readyz")
        [line] = [json.loads(line) for line in it.log.splitlines() if '"store_away"' in line]
        assert (line["level"], line["reason"]) == ("warning", "connection refused")
        assert line["store"] == f"127.0.0.1:{server.port}"


async def test_without_a_store_the_page_does_not_mention_one() -> None:
    async with running(one_route(9)) as it, admin_port(it) as url:
        assert json.loads(await asked(url, "/status.json"))["store"] is None
        assert "shared store" not in await asked(url, "/status")
        assert "\ngatepass_store_up " not in await asked(url, "/metrics")
