"""The sandbox behind somebody's own configuration, and what can be practised with it."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from gateway.cli import main
from gateway.commands.play import sandbox as command
from gateway.config import load, outline
from gateway.sandbox import Sandbox
from tests.kit.configuration import ROOT
from tests.kit.emulation import ask, emulated, warm
from tests.kit.rest import until

if TYPE_CHECKING:
    from collections.abc import Iterable

OWN = """\
clients: [{name: web, key_sha256: 0f3a6d1b9c8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a}]
credentials:
  signing: {profile: idfy, client_id: "${MY_ID}", client_secret: "${file:/run/secrets/idfy}", scope: document_read}
  new-host: {profile: idfy-signicat, client_id: a, client_secret: "${MY_SECRET}", scope: document_read}
  ssi: {profile: hypersign, api_secret_key: "${file:/nowhere}"}
  kyc: {profile: hypersign, api_secret_key: "${ABSENT}"}
  orders: {static: {token: "${ORDERS:-CANARY}"}}
routes:
  sign: {credential: signing}
  sign2: {credential: new-host}
  ssi: {credential: ssi}
  kyc:
    upstream: https://api.cavach.hypersign.id
    inject: [{header: x-kyc-access-token, credential: kyc}, {header: x-ssi-access-token, credential: ssi}]
  orders: {credential: orders, upstream: "https://orders.example"}
"""


async def test_the_overlay_makes_a_configuration_work_without_a_secret_of_its_own(
    tmp_path: Path,
) -> None:
    own, over = tmp_path / "config.yaml", tmp_path / "sandbox.yaml"
    own.write_text(OWN)
    async with Sandbox() as sandbox:
        sketch = outline([own])
        over.write_text(sandbox.overlay_for(sketch.profiles, sketch.routes))
        config = load([own, over], environ={})
        upstreams = {route.name: f"{route.upstream.scheme}://{route.upstream.authority}" for route in config.routes}
        vendors = sandbox.vendors
        assert upstreams == {
            "sign": vendors["idfy"].base_url,
            "sign2": vendors["idfy"].base_url,
            "ssi": sandbox.hypersign.base_url,
            "kyc": sandbox.hypersign.kyc_url,
            "orders": "https://orders.example",
        }
        assert config.credentials["kyc"].grants != config.credentials["ssi"].grants, "each service has its own secret"
        assert config.credentials["signing"].grants[0].request.url == vendors["idfy"].token_url
        assert "orders" not in yaml.safe_load(over.read_text())["credentials"]


def test_the_command_prints_what_to_start_and_keeps_its_file_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.sandbox import run

    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(OWN)
    monkeypatch.setattr(run, "until_signal", ended)
    result = CliRunner().invoke(command, ["-c", "config.yaml", "-o", "sandbox.yaml"])
    assert result.exit_code == 0, result.output
    assert "gatepass serve -c config.yaml -c sandbox.yaml" in result.output
    assert "not emulated  orders" in result.output
    assert "curl http://127.0.0.1:8080/sign/sandbox/echo" in result.output
    assert stat.S_IMODE(Path("sandbox.yaml").stat().st_mode) == 0o600
    assert "CANARY" not in result.output


def test_an_overlay_replaces_only_an_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.sandbox import run

    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(OWN)
    Path("empty").touch()
    Path("folder").mkdir()
    Path("link").symlink_to("config.yaml")
    os.mkfifo("pipe")
    monkeypatch.setattr(run, "until_signal", ended)
    for name in ("config.yaml", "empty", "link", "pipe"):
        refused = CliRunner().invoke(main, ["sandbox", "-c", "config.yaml", "-o", name])
        assert refused.exit_code == 1
        assert f"{name} exists and is no overlay of the sandbox; it is left as it is" in refused.output
        assert "hypersign" not in refused.output, "nothing started"
    assert Path("config.yaml").read_text() == OWN
    assert Path("empty").read_text() == ""
    assert Path("link").is_symlink()
    for name in ("folder", "nowhere/x"):
        assert CliRunner().invoke(main, ["sandbox", "-c", "config.yaml", "-o", name]).exit_code in (1, 2)
    written = set()
    for _ in range(2):
        assert CliRunner().invoke(main, ["sandbox", "-c", "config.yaml", "-o", "over.yaml"]).exit_code == 0
        written.add(Path("over.yaml").read_text())
    assert len(written) == 2, "each sandbox has its own addresses and secrets"


class ended:  # noqa: N801 - stands for the context manager `until_signal`
    """A sandbox that is told to end as soon as it has started."""

    def __enter__(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "x.yaml"], "--output needs --config"),
        (["-c", "nowhere.yaml"], "nowhere.yaml"),
        (["--port", "70000"], "65526"),
        (["--port", "65530"], "65526"),
        (["--port", "-1"], "65526"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *arguments])
    assert result.exit_code != 0
    assert says in result.output
    assert "Traceback" not in result.output


async def test_a_rotation_can_be_practised_with_the_control_port() -> None:
    """The drill of docs/operations.md: the next secret is configured, then the vendor replaces the old one."""
    async with emulated(uqudo={"next_client_secret": "CANARY-new"}) as (it, sandbox), aiohttp.ClientSession() as http:
        await warm(it)
        vendor = sandbox.vendors["uqudo"]
        async with http.post(f"{vendor.control_url}/rotate", json={"client_secret": "CANARY-new"}) as answer:
            assert answer.status == 200
            assert "CANARY" not in await answer.text()
        assert (await ask(it, "uqudo"))[0] == 200
        vendor.revoke("all")
        assert (await ask(it, "uqudo"))[0] == 200
        await until(lambda: {each.name: each.secret for each in it.gateway.tokens.status()}["uqudo"] == "next")
    assert "CANARY-new" not in it.log


@pytest.mark.parametrize("body", [{}, {"nothing": "x"}, {"client_secret": ""}, {"client_secret": 1}])
async def test_a_rotation_names_its_mistakes_and_changes_nothing(body: dict[str, object]) -> None:
    async with Sandbox() as sandbox, aiohttp.ClientSession() as http:
        vendor = sandbox.vendors["uqudo"]
        before = dict(vendor.credentials)
        async with http.post(f"{vendor.control_url}/rotate", json=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["errors"]
        assert vendor.credentials == before


def paths(resources: Iterable[str]) -> set[str]:
    return {path for path in resources if not path.startswith("/sandbox/")}


async def test_the_page_lists_every_path_of_every_vendor() -> None:
    page = (ROOT / "docs" / "sandbox.md").read_text().partition("## Paths of")[2]
    listed = {re.sub(r"^\w+ ", "", each) for each in re.findall(r"`([^`\n]+)`", page)}
    profile = yaml.safe_load((ROOT / "gateway" / "config" / "profiles" / "idfy.yaml").read_text())
    sandbox = Sandbox()
    for vendor in sandbox.vendors.values():
        served = {getattr(route, "path", "") for route in vendor.api_routes()}
        assert paths(served) - set(profile["route"]["paths"]) <= listed, vendor.name


async def test_the_emulated_vendor_answers_every_path_that_its_profile_lists() -> None:
    profile = yaml.safe_load((ROOT / "gateway" / "config" / "profiles" / "idfy.yaml").read_text())
    scope = {"scope": "document_read document_write document_file event identify"}
    async with emulated(idfy=scope) as (it, _):
        await warm(it)
        for template in profile["route"]["paths"]:
            path = re.sub(r"\{\w+\}", "7", template)
            assert (await ask(it, "idfy", path))[0] == 200, path
