"""What lies in deploy/ is right: each file is read by the tool that will read it, and agrees with the gateway."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import yaml

from gateway.config import load
from tests.kit.configuration import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSION = "1.34.0"
SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EVERY_YAML = sorted(DEPLOY.rglob("*.yaml"))


def tool(name: str, path: str | None = None) -> str:
    """Where a program is: on the path, or beside this Python; the test is skipped where it is not."""
    found = shutil.which(name, path=path) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", EVERY_YAML, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_yaml_file_is_one(path: Path) -> None:
    assert all(isinstance(document, dict) for document in documents(path))


# -------------------------------------------------------------------------------------------------------------- compose


def compose() -> dict[str, Any]:
    (found,) = documents(COMPOSE / "compose.yaml")
    return found


def test_compose_follows_the_compose_specification() -> None:
    specification = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    model = specification.ComposeSpecification.model_validate(compose())
    for name, service in compose()["services"].items():
        known = set(type(model.services[name]).model_fields) | {
            field.alias for field in type(model.services[name]).model_fields.values()
        }
        assert set(service) <= known, f"{name}: {set(service) - known}"


def test_compose_asks_for_every_variable_that_it_needs_and_the_example_names_them_all() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    example = (COMPOSE / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == needed
    passed = set(compose()["services"]["gatepass"]["environment"])
    config = (ROOT / "config.yaml").read_text() + (COMPOSE / "gatepass.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)[}:]", config)) <= passed


def test_the_configuration_of_compose_is_right() -> None:
    variables = re.findall(r"^(\w+)=$", (COMPOSE / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    environ = dict.fromkeys(variables, "CANARY") | {"GATEPASS_APP_KEY_SHA256": "a" * 64}
    given = compose()["services"]["gatepass"]["environment"]
    environ |= {name: given[name] for name in ("GATEPASS_LISTEN", "GATEPASS_ADMIN")}
    config = load([ROOT / "config.yaml", COMPOSE / "gatepass.yaml"], environ=environ)
    assert (config.access, str(config.listen)) == ("clients", "0.0.0.0:8080")
    stop = float(compose()["services"]["gatepass"]["stop_grace_period"].removesuffix("s"))
    assert stop > config.drain.grace + config.drain.timeout


def test_every_file_that_compose_mounts_exists() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE / source).exists(), source


def test_what_faces_the_network_in_compose_is_hardened() -> None:
    gateway = compose()["services"]["gatepass"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in gateway["security_opt"]
    assert all(
        port.startswith("127.0.0.1:") for service in compose()["services"].values() for port in service.get("ports", ())
    )


# ----------------------------------------------------------------------------------------------------------- kubernetes


@pytest.fixture(scope="module", params=["dev", "prod"])
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = run(tool("kubectl"), "kustomize", str(KUBERNETES / "overlays" / request.param))
    path = tmp_path_factory.mktemp("kustomize") / f"{request.param}.yaml"
    path.write_text(built, encoding="utf-8")
    return path


def test_what_kustomize_builds_is_valid_for_kubernetes(overlay: Path) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    said = run(tool("kubernetes-validate"), "--strict", "-k", KUBERNETES_VERSION, str(overlay))
    assert said.count("passed for resource") >= 7
    assert {line.split("kind ")[1].split(" ")[0] for line in said.splitlines() if "Couldn't find" in line} <= {
        "ServiceMonitor"
    }


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(path) if document and document["kind"] == kind]


def test_the_pods_are_hardened_and_selected_by_everything_that_means_them(overlay: Path) -> None:
    (deployment,) = of_kind(overlay, "Deployment")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["automountServiceAccountToken"] is False
    labels = template["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of_kind(overlay, "Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind(overlay, "PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(overlay, "NetworkPolicy")]
    assert all(selector.items() <= labels for selector in selectors)
    assert len(selectors) == 5


def test_the_configuration_for_kubernetes_is_right_and_asks_only_for_files_of_the_secret(tmp_path: Path) -> None:
    text = (KUBERNETES / "base" / "config.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{file:/run/secrets/gatepass/(\w+)\}", text))
    for name in asked:
        (tmp_path / name).write_text("a" * 64)
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("/run/secrets/gatepass", str(tmp_path)))
    config = load([path], environ={})
    assert config.access == "clients"
    (dev,) = documents(KUBERNETES / "overlays" / "dev" / "kustomization.yaml")
    given = {literal.split("=")[0] for literal in dev["secretGenerator"][0]["literals"]}
    assert given == asked
    (deployment,) = documents(KUBERNETES / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    leaving = (
        pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + config.drain.grace + config.drain.timeout
    )
    assert leaving < pod["terminationGracePeriodSeconds"]
    hosts = {route.upstream.host for route in config.routes}
    hosts |= {urlsplit(grant.request.url).hostname for each in config.credentials.values() for grant in each.grants}
    (policy,) = documents(KUBERNETES / "components" / "cilium" / "ciliumnetworkpolicy.yaml")
    (names,) = [rule["toFQDNs"] for rule in policy["spec"]["egress"] if "toFQDNs" in rule]
    assert {name["matchName"] for name in names} == hosts


def test_the_component_for_cilium_leaves_no_general_way_out(tmp_path: Path) -> None:
    (KUBERNETES / "base").resolve(strict=True)
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "dev"
    text = (overlay / "kustomization.yaml").read_text(encoding="utf-8")
    (overlay / "kustomization.yaml").write_text(text + "components: [../../components/cilium]\n")
    built = list(yaml.safe_load_all(run(tool("kubectl"), "kustomize", str(overlay))))
    (policy,) = [document for document in built if document["kind"] == "NetworkPolicy"]
    assert [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]] == [53, 53]
    assert "CiliumNetworkPolicy" in {document["kind"] for document in built}


# -------------------------------------------------------------------------------------------------------------- systemd


def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    for name in ("gatepass.service", "gatepass.socket"):
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/opt/gatepass/bin/gatepass", "/bin/true"))
    analyze = tool("systemd-analyze", SBIN)
    said = run(analyze, "verify", "--man=no", str(tmp_path / "gatepass.service"), str(tmp_path / "gatepass.socket"))
    assert "gatepass" not in said, said


def test_the_service_s_exposure_is_low() -> None:
    said = run(
        tool("systemd-analyze", SBIN),
        "security",
        "--offline=yes",
        "--no-pager",
        str(DEPLOY / "systemd" / "gatepass.service"),
    )
    score = float(re.findall(r"exposure level for gatepass.service: ([\d.]+)", said)[0])
    assert score <= 1.5, said
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"exposure {score}" in operations


# ------------------------------------------------------------------------------------------------------ nginx and Caddy


def test_nginx_takes_the_snippet(tmp_path: Path) -> None:
    cert = trustme.CA().issue_cert("gatepass.internal")
    cert.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    cert.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    snippet = (DEPLOY / "nginx" / "gatepass.conf").read_text(encoding="utf-8")
    (tmp_path / "gatepass.conf").write_text(snippet.replace("/etc/gatepass/tls", str(tmp_path)))
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"access_log off; {temporary} include {tmp_path}/gatepass.conf;"
    text = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {http} }}"
    (tmp_path / "nginx.conf").write_text(text)
    said = run(tool("nginx", SBIN), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path))
    assert "syntax is ok" in said
    assert "[warn]" not in said


def test_caddy_takes_the_snippet() -> None:
    said = run(tool("caddy"), "validate", "--config", str(DEPLOY / "caddy" / "Caddyfile"), "--adapter", "caddyfile")
    assert "Valid configuration" in said


# ---------------------------------------------------------------------------------------------------------------- image


def test_a_stripped_library_still_loads(tmp_path: Path) -> None:
    import multidict._multidict as library

    folder = tmp_path / "lib"
    folder.mkdir()
    path = folder / Path(library.__file__).name
    shutil.copyfile(library.__file__, path)
    before = path.stat().st_size
    run(sys.executable, str(DEPLOY / "image" / "strip.py"), str(folder))
    assert path.stat().st_size < before
    code = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("multidict._multidict", {str(path)!r})
module = module_from_spec(spec)
spec.loader.exec_module(module)
assert module.MultiDict(a=1)["a"] == 1
"""
    run(sys.executable, "-c", code)


