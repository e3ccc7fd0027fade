"""Converts a ServiceMonitor to a scrape job, as the Prometheus Operator does.

Follows `generateServiceMonitorConfig` of prometheus-operator (pkg/prometheus/promcfg.go), including the order of
relabelling. Discovery is replaced: the target has the `__meta_kubernetes_…` labels that Prometheus gives to a pod's
endpoint, taken from the rendered Service and Pod.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit.rendered import Rendered


def sanitized(name: str) -> str:
    """Return the name that discovery gives to a label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def scrape_configs(shipped: Rendered, address: str) -> list[dict[str, Any]]:
    """Return one job for each endpoint of each ServiceMonitor; every Service and port is discovered at `address`."""
    return [
        _job(monitor, index, endpoint, [_target(shipped, service, port, address) for service in shipped.all("Service")
                                        for port in service["spec"]["ports"]])
        for monitor in shipped.all("ServiceMonitor")
        for index, endpoint in enumerate(monitor["spec"]["endpoints"])
    ]  # fmt: skip


def _target(shipped: Rendered, service: dict[str, Any], port: Mapping[str, Any], address: str) -> dict[str, Any]:
    meta = service["metadata"]
    labels = {
        "__meta_kubernetes_namespace": meta["namespace"],
        "__meta_kubernetes_service_name": meta["name"],
        "__meta_kubernetes_endpoint_port_name": port["name"],
        "__meta_kubernetes_endpoint_address_target_kind": "Pod",
        "__meta_kubernetes_endpoint_address_target_name": "gatepass-7d9f-abcde",
        "__meta_kubernetes_pod_name": "gatepass-7d9f-abcde",
        "__meta_kubernetes_pod_container_name": shipped.container["name"],
        "__meta_kubernetes_pod_phase": "Running",
    }
    for key, value in meta["labels"].items():
        labels[f"__meta_kubernetes_service_label_{sanitized(key)}"] = value
        labels[f"__meta_kubernetes_service_labelpresent_{sanitized(key)}"] = "true"
    return {"targets": [address], "labels": labels}


def _job(monitor: dict[str, Any], index: int, endpoint: Mapping[str, Any], targets: list[Any]) -> dict[str, Any]:
    spec, meta = monitor["spec"], monitor["metadata"]
    relabel: list[dict[str, Any]] = [{"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}]
    for key, value in spec["selector"]["matchLabels"].items():
        label, present = (f"__meta_kubernetes_service_{kind}_{sanitized(key)}" for kind in ("label", "labelpresent"))
        relabel.append({"action": "keep", "source_labels": [label, present], "regex": f"({value});true"})
    relabel.append(
        {"action": "keep", "source_labels": ["__meta_kubernetes_endpoint_port_name"], "regex": endpoint["port"]}
    )
    for source, target in (
        ("namespace", "namespace"),
        ("service_name", "service"),
        ("pod_name", "pod"),
        ("pod_container_name", "container"),
    ):
        relabel.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target})
    relabel.append({"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"})
    relabel.append({"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job", "replacement": "${1}"})
    if "jobLabel" in spec:
        label = f"__meta_kubernetes_service_label_{sanitized(spec['jobLabel'])}"
        relabel.append({"source_labels": [label], "target_label": "job", "regex": "(.+)", "replacement": "${1}"})
    relabel.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    relabel += [
        {"target_label": each["targetLabel"], "replacement": each["replacement"]}
        for each in endpoint.get("relabelings", [])
    ]
    return {
        "job_name": f"serviceMonitor/{meta['namespace']}/{meta['name']}/{index}",
        "metrics_path": endpoint["path"],
        "relabel_configs": relabel,
        "static_configs": targets,
    }
