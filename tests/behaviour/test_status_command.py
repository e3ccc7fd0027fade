"""`gatepass status` against a running gateway."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.commands.status import curve
from tests.kit.emulation import ask, emulated, warm
from tests.kit.gateway import CANARY
from tests.kit.seen import admin_port


async def status(*args: str) -> Result:
    """Run the command beside the gateway's loop."""
    return await asyncio.to_thread(CliRunner().invoke, main, ["status", *args])


async def test_it_shows_credentials_routes_and_what_to_do() -> None:
    async with emulated() as (it, sandbox), admin_port(it) as url:
        await warm(it)
        await ask(it, "uqudo")
        good = await status("--url", url)
        await sandbox.vendors["idfy"].set(token_fault="500")
        sandbox.vendors["idfy"].revoke()
        await ask(it, "idfy")
        bad = await status("--url", url)
        data = await status("--url", url, "--json")
    assert (good.exit_code, bad.exit_code, data.exit_code) == (0, 1, 1)
    assert all(name in good.output for name in sandbox.vendors)
    assert good.output.count("valid") == 4
    assert "unavailable" in bad.output
    assert "The token endpoint is down" in bad.output
    assert {each["name"] for each in json.loads(data.output)["routes"]} == set(sandbox.vendors)
    assert CANARY not in good.output + bad.output + data.output


async def test_nobody_listening_is_said_in_one_line() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        failed = await status("--url", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: no gateway answers at")


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [([0] * 60, " " * 10), ([0] * 57 + [1, 1, 1], " " * 9 + "█"), ([4, 4, 2, 1], "██▄▂")],
    ids=["nothing", "the last minute", "falling"],
)
def test_the_curve_is_as_high_as_the_requests_were_many(counts: list[int], drawn: str) -> None:
    assert curve(counts) == drawn
