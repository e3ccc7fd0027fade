"""deploy/compose: what Compose reads is right, and ./setup leaves a folder from which it starts."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load
from tests.kit.configuration import ROOT
from tests.kit.tools import documents

COMPOSE = ROOT / "deploy" / "compose"
DOCKER = """\
#!/bin/sh
# Stands for the Docker client: builds nothing, runs the gateway's commands here.
[ "$1" = compose ] || exit 64
case "$2" in
version) [ -z "${OLD_COMPOSE:-}" ] ;;
build) [ "$3" = gatepass ] ;;
run) shift 2; while [ "$1" != gatepass ]; do shift; done; shift; exec "$GATEPASS" "$@" ;;
*) exit 64 ;;
esac
"""


def compose() -> dict[str, Any]:
    (found,) = documents(COMPOSE / "compose.yaml")
    return found


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


def test_compose_follows_the_compose_specification() -> None:
    specification = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    model = specification.ComposeSpecification.model_validate(compose())
    for name, service in services().items():
        known = set(type(model.services[name]).model_fields) | {
            field.alias for field in type(model.services[name]).model_fields.values()
        }
        assert set(service) <= known, f"{name}: {set(service) - known}"


def test_compose_asks_for_no_variable_so_that_it_can_build_before_anything_is_filled_in() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert variables
    assert all(default.startswith(":-") for _, default in variables)
    example = (COMPOSE / ".env.example").read_text(encoding="utf-8")
    assert {name for name, _ in variables} == set(re.findall(r"^(?:# )?(\w+)=", example, re.MULTILINE))


def test_no_secret_comes_by_environment() -> None:
    """Compose reads `$` in .env as a variable: `pa$word` became `pa`. And `docker inspect` shows the environment."""
    for service in services().values():
        for name in service.get("environment", {}):
            assert name.endswith("__FILE") or not re.search("SECRET|PASSWORD|KEY|TOKEN", name), name


def test_every_mount_is_a_folder_that_exists_or_that_setup_makes() -> None:
    setup = (COMPOSE / "setup").read_text(encoding="utf-8")
    made = set(re.findall(r"mkdir -p (.*)", setup)[0].split())
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).is_dir() or source.removeprefix("./") in made, source
                assert volume.endswith(":ro")


def test_every_log_is_bounded() -> None:
    """Docker's default keeps every line for ever."""
    for name, service in services().items():
        options = service["logging"]["options"]
        assert options["max-size"], name
        assert options["max-file"], name


def test_what_faces_the_network_in_compose_is_hardened() -> None:
    gateway = services()["gatepass"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in gateway["security_opt"]
    assert all(port.startswith("127.0.0.1:") for service in services().values() for port in service.get("ports", ()))


# ---------------------------------------------------------------------------------------------------------------- setup


class Clone:
    """A clone of what deploy/compose needs, made with umask 077 as a careful administrator would."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(
            COMPOSE, folder / "deploy" / "compose", ignore=shutil.ignore_patterns(".env", "config", "secrets")
        )
        shutil.copytree(ROOT / "grafana" / "alerts", folder / "grafana" / "alerts")
        shutil.copytree(ROOT / "grafana" / "dashboards", folder / "grafana" / "dashboards")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
        (folder / "bin").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        self.folder, self.compose = folder, folder / "deploy" / "compose"

    def setup(self, *vendors: str, **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        program = str(Path(sys.executable).parent / "gatepass")
        return subprocess.run(
            [str(self.compose / "setup"), *vendors],
            env=os.environ | {"PATH": path, "GATEPASS": program} | environ,
            capture_output=True, text=True, timeout=60, check=False, umask=0o077,
        )  # fmt: skip


def test_setup_leaves_a_configuration_that_loads_when_the_secrets_are_filled_in(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    done = clone.setup("idfy", "uqudo")
    assert done.returncode == 0, done.stderr
    files = {path.name: path for path in (clone.compose / "secrets" / "gatepass").iterdir()}
    assert files.keys() == {"idfy_client_id", "idfy_client_secret", "uqudo_client_id", "uqudo_client_secret"}
    for path in files.values():
        path.write_text("pa$word-CANARY\n")
        assert path.name in done.stdout
    path = clone.compose / "config" / "config.yaml"
    here = path.read_text().replace("/run/secrets/gatepass", str(clone.compose / "secrets" / "gatepass"))
    path.write_text(here)
    config = load([path], environ={"GATEPASS_LISTEN": "0.0.0.0:8080", "GATEPASS_ADMIN": "0.0.0.0:9090"})
    assert (config.access, [route.prefix for route in config.routes]) == ("clients", ["/idfy", "/uqudo"])
    assert "gp_" in done.stdout
    (target,) = documents(COMPOSE / "prometheus" / "prometheus.yml")[0]["scrape_configs"][0]["static_configs"]
    assert {each.split(":")[0] for each in target["targets"]} <= set(config.admin_hosts)
    stop = float(services()["gatepass"]["stop_grace_period"].removesuffix("s"))
    assert stop > config.drain.grace + config.drain.timeout
    assert config.drain.grace > 0


def test_setup_makes_readable_what_other_containers_read_and_nothing_else(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    assert clone.setup("idfy").returncode == 0
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = clone.compose / volume.split(":")[0]
            private = source.name in {"config", "gatepass"}
            if source.exists():
                for path in [source, *source.rglob("*")]:
                    others = stat.S_IMODE(path.stat().st_mode) & 0o007
                    assert others == (0 if private else 0o005 if path.is_dir() else 0o004), path
    assert stat.S_IMODE((clone.compose / "secrets").stat().st_mode) == 0o700
    owner = (clone.compose / "config" / "config.yaml").stat()
    assert f"GATEPASS_USER={owner.st_uid}:{owner.st_gid}" in (clone.compose / ".env").read_text()


def test_setup_keeps_what_is_there(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    assert clone.setup("idfy").returncode == 0
    before = (clone.compose / "config" / "config.yaml").read_text()
    again = clone.setup("uqudo")
    assert again.returncode == 1
    assert "config/config.yaml exists" in again.stderr
    assert (clone.compose / "config" / "config.yaml").read_text() == before


def test_setup_without_a_vendor_lists_them_and_an_unknown_one_leaves_nothing_to_clear_away(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    listed = clone.setup()
    assert "idfy" in listed.stdout
    wrong = clone.setup("idfi")
    assert wrong.returncode != 0
    assert "idfy" in wrong.stderr
    assert clone.setup("idfy").returncode == 0


def test_setup_says_that_it_needs_compose_2(tmp_path: Path) -> None:
    done = Clone(tmp_path / "clone").setup("idfy", OLD_COMPOSE="1")
    assert (done.returncode, "Docker Compose 2" in done.stderr) == (1, True)


def test_nothing_that_setup_makes_is_committed() -> None:
    ignored = (COMPOSE / ".gitignore").read_text(encoding="utf-8").split()
    assert {".env", "config/", "secrets/"} <= set(ignored)
    assert yaml.safe_load((COMPOSE / "compose.yaml").read_text())["name"] == "gatepass"
