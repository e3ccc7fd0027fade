"""Planes on the status page, in `/status.json` and in `gatepass status`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.commands.status import show
from tests.kit.clock import FakeClock
from tests.kit.gateway import one_route, running
from tests.kit.planes import KEY, ask, asked_gateway
from tests.kit.seen import admin_port

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def asked(url: str, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}{path}") as answer:
        assert answer.status == 200
        return await answer.text()


def config(folder: Path) -> dict[str, Any]:
    made = asked_gateway(folder)
    push = {"kind": "envoy-sds", "directory": str(folder / "sds"), "credentials": ["key"]}
    made["planes"]["push"] = {"envoy": push}
    return made


async def test_each_plane_is_shown_with_its_last_question_or_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(config(tmp_path)) as it, admin_port(it) as url:
        await ask(tmp_path, "/ask/v/v/x", KEY)
        await ask(tmp_path, "/ask/v/v/x")
        await FakeClock().until(lambda: it.metric("gatepass_plane_token_pushed", plane="envoy", credential="key"))
        data = json.loads(await asked(url, "/status.json"))
        edge, envoy = data["planes"]
        assert (edge["name"], edge["kind"], edge["refusals"]) == ("edge", "ask", 1)
        assert (envoy["name"], envoy["kind"], envoy["state"], envoy["problems"]) == ("envoy", "push", "ok", [])
        assert all(0 <= time.time() - last < 60 for last in (edge["asked"], envoy["pushed"]))
        page = await asked(url, "/status")
        assert page.index(">edge<") < page.index(">envoy<")
        show(data)
        assert "Other proxies" in capsys.readouterr().out


async def test_a_push_that_fails_is_shown_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sds").mkdir(mode=0o755)
    async with running(config(tmp_path)) as it, admin_port(it) as url:
        await FakeClock().until(lambda: it.metric("gatepass_plane_pushes_total", plane="envoy", outcome="failed"))
        data = json.loads(await asked(url, "/status.json"))
        assert data["planes"][1]["state"] == "failing"
        assert "chmod 0750" in await asked(url, "/status")
        show(data)
        assert "chmod 0750" in capsys.readouterr().out


async def test_without_planes_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(one_route(9)) as it, admin_port(it) as url:
        assert "Other proxies" not in await asked(url, "/status")
        show(json.loads(await asked(url, "/status.json")))
        assert "Other proxies" not in capsys.readouterr().out
