"""The example of Gatepass and Envoy beside an app in one pod: valid, hardened, and fitting together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.model import SocketFile
from tests.architecture.test_deploy_kubernetes import VERSIONS, loaded
from tests.kit.configuration import ROOT
from tests.kit.rendered import KUBERNETES, Rendered, schema_problems
from tests.kit.tools import run, tool

if TYPE_CHECKING:
    from pathlib import Path

SIDECAR = KUBERNETES / "sidecar"


@pytest.fixture(scope="module")
def shipped() -> Rendered:
    return Rendered(yaml.safe_load_all(run(tool("kubectl"), "kustomize", str(SIDECAR))))


@pytest.fixture(scope="module")
def pod(shipped: Rendered) -> dict[str, Any]:
    return dict(shipped.pod["spec"])


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["mountPath"]: each for each in container["volumeMounts"]}


def test_it_is_valid_for_three_versions_of_kubernetes(shipped: Rendered) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    assert {version: schema_problems(shipped, version) for version in VERSIONS} == {version: [] for version in VERSIONS}


def test_every_container_meets_the_restricted_standard(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})
        assert security["runAsUser"] > 0


def test_gatepass_is_ready_before_envoy_starts_and_ends_after_the_app(pod: dict[str, Any]) -> None:
    gatepass, envoy = pod["initContainers"]
    assert (gatepass["name"], gatepass["restartPolicy"], envoy["restartPolicy"]) == ("gatepass", "Always", "Always")
    assert gatepass["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_tokens_are_in_memory_and_only_gatepass_writes_and_envoy_reads_them(pod: dict[str, Any]) -> None:
    gatepass, envoy = pod["initContainers"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "planes"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert "readOnly" not in mounts(gatepass)["/run/gatepass"]
    assert mounts(envoy)["/run/gatepass"]["readOnly"] is True
    assert all("volumeMounts" not in app for app in pod["containers"])


def test_the_configurations_fit_the_pod(shipped: Rendered, pod: dict[str, Any], tmp_path: Path) -> None:
    gatepass, envoy = pod["initContainers"]
    config = loaded(shipped.one("ConfigMap", "-gatepass")["data"]["config.yaml"], tmp_path)
    (plane,) = config.planes.push
    assert plane.uid == envoy["securityContext"]["runAsUser"]
    assert gatepass["securityContext"]["runAsGroup"] == pod["securityContext"]["fsGroup"]
    text = shipped.one("ConfigMap", "-envoy")["data"]["envoy.yaml"]
    assert f"path: {plane.directory}/idfy.json" in text
    assert f"watched_directory: {{path: {plane.directory}}}" in text
    assert isinstance(config.planes.listen, SocketFile)
    assert f"{{path: {config.planes.listen.path}}}" in text
    assert all(path.is_relative_to("/run/gatepass") for path in (plane.directory, config.planes.listen.path))
    (port,) = [each["containerPort"] for each in gatepass["ports"]]
    assert config.admin.port == port


def test_envoy_is_configured_as_in_deploy_planes() -> None:
    """Kustomize reads no file outside its own folders."""
    tested = ROOT / "deploy" / "planes" / "envoy-sds" / "envoy.yaml"
    assert (SIDECAR / "envoy.yaml").read_text("utf-8") == tested.read_text("utf-8"), f"copy {tested}"
