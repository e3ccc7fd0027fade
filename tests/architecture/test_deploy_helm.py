"""The Helm chart: the same objects as Kustomize makes, and values that are checked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway import __version__
from tests.kit.configuration import ROOT
from tests.kit.rendered import CHART, KUBERNETES, OPERATOR, SHIPPED, SMALL, helmed, kustomized
from tests.kit.tools import run, tool

if TYPE_CHECKING:
    from pathlib import Path


HELM_S_OWN = {
    "helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by",
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return an object without the labels that Helm adds, wherever they are, and the configuration as data."""
    if isinstance(value, dict):
        return {
            key: yaml.safe_load(each) if key == "config.yaml" else plain(each)
            for key, each in value.items()
            if key not in HELM_S_OWN
        }
    return [plain(each) for each in value] if isinstance(value, list) else value


def test_helm_and_kustomize_render_the_same(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "h").mkdir()
    ours = {
        (each["kind"], each["metadata"]["name"]): plain(each)
        for each in kustomized("prod", tmp_path / "k", OPERATOR).objects
        if each["kind"] != "Namespace"
    }
    theirs = {
        (each["kind"], each["metadata"]["name"]): plain(each) for each in SHIPPED["helm-prod"](tmp_path / "h").objects
    }
    assert theirs.keys() == ours.keys()
    for key, each in ours.items():
        assert theirs[key] == each, key


def test_the_dashboards_of_the_chart_are_those_of_grafana(tmp_path: Path) -> None:
    shipped = SHIPPED["helm-everything"](tmp_path)
    boards = {
        name.removeprefix("gatepass-"): text
        for each in shipped.all("ConfigMap")
        for name, text in each["data"].items()
        if name.endswith(".json")
    }
    ours = {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    assert {name: text.strip() for name, text in boards.items()} == {name: text.strip() for name, text in ours.items()}


def test_the_chart_passes_helm_s_linter() -> None:
    for values in sorted((CHART / "ci").glob("*.yaml")):
        more = ["--set-json", 'config.routes={"a":{}}']
        assert "0 chart(s) failed" in run(tool("helm"), "lint", "--strict", str(CHART), "-f", str(values), *more)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "config.routes is empty"),
        (SMALL | {"replica": 3}, "replica"),
        (SMALL | {"image": {"repository": "x", "digest": "sha256:12"}}, "digest"),
        (SMALL | {"secrets": {"source": "vault"}}, "source"),
        (SMALL | {"secrets": {"source": "csi"}}, "secretProviderClass"),
        (SMALL | {"secrets": {"source": "external"}}, "secretStoreRef"),
        (SMALL | {"networkPolicy": {"enabled": "yes"}}, "enabled"),
        (SMALL | {"extraVolumeMounts": [{"name": "a", "mountPath": "/b", "subPath": "c"}]}, "extraVolumeMounts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_named(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        helmed(tmp_path, values)


def test_the_schema_of_the_values_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def compare(schema: dict[str, Any], value: Any, where: str) -> None:
        if schema.get("additionalProperties") is False:
            assert schema["properties"].keys() - {"global"} == value.keys(), where
            for key, each in value.items():
                compare(schema["properties"][key], each, f"{where}.{key}")

    compare(schema, values, "values")


def test_the_chart_and_the_overlay_name_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    (image,) = yaml.safe_load((KUBERNETES / "overlays" / "prod" / "kustomization.yaml").read_text())["images"]
    assert chart["version"] == chart["appVersion"] == image["newTag"] == __version__
