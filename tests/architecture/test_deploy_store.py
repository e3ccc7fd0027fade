"""Replicas with a shared store in Kubernetes: the component of Kustomize and the chart make the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from gateway.config import load
from tests.architecture.test_deploy_helm import plain
from tests.architecture.test_deploy_kubernetes import VERSIONS
from tests.kit.configuration import ROOT
from tests.kit.policies import Pod, allows
from tests.kit.rendered import (
    CHART,
    CILIUM,
    KUBERNETES,
    PROD,
    SMALL,
    STORE,
    Rendered,
    helmed,
    kustomized,
    schema_problems,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config

VALKEY = ROOT / "deploy" / "valkey"
CHART_S = CHART / "ci" / "store-values.yaml"


@pytest.fixture(scope="module", params=["kustomize", "helm"])
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp(request.param)
    return (
        kustomized("prod", folder, STORE) if request.param == "kustomize" else helmed(folder, {"config": PROD}, CHART_S)
    )


def gateway_s(shipped: Rendered) -> Pod:
    return Pod(shipped.pod["metadata"]["labels"], "gatepass")


def store_s(shipped: Rendered) -> Pod:
    return Pod(shipped.one("StatefulSet")["spec"]["template"]["metadata"]["labels"], "gatepass")


def test_helm_and_kustomize_render_the_same_store(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "h").mkdir()
    ours, theirs = (
        {(each["kind"], each["metadata"]["name"]): plain(each) for each in made.objects if each["kind"] != "Namespace"}
        for made in (kustomized("prod", tmp_path / "k", STORE), helmed(tmp_path / "h", {"config": PROD}, CHART_S))
    )
    assert theirs.keys() == ours.keys()
    for key, each in ours.items():
        assert theirs[key] == each, key


def test_every_object_of_the_store_is_valid(shipped: Rendered) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    assert {version: schema_problems(shipped, version) for version in VERSIONS} == {version: [] for version in VERSIONS}


def test_valkey_meets_the_restricted_standard_and_reads_what_deploy_ships(shipped: Rendered) -> None:
    spec = shipped.one("StatefulSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert shipped.one("ConfigMap", "-valkey")["data"]["valkey.conf"] == (VALKEY / "valkey.conf").read_text()
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert container["args"] == ["valkey-server", "/etc/valkey/valkey.conf"]
    assert mounts["/etc/valkey"] == "settings"


def configuration(shipped: Rendered, folder: Path) -> Config:
    """Return what the gateway reads: the files of its arguments."""
    mounts = {each["name"]: each["mountPath"] for each in shipped.container["volumeMounts"]}
    files: dict[str, str] = {}
    for volume in shipped.pod["spec"]["volumes"]:
        if "configMap" in volume:
            data = next(
                each["data"]
                for each in shipped.all("ConfigMap")
                if each["metadata"]["name"] == volume["configMap"]["name"]
            )
            files |= {f"{mounts[volume['name']]}/{name}": text for name, text in data.items()}
    serve, *arguments = shipped.container["args"]
    assert (serve, arguments[::2]) == ("serve", ["-c", "-c"])
    paths = []
    for number, name in enumerate(arguments[1::2]):
        text = files[name]
        for secret in re.findall(r"\$\{file:/run/secrets/gatepass/(\w+)\}", text):
            (folder / secret).write_text("abcdefghijklmnopqrstuvwxyz0123456789" if "store" in secret else "a" * 64)
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(text.replace("/run/secrets/gatepass", str(folder)))
    return load(paths, environ={})


def test_the_gateways_find_the_store_by_its_service_and_as_the_user_of_its_acl(
    shipped: Rendered, tmp_path: Path
) -> None:
    store = configuration(shipped, tmp_path).store
    assert store is not None
    (address,) = store.server.addresses
    service = shipped.one("Service", "-store")
    assert address.host == service["metadata"]["name"]
    assert address.port == service["spec"]["ports"][0]["port"]
    assert f"user {store.username} on " in (VALKEY / "users.acl").read_text()
    assert f"~gp1:{store.namespace}:*" in (VALKEY / "users.acl").read_text()


def test_the_gateways_reach_the_store_and_nobody_else_does(shipped: Rendered) -> None:
    policies, gateway, store = shipped.all("NetworkPolicy"), gateway_s(shipped), store_s(shipped)
    assert allows(policies, gateway, "Egress", store, 6379)
    assert allows(policies, store, "Ingress", gateway, 6379)
    assert not allows(policies, gateway, "Egress", Pod({"app": "other"}, "gatepass"), 6379)
    assert not allows(policies, store, "Ingress", Pod({"app": "shop"}, "gatepass"), 6379)
    assert not allows(policies, store, "Egress", "203.0.113.9", 443)
    selected = shipped.one("Service", "-store")["spec"]["selector"].items()
    assert selected <= store.labels.items()
    assert not selected <= gateway.labels.items()


def test_a_store_elsewhere_brings_no_valkey(tmp_path: Path) -> None:
    there = {"enabled": True, "url": "rediss://valkey.example:6379/0", "more": {"namespace": "prod"}}
    made = helmed(tmp_path, SMALL | {"store": there})
    assert "StatefulSet" not in made.kinds()
    assert [each["metadata"]["name"] for each in made.all("ConfigMap")] == ["gatepass", "gatepass-store"]
    text = made.one("ConfigMap", "-store")["data"]["store.yaml"]
    assert "rediss://valkey.example:6379/0" in text
    assert "namespace: prod" in text


def test_the_component_goes_with_that_for_cilium(tmp_path: Path) -> None:
    shipped = kustomized("prod", tmp_path, CILIUM, STORE)
    assert allows(shipped.all("NetworkPolicy"), gateway_s(shipped), "Egress", store_s(shipped), 6379)


def test_both_ship_the_same_settings_of_valkey() -> None:
    component = KUBERNETES / "components" / "store" / "valkey.conf"
    assert component.read_text() == (VALKEY / "valkey.conf").read_text(), "copy deploy/valkey/valkey.conf there"
