"""Renders the shipped Kubernetes objects with Kustomize and Helm, and validates them."""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING, Any

import yaml

from tests.kit.configuration import ROOT
from tests.kit.tools import run, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "gatepass"
OPERATOR, CILIUM = "../../components/prometheus-operator", "../../components/cilium"
STORE = "../../components/store"


class Rendered:
    """Objects of one rendering."""

    def __init__(self, objects: Iterable[dict[str, Any] | None]) -> None:
        self.objects = [each for each in objects if each]

    def kinds(self) -> set[str]:
        """Return the kinds of the objects."""
        return {each["kind"] for each in self.objects}

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> dict[str, Any]:
        """Return the only object of a kind whose name ends with `suffix`."""
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"].endswith(suffix)]
        return found

    @property
    def pod(self) -> dict[str, Any]:
        """The Deployment's pod template."""
        return dict(self.one("Deployment")["spec"]["template"])

    @property
    def container(self) -> dict[str, Any]:
        """The pod's only container."""
        (found,) = self.pod["spec"]["containers"]
        return dict(found)


def kustomized(overlay: str, folder: Path, *components: str) -> Rendered:
    """Render a copy of an overlay in `folder`, with these components added."""
    copy = folder / "kubernetes"
    shutil.copytree(KUBERNETES, copy, dirs_exist_ok=True)
    path = copy / "overlays" / overlay / "kustomization.yaml"
    if components:
        path.write_text(f"{path.read_text(encoding='utf-8')}\ncomponents: [{', '.join(components)}]\n")
    return Rendered(yaml.safe_load_all(run(tool("kubectl"), "kustomize", str(path.parent))))


def helmed(folder: Path, values: dict[str, Any] | None = None, *files: Path, release: str = "gatepass") -> Rendered:
    """Render the chart in the namespace gatepass into `folder`, one file for each template."""
    own = folder / "values.yaml"
    own.write_text(yaml.safe_dump(values or {}), encoding="utf-8")
    out = folder / "rendered"
    arguments = [part for path in (*files, own) for part in ("--values", str(path))]
    command = [tool("helm"), "template", release, str(CHART), "--namespace", "gatepass", "--output-dir", str(out)]
    run(*command, *arguments)
    texts = [path.read_text(encoding="utf-8") for path in sorted(out.rglob("*.yaml"))]
    rendered = Rendered(document for text in texts for document in yaml.safe_load_all(text))
    for each in rendered.objects:
        each["metadata"].setdefault("namespace", "gatepass")
    return rendered


def schema_problems(rendered: Rendered, version: str) -> list[str]:
    """Return the objects' mistakes by the strict schema of Kubernetes. Custom resources are not checked."""
    utils = _schemas()
    problems = []
    for each in rendered.objects:
        try:
            utils.validate(each, version, strict=True)
        except utils.ValidationError as found:
            problems.append(f"{each['kind']} {list(found.absolute_path)}: {found.message}")
        except utils.SchemaNotFoundError:
            if each["apiVersion"].split("/")[0] not in CUSTOM:
                problems.append(f"{each['kind']}: no schema in Kubernetes {version}")
    return problems


@functools.cache
def _schemas() -> Any:
    """Return the validating module, changed to read a version's definitions once instead of once for each object."""
    from kubernetes_validate import utils  # type: ignore[import-untyped]  # the package has no types

    utils.schema_contents = functools.cache(utils.schema_contents)
    return utils


CUSTOM = {"monitoring.coreos.com", "cilium.io", "external-secrets.io"}
PROD = yaml.safe_load((KUBERNETES / "overlays" / "prod" / "config.yaml").read_text(encoding="utf-8"))
SMALL = {"config": {"routes": {"idfy": {"credential": "idfy"}}, "credentials": {}}}
CSI = {"source": "csi", "csi": {"secretProviderClass": "vault"}}
SHIPPED: dict[str, Callable[[Path], Rendered]] = {
    "kustomize-dev": lambda folder: kustomized("dev", folder),
    "kustomize-prod": lambda folder: kustomized("prod", folder),
    "kustomize-prod-operator": lambda folder: kustomized("prod", folder, OPERATOR),
    "kustomize-prod-cilium": lambda folder: kustomized("prod", folder, CILIUM),
    "helm-prod": lambda folder: helmed(folder, {"config": PROD}, CHART / "ci" / "prod-values.yaml"),
    "helm-everything": lambda folder: helmed(folder, {}, CHART / "ci" / "everything-values.yaml", release="x"),
    "helm-csi": lambda folder: helmed(folder, SMALL | {"secrets": CSI}),
    "helm-values": lambda folder: helmed(folder, SMALL | {"secrets": {"source": "values", "values": {"a": "b"}}}),
}  # fmt: skip
"""All renderings that are checked, by name."""
