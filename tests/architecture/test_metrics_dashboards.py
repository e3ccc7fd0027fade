"""Dashboards and declarations name the same metrics, and a dashboard can be imported anywhere."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml

from gateway.observe.metrics.families import FAMILIES

if TYPE_CHECKING:
    from types import ModuleType

GRAFANA = Path(__file__).parents[2] / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
LEFT_OUT: dict[str, str] = {}
"""Metrics on no dashboard, each with the reason."""

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",), "info": ("",)}
EXPOSED = {family.full_name + suffix: family for family in FAMILIES for suffix in SUFFIXES[family.kind]}
FROM_PROMETHEUS = {"job", "instance", "le", "version", "digest"}
KINDS = {"row", "timeseries", "stat", "state-timeline", "bargauge"}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def named(path: Path) -> set[str]:
    return set(re.findall(r"gatepass_[a-z_0-9]+", "\n".join(texts(load(path)))))


def queries(path: Path) -> list[str]:
    board = load(path)
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return asked + [each["expr"] for each in board["annotations"]["list"]]


def plain(query: str) -> str:
    """The query as Grafana sends it: variables filled in."""
    return re.sub(r"\$\{?[a-z]+\}?", ".*", query.replace("$__rate_interval", "1m").replace("$__range", "1h"))


def source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grafana_build", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["grafana_build"] = module
    spec.loader.exec_module(module)
    return module


every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_the_files_are_what_their_source_says() -> None:
    written = {path.name: path.read_text() for path in DASHBOARDS}
    assert written == source().texts(), "run: python grafana/build.py"


def test_there_are_three_and_each_leads_to_the_others() -> None:
    assert [path.stem for path in DASHBOARDS] == ["clients", "overview", "tokens"]
    names = {load(path)["uid"] for path in DASHBOARDS}
    for path in DASHBOARDS:
        board = load(path)
        assert {link["url"] for link in board["links"]} == {f"/d/{name}" for name in names - {board["uid"]}}


@every_dashboard
def test_every_metric_that_a_dashboard_names_exists(path: Path) -> None:
    assert named(path) <= EXPOSED.keys()


def test_every_metric_is_on_a_dashboard_or_left_out_for_a_reason() -> None:
    shown = {EXPOSED[name].full_name for path in DASHBOARDS for name in named(path) if name in EXPOSED}
    declared = {family.full_name for family in FAMILIES}
    assert declared - shown == LEFT_OUT.keys()
    assert all(LEFT_OUT.values())


@every_dashboard
def test_every_query_is_promql(path: Path) -> None:
    for query in queries(path):
        promql_parser.parse(plain(query))


@every_dashboard
def test_every_label_that_a_query_selects_by_or_shows_is_one_of_the_metric(path: Path) -> None:
    for query in queries(path):
        for name, selectors in re.findall(r"(gatepass_[a-z_0-9]+)\{([^}]*)\}", query):
            assert set(re.findall(r"([a-z_]+)\s*[=!]~?", selectors)) <= set(EXPOSED[name].labels), query
        for labels in re.findall(r"by \(([^)]*)\)", query):
            allowed = {label for name in re.findall(r"gatepass_[a-z_0-9]+", query) for label in EXPOSED[name].labels}
            assert set(labels.split(", ")) <= allowed | FROM_PROMETHEUS, query


@every_dashboard
def test_a_legend_names_labels_that_its_query_leaves(path: Path) -> None:
    for panel in load(path)["panels"]:
        for target in panel.get("targets", []):
            kept = {label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept | FROM_PROMETHEUS, target


@every_dashboard
def test_counters_are_read_as_rates(path: Path) -> None:
    for query in queries(path):
        for name in re.findall(r"gatepass_[a-z_0-9]+", query):
            if EXPOSED[name].kind in {"counter", "histogram"}:
                assert re.search(rf"(rate|increase)\({name}", query), query


@every_dashboard
def test_a_dashboard_brings_no_address_and_takes_its_data_source_from_a_variable(path: Path) -> None:
    dashboard = load(path)
    variables = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    used = set(re.findall(r"\$([a-z]+)", "\n".join(queries(path))))
    assert used <= variables.keys()
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), panel["title"]
    assert "http://" not in path.read_text()


@every_dashboard
def test_panels_have_an_id_and_a_place(path: Path) -> None:
    panels = load(path)["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] in KINDS
        refs = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(refs)) == len(refs)


DEEDS = (
    "act", "adapt", "ask", "compare", "find", "follow", "keep", "look", "lower", "make", "raise", "repair", "restrict",
    "read", "run", "see", "set", "slow", "tell", "check", "correct",
)  # fmt: skip
"""What a person can do who looks at a panel; every panel advises one of these."""


@every_dashboard
def test_every_panel_says_what_it_shows_and_what_to_do_when_that_looks_bad(path: Path) -> None:
    """In this order, apart from each other; the advice is something to be done, not one more description."""
    marker = source().TODO
    for panel in load(path)["panels"]:
        if panel["type"] == "row":
            continue
        shows, found, todo = panel["description"].partition(f"\n\n{marker}")
        assert found, panel["title"]
        assert shows.endswith("."), panel["title"]
        assert todo.endswith("."), panel["title"]
        assert set(re.findall(r"[a-z]+", todo.lower())) & set(DEEDS), f"{panel['title']}: {todo}"


@every_dashboard
def test_an_advice_leads_to_places_that_exist(path: Path) -> None:
    """The runbook's sections and the documents that panels name."""
    for panel in load(path)["panels"]:
        description = panel.get("description", "")
        for names in re.findall(r"[Ff]ollow the runbook, ([a-z ]+)", description):
            for name in names.split(" and "):
                assert name.replace(" ", "-") in anchors(RUNBOOK), f"{panel['title']}: {name}"
        for name in re.findall(r"docs/\w+\.md", description):
            assert (GRAFANA.parent / name).exists(), f"{panel['title']}: {name}"


