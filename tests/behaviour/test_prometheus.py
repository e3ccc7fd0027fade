"""Every query of every panel and alert, on a real Prometheus that scrapes a gateway in trouble."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.kit.configuration import ROOT
from tests.kit.emulation import warm
from tests.kit.failing import TRACE, failing, make_failures
from tests.kit.metrics import scraped
from tests.kit.prometheus import PROGRAM, PROMTOOL, RULES, Prometheus, prometheus
from tests.kit.seen import admin_port

pytestmark = pytest.mark.skipif(
    PROGRAM is None or PROMTOOL is None, reason="no prometheus on this machine (Debian: apt install prometheus)"
)

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ACTIVE = {
    "GatepassTokenNotRenewed", "GatepassTokenEndpointFailing", "GatepassErrorBudgetBurnsFast",
    "GatepassErrorBudgetBurnsSlowly", "GatepassPoolExhausted", "GatepassBudgetNearlySpent", "GatepassConfigRefused",
    "GatepassTokensRefused", "GatepassCredentialRefused",
}  # fmt: skip
"""Alerts that our trouble raises within seconds; the others are proved by `promtool test rules`."""


@dataclass
class Asked:
    """A query of a panel, with the labels that its legend shows."""

    where: str
    query: str
    legend: set[str]


def asked() -> list[Asked]:
    found = []
    for path in DASHBOARDS:
        board: dict[str, Any] = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                found.append(Asked(f"{path.stem}: {panel['title']}", filled(target["expr"]), legend))
        notes = board["annotations"]["list"]
        found += [Asked(f"{path.stem}: {note['name']}", filled(note["expr"]), set()) for note in notes]
    return found


def filled(query: str) -> str:
    """The query as Grafana sends it."""
    return re.sub(r"\$[a-z]+", ".*", query.replace("$__rate_interval", "10s").replace("$__range", "10s"))


def selectors(expr: str) -> list[str]:
    return [name + (labels or "") for name, labels in re.findall(r"(gatepass[a-z_:0-9]+|up)(\{[^}]*\})?", expr)]


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROMTOOL or "", *arguments], input=text, text=True, capture_output=True, check=False, timeout=240
    )


async def answers(prom: Prometheus) -> tuple[list[str], list[str], list[str], set[str]]:
    """Return the queries without an answer, odd answers, selectors of alerts without a series, and active alerts."""
    silent, odd = [], []
    for one in asked():
        said = await prom.ask(one.query)
        if not said:
            silent.append(f"{one.where}: {one.query}")
        for labels, value in said:
            if not one.legend <= labels.keys() or not (
                math.isfinite(value) or "quantile" in one.query or "/" in one.query
            ):
                odd.append(f"{one.where}: {labels} {value}")
    missing = [
        f"{rule.get('alert')}: {selector}"
        for rule in ALERTS
        for selector in selectors(rule["expr"])
        if not await prom.ask(selector) and "upstream_busy" not in selector
    ]
    active = {alert["labels"]["alertname"] for alert in (await prom.get("alerts"))["alerts"]}
    return silent, odd, missing, active


@pytest.mark.slow
async def test_every_query_of_every_panel_and_alert_has_an_answer() -> None:
    """One stage for all of them: a Prometheus takes a second to start, and rates want a few scrapes."""
    async with failing() as (it, sandbox), admin_port(it) as url, prometheus(url.removeprefix("http://")) as prom:
        await warm(it)
        await make_failures(it, sandbox)
        await prom.until("gatepass:failed:ratio_rate1h > 0.02")
        await prom.until(
            'gatepass_client_budget_used / on (client, route, per) gatepass_client_budget_limit{level="hard"} > 0.9'
        )
        for _ in range(30):  # a Prometheus that had no time to scrape twice knows no rates yet
            await asyncio.sleep(1)
            silent, odd, missing, active = await answers(prom)
            if not silent and not missing and active >= ACTIVE:
                break
        exemplars = await prom.get(
            "query_exemplars", query="gatepass_request_duration_seconds_bucket", start="0", end="9999999999"
        )
    assert silent == []
    assert odd == []
    assert missing == []
    assert active >= ACTIVE
    assert {each["labels"]["trace_id"] for found in exemplars for each in found["exemplars"]} == {TRACE}


async def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    async with failing() as (it, _):
        await warm(it)
        await asyncio.sleep(0.5)  # of calls of all kinds
        text = scraped(it.gateway.metrics)
    checked = promtool("check", "metrics", text=text)
    ours = [line for line in checked.stderr.splitlines() if line.startswith("gatepass")]
    assert ours == []
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_each_alert_fires_and_clears() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    proved = promtool("test", "rules", *map(str, sorted(RULES.parent.glob("*.test.yaml"))))
    assert proved.returncode == 0, proved.stdout + proved.stderr
