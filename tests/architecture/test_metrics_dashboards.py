"""Dashboards and declarations name the same metrics, and a dashboard can be imported anywhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.observe.families import FAMILIES

DASHBOARDS = sorted((Path(__file__).parents[2] / "grafana" / "dashboards").glob("*.json"))
LEFT_OUT: dict[str, str] = {}
"""Metrics on no dashboard, each with the reason."""

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",), "info": ("",)}
EXPOSED = {family.full_name + suffix: family for family in FAMILIES for suffix in SUFFIXES[family.kind]}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def named(path: Path) -> set[str]:
    return set(re.findall(r"gatepass_[a-z_]+", "\n".join(texts(load(path)))))


def queries(path: Path) -> list[str]:
    return [target["expr"] for panel in load(path)["panels"] for target in panel.get("targets", [])]


every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_there_is_a_dashboard() -> None:
    assert [path.stem for path in DASHBOARDS] == ["overview"]


@every_dashboard
def test_every_metric_that_a_dashboard_names_exists(path: Path) -> None:
    assert named(path) <= EXPOSED.keys()


def test_every_metric_is_on_a_dashboard_or_left_out_for_a_reason() -> None:
    shown = {EXPOSED[name].full_name for path in DASHBOARDS for name in named(path) if name in EXPOSED}
    declared = {family.full_name for family in FAMILIES}
    assert declared - shown == LEFT_OUT.keys()
    assert all(LEFT_OUT.values())


@every_dashboard
def test_every_label_that_a_query_selects_by_or_shows_is_one_of_the_metric(path: Path) -> None:
    for query in queries(path):
        for name, selectors in re.findall(r"(gatepass_[a-z_]+)\{([^}]*)\}", query):
            assert set(re.findall(r"([a-z_]+)\s*[=!]~?", selectors)) <= set(EXPOSED[name].labels), query
        for labels in re.findall(r"by \(([^)]*)\)", query):
            allowed = {label for name in re.findall(r"gatepass_[a-z_]+", query) for label in EXPOSED[name].labels}
            assert set(labels.split(", ")) <= allowed | {"le", "version", "digest"}, query


@every_dashboard
def test_brackets_of_every_query_are_balanced_and_counters_are_read_as_rates(path: Path) -> None:
    for query in queries(path):
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]")), query
        for name in re.findall(r"gatepass_[a-z_]+", query):
            if EXPOSED[name].kind in {"counter", "histogram"}:
                assert re.search(rf"(rate|increase)\({name}", query), query


@every_dashboard
def test_a_dashboard_brings_no_address_and_takes_its_data_source_from_a_variable(path: Path) -> None:
    dashboard = load(path)
    variables = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), panel["title"]
    assert "http://" not in path.read_text()


@every_dashboard
def test_panels_have_ids_of_their_own_a_place_of_their_own_and_a_description(path: Path) -> None:
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
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
