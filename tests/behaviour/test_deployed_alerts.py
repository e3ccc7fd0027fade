"""The alerts as each deployment loads them, on a real Prometheus with the jobs that this deployment scrapes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kit.configuration import ROOT
from tests.kit.gateway import one_route, running
from tests.kit.operator import scrape_configs
from tests.kit.prometheus import PROGRAM, RULES, Prometheus, configured
from tests.kit.rendered import CHART, OPERATOR, Rendered, helmed, kustomized
from tests.kit.seen import admin_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no prometheus on this machine (Debian: apt install prometheus)"
)

COMPOSE = ROOT / "deploy" / "compose"
ALERTS = {
    rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
}


def of_kubernetes(shipped: Rendered, folder: Path, address: str) -> dict[str, Any]:
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(shipped.one("PrometheusRule")["spec"]))
    return {"rule_files": [str(rules)], "scrape_configs": scrape_configs(shipped, address)}


def by_kustomize(folder: Path, address: str) -> dict[str, Any]:
    return of_kubernetes(kustomized("prod", folder, OPERATOR), folder, address)


def by_helm(folder: Path, address: str) -> dict[str, Any]:
    """With a nameOverride, which changes the label that names the job."""
    return of_kubernetes(helmed(folder, {}, CHART / "ci" / "everything-values.yaml", release="x"), folder, address)


def by_compose(_: Path, address: str) -> dict[str, Any]:
    """Each path as the container sees it, back through the mounts."""
    service = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["prometheus"]
    mounts = {target: source for source, target, *_ in (volume.split(":") for volume in service["volumes"])}
    config = yaml.safe_load((COMPOSE / mounts["/etc/prometheus"] / "prometheus.yml").read_text())
    found = []
    for rule in config["rule_files"]:
        where = next(target for target in sorted(mounts, key=len, reverse=True) if rule.startswith(f"{target}/"))
        found.append(str(COMPOSE / mounts[where] / rule.removeprefix(f"{where}/")))
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gatepass:9090"]}]
    return {"rule_files": found, "scrape_configs": [job | {"static_configs": [{"targets": [address]}]}]}


async def down(prom: Prometheus) -> set[str]:
    """The states of GatepassDown: none, pending or firing."""
    return {
        each["state"] for each in (await prom.get("alerts"))["alerts"] if each["labels"]["alertname"] == "GatepassDown"
    }


async def until_down_is(prom: Prometheus, states: set[str]) -> None:
    async with asyncio.timeout(30):
        while await down(prom) != states:  # noqa: ASYNC110 - Prometheus tells nobody
            await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("deployed", [by_kustomize, by_helm, by_compose])
async def test_gatepass_down_is_silent_while_it_runs_and_begins_when_it_stops(deployed: Any, tmp_path: Path) -> None:
    async with running(one_route(1)) as it, AsyncExitStack() as admin:
        url = await admin.enter_async_context(admin_port(it))
        async with configured(deployed(tmp_path, url.removeprefix("http://"))) as prom:
            loaded = {rule["name"] for group in (await prom.get("rules"))["groups"] for rule in group["rules"]}
            assert loaded >= ALERTS
            await prom.until('up{job="gatepass"} == 1', 30)
            await until_down_is(prom, set())
            await admin.aclose()
            await until_down_is(prom, {"pending"})