@every_dashboard
def test_reloads_and_rotations_are_marked_on_every_dashboard(path: Path) -> None:
    """By a configuration that was loaded, by a secret that was changed, and by the next secret that took over."""
    notes = {note["name"]: note for note in load(path)["annotations"]["list"]}
    assert all(note["enable"] for note in notes.values())
    assert "gatepass_config_last_load_success_timestamp_seconds" in notes["Configuration loaded"]["expr"]
    rotated = notes["Secret rotated"]["expr"]
    assert 'gatepass_token_fetches_total{cause="rotated"}' in rotated
    assert 'gatepass_token_secret_in_use{secret="next"}' in rotated


# ------------------------------------------------------------------------------------------------------------ alerts

RULES = yaml.safe_load((GRAFANA / "alerts" / "gatepass.yaml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"] if "alert" in rule]
RUNBOOK = (GRAFANA.parent / "docs" / "runbook.md").read_text()


def anchors(page: str) -> set[str]:
    return {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^##+ (.+)$", page, re.MULTILINE)
    }


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_who_suffers_and_where_help_stands(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "impact", "runbook_url"}
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page == "https://gatepass.example/docs/runbook.md"
    assert anchor in anchors(RUNBOOK)
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(re.findall(r"gatepass_[a-z_0-9]+", rule["expr"])) <= EXPOSED.keys()


def test_the_address_of_the_runbook_is_an_argument_of_the_build() -> None:
    text = (GRAFANA / "alerts" / "gatepass.yaml").read_text()
    built = source().with_runbook_base(text, "https://wiki.example.com/gatepass/runbook")
    urls = [
        rule["annotations"]["runbook_url"]
        for group in yaml.safe_load(built)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(urls) == len(ALERTS)
    assert all(url.startswith("https://wiki.example.com/gatepass/runbook#") for url in urls)


def test_every_section_of_the_runbook_belongs_to_an_alert() -> None:
    assert {rule["annotations"]["runbook_url"].partition("#")[2] for rule in ALERTS} == anchors(RUNBOOK)


def test_every_alert_is_proved_to_fire_and_to_be_silent() -> None:
    files = [yaml.safe_load(path.read_text()) for path in (GRAFANA / "alerts").glob("*.test.yaml")]
    asked = [one for file in files for proof in file["tests"] for one in proof["alert_rule_test"]]
    for rule in ALERTS:
        of_it = [bool(one.get("exp_alerts")) for one in asked if one["alertname"] == rule["alert"]]
        assert of_it.count(True) >= 1, rule["alert"]
        assert of_it.count(False) >= 2, f"{rule['alert']}: silent before, and again afterwards"


def test_a_fresh_grafana_finds_the_dashboards() -> None:
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/gatepass.yaml").read_text())["providers"]
    [data_source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] in (GRAFANA / "README.md").read_text()
    assert data_source["type"] == "prometheus"
