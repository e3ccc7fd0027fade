"""What Kustomize and Helm render for Kubernetes: valid, hardened, reachable, and the same from both."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.config import load
from tests.kit.configuration import ROOT
from tests.kit.policies import Pod, allows
from tests.kit.rendered import CILIUM, KUBERNETES, SHIPPED, Rendered, kustomized, schema_problems

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("1.30.0", "1.34.0", "1.37.0")
"""Of Kubernetes."""


@pytest.fixture(scope="module", params=list(SHIPPED))
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return SHIPPED[request.param](tmp_path_factory.mktemp(request.param))


def gateway_pod(shipped: Rendered) -> Pod:
    return Pod(shipped.pod["metadata"]["labels"], shipped.one("Deployment")["metadata"]["namespace"])


def test_every_object_is_valid_for_three_versions_of_kubernetes(shipped: Rendered) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    assert len(shipped.objects) >= 7
    assert {version: schema_problems(shipped, version) for version in VERSIONS} == {version: [] for version in VERSIONS}


def test_every_object_is_in_one_namespace_and_named_once(shipped: Rendered) -> None:
    named = [(each["kind"], each["metadata"]["name"]) for each in shipped.objects]
    assert len(named) == len(set(named))
    spaces = {each["metadata"].get("namespace") for each in shipped.objects if each["kind"] != "Namespace"}
    assert spaces == {gateway_pod(shipped).namespace}
    for namespace in shipped.all("Namespace"):
        assert spaces == {namespace["metadata"]["name"]}
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# -------------------------------------------------------------------------------------------------------------- network


DNS = {
    "kube-dns": Pod({"k8s-app": "kube-dns", "pod-template-hash": "x"}, "kube-system"),
    "CoreDNS of its chart": Pod({"k8s-app": "coredns"}, "kube-system"),
    "NodeLocal DNSCache as a pod": Pod({"k8s-app": "node-local-dns"}, "kube-system"),
    "NodeLocal DNSCache on the node": "169.254.20.10",
    "the DNS service's own address": "10.96.0.10",
    "DNS on an IPv6 service address": "fd00:10:96::a",
}


@pytest.mark.parametrize("server", DNS.values(), ids=DNS)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_dns_is_reached(shipped: Rendered, server: Pod | str, protocol: str) -> None:
    assert allows(shipped.all("NetworkPolicy"), gateway_pod(shipped), "Egress", server, 53, protocol=protocol)


@pytest.mark.parametrize(
    "other",
    [
        Pod({"app": "database"}, "kube-system"),
        Pod({"k8s-app": "kube-dns"}, "elsewhere"),
        "203.0.113.9",
        "2001:db8::1",
    ],
    ids=str,
)
def test_no_other_pod_and_no_public_address_is_asked_for_names(shipped: Rendered, other: Pod | str) -> None:
    assert not allows(shipped.all("NetworkPolicy"), gateway_pod(shipped), "Egress", other, 53, protocol="UDP")


@pytest.mark.parametrize(
    ("address", "port", "reached"),
    [
        ("203.0.113.9", 443, True),
        ("2001:db8::1", 443, True),
        ("203.0.113.9", 80, False),
        ("10.0.0.9", 443, False),
        ("192.168.1.1", 443, False),
        ("169.254.169.254", 443, False),
        ("169.254.169.254", 80, False),
        ("fd00:ec2::254", 443, False),
        ("fe80::1", 443, False),
        ("::1", 443, False),
    ],
)
def test_the_way_out_is_https_to_public_addresses(shipped: Rendered, address: str, port: int, reached: bool) -> None:
    if "CiliumNetworkPolicy" in shipped.kinds():
        reached = False  # the vendors' hosts alone, and those are in Cilium's own policy
    assert allows(shipped.all("NetworkPolicy"), gateway_pod(shipped), "Egress", address, port) is reached


def test_apps_reach_the_data_port_and_prometheus_the_admin_port(shipped: Rendered) -> None:
    policies, pod = shipped.all("NetworkPolicy"), gateway_pod(shipped)
    ports = {each["name"]: each["containerPort"] for each in shipped.container["ports"]}
    peers = {
        "neighbour": Pod({"app": "shop"}, pod.namespace),
        "client": Pod({"app": "shop"}, "shop", {"gatepass-client": "true"}),
        "stranger": Pod({"app": "shop"}, "other"),
        "monitoring": Pod({"app": "prometheus"}, "monitoring"),
    }
    reach = {
        (who, port): allows(policies, pod, "Ingress", peer, ports[port])
        for who, peer in peers.items()
        for port in ("http", "admin")
    }  # fmt: skip
    assert {each for each, reached in reach.items() if reached} == {
        ("neighbour", "http"),
        ("client", "http"),
        ("monitoring", "admin"),
    }


def test_everything_that_selects_pods_selects_the_gateway_s_and_nothing_adds_to_a_peer(shipped: Rendered) -> None:
    labels = shipped.pod["metadata"]["labels"].items()
    selectors = [shipped.one("Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in shipped.all("Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in shipped.all("PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in shipped.all("NetworkPolicy")]
    selectors += [each["labelSelector"]["matchLabels"] for each in shipped.pod["spec"]["topologySpreadConstraints"]]
    selectors += [each["spec"]["endpointSelector"]["matchLabels"] for each in shipped.all("CiliumNetworkPolicy")]
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert len(selectors) == 6 + len(shipped.all("CiliumNetworkPolicy"))
    for policy in shipped.all("NetworkPolicy"):
        for rule in policy["spec"]["egress"] + policy["spec"]["ingress"]:
            for peer in rule.get("to", []) + rule.get("from", []):
                assert "app.kubernetes.io/name" not in peer.get("podSelector", {}).get("matchLabels", {})


# ----------------------------------------------------------------------------------------------------------------- pods


def test_the_pod_meets_the_restricted_standard(shipped: Rendered) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    spec, security = shipped.pod["spec"], shipped.container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not any("hostPath" in volume for volume in spec["volumes"])


def test_a_fresh_cluster_needs_no_registry_for_what_is_loaded_by_hand(shipped: Rendered) -> None:
    """Without a tag the image is `latest`, and that is pulled always."""
    assert shipped.container["imagePullPolicy"] == "IfNotPresent"
    assert re.search(r"gatepass(:(?!latest$)[\w.]+|@sha256:[0-9a-f]{64})$", shipped.container["image"])


def test_configuration_and_secrets_are_mounted_as_folders(shipped: Rendered) -> None:
    mounts = {each["mountPath"]: each for each in shipped.container["volumeMounts"]}
    assert {"/etc/gatepass", "/run/secrets/gatepass"} <= mounts.keys()
    assert not [each for each in mounts.values() if {"subPath", "subPathExpr"} & each.keys()]
    assert {each["name"] for each in mounts.values()} <= {each["name"] for each in shipped.pod["spec"]["volumes"]}
    config = shipped.one("ConfigMap", suffix="") if len(shipped.all("ConfigMap")) == 1 else shipped.all("ConfigMap")[0]
    assert "config.yaml" in config["data"]


def test_a_rollout_and_a_drain_of_a_node_take_one_pod_at_a_time(shipped: Rendered) -> None:
    budget = shipped.one("PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert "minAvailable" not in budget
    assert shipped.one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (spread,) = shipped.pod["spec"]["topologySpreadConstraints"]
    assert spread["matchLabelKeys"] == ["pod-template-hash"]


# -------------------------------------------------------------------------------------------------------- configuration


def loaded(text: str, tmp_path: Path) -> Any:
    for name in re.findall(r"\$\{file:/run/secrets/gatepass/(\w+)\}", text):
        (tmp_path / name).write_text("a" * 64)
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("/run/secrets/gatepass", str(tmp_path)))
    return load([path], environ={"IDFY_CLIENT_ID": "CANARY"})


@pytest.mark.parametrize("name", ["kustomize-dev", "kustomize-prod", "helm-prod", "helm-everything"])
def test_the_configuration_is_right_and_leaves_in_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    shipped = SHIPPED[name](tmp_path / "r")
    (text,) = [each["data"]["config.yaml"] for each in shipped.all("ConfigMap") if "config.yaml" in each["data"]]
    config = loaded(text, tmp_path)
    assert config.access == "clients"
    ports = {each["name"]: each["containerPort"] for each in shipped.container["ports"]}
    assert (config.listen[0].port, config.admin.port) == (ports["http"], ports["admin"])
    assert config.drain.grace >= 5
    assert config.drain.grace + config.drain.timeout < shipped.pod["spec"]["terminationGracePeriodSeconds"]
    assert "lifecycle" not in shipped.container, "preStop.sleep wants Kubernetes 1.30; drain.grace does the same"


def test_the_dev_overlay_has_every_secret_that_its_configuration_reads(tmp_path: Path) -> None:
    shipped = kustomized("dev", tmp_path)
    asked = set(re.findall(r"\$\{file:/run/secrets/gatepass/(\w+)\}", shipped.one("ConfigMap")["data"]["config.yaml"]))
    assert set(shipped.one("Secret")["data"]) == asked


def test_cilium_lets_out_to_the_hosts_of_the_configuration_and_nowhere_else(tmp_path: Path) -> None:
    shipped = kustomized("prod", tmp_path, CILIUM)
    config = loaded(shipped.one("ConfigMap")["data"]["config.yaml"], tmp_path)
    hosts = {route.upstream.host for route in config.routes}
    hosts |= {urlsplit(grant.request.url).hostname for each in config.credentials.values() for grant in each.grants}
    (names,) = [rule["toFQDNs"] for rule in shipped.one("CiliumNetworkPolicy")["spec"]["egress"] if "toFQDNs" in rule]
    assert {name["matchName"] for name in names} == hosts
    (policy,) = shipped.all("NetworkPolicy")
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {53}


# ----------------------------------------------------------------------------------------------------------- monitoring


def test_the_base_applies_where_no_operator_is_installed() -> None:
    """An apply fails as a whole where a CRD is missing."""
    for path in (KUBERNETES / "base").glob("*.yaml"):
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            group = each["apiVersion"].split("/")[0]
            assert group in {"v1", "apps", "policy", "networking.k8s.io", "kustomize.config.k8s.io"}, path.name


def test_the_prometheus_rule_is_that_of_grafana() -> None:
    path = KUBERNETES / "prometheusrule.py"
    spec = importlib.util.spec_from_file_location("prometheusrule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.text(), f"run: python {path.relative_to(ROOT)}"


@pytest.mark.parametrize("name", ["kustomize-prod-operator", "helm-prod", "helm-everything"])
def test_the_service_monitor_finds_the_admin_service_alone(name: str, tmp_path: Path) -> None:
    shipped = SHIPPED[name](tmp_path)
    monitor = shipped.one("ServiceMonitor")["spec"]
    chosen = [
        service
        for service in shipped.all("Service")
        if monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    assert [service["metadata"]["name"] for service in chosen] == [shipped.one("Service", "-admin")["metadata"]["name"]]
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in chosen[0]["spec"]["ports"]}
    assert monitor["jobLabel"] in chosen[0]["metadata"]["labels"]


def test_the_schemas_are_strict(tmp_path: Path) -> None:
    """The check above sees a field that does not exist, and one of the wrong type."""
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    shipped = kustomized("dev", tmp_path)
    shipped.pod["spec"]["hostNetworking"] = True
    shipped.one("PodDisruptionBudget")["spec"]["maxUnavailable"] = ["1"]
    for version in VERSIONS:
        assert len(schema_problems(shipped, version)) == 2
