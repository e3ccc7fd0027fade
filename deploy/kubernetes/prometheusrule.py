"""Write the PrometheusRule of the component prometheus-operator from grafana/alerts/gatepass.yaml.

`python deploy/kubernetes/prometheusrule.py`. Kustomize reads no file outside its own folders, and a rule file is not a
Kubernetes object. A test compares the result.
"""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "grafana" / "alerts" / "gatepass.yaml"
TARGET = ROOT / "deploy" / "kubernetes" / "components" / "prometheus-operator" / "prometheusrule.yaml"
HEAD = (
    "# Made from grafana/alerts/gatepass.yaml by deploy/kubernetes/prometheusrule.py. Edit that file, not this one.\n"
)


def text() -> str:
    """Return the object as YAML."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gatepass"},
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=200, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