def test_the_dockerfile_follows_the_rules_of_its_linter() -> None:
    run(tool("hadolint"), str(ROOT / "Dockerfile"))


def test_the_images_bytecode_holds_whatever_age_a_layer_gives_its_sources(tmp_path: Path) -> None:
    """Also that of modules that were imported before: if theirs went stale, each start would compile them."""
    (tmp_path / "pinned.py").write_text("ANSWER = 42\n")
    script = f"""
        import os, runpy, sys
        sys.path.insert(0, {str(tmp_path)!r})
        sys.dont_write_bytecode = False
        import pinned
        runpy.run_path({str(DEPLOY / "image" / "compile.py")!r})["compile_folder"]({str(tmp_path)!r})
        os.utime({str(tmp_path / "pinned.py")!r}, (1, 1))
    """
    run(sys.executable, "-X", f"pycache_prefix={tmp_path / 'cache'}", "-c", textwrap.dedent(script))
    [compiled] = (tmp_path / "cache").rglob("pinned.*.pyc")
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, "PEP 552: by hash, not checked"
    again = run(
        sys.executable,
        "-v",
        "-X",
        f"pycache_prefix={tmp_path / 'cache'}",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pinned",
    )
    assert "stale" not in again
    assert f"matches {tmp_path / 'pinned.py'}" in again


def test_the_image_gets_everything_that_its_dockerfile_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                top = source.split("/")[0]
                assert any(kept.removeprefix("!").startswith(top) for kept in ignored if kept.startswith("!")), source
