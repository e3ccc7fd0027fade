"""deploy/compose: what Compose reads is right, and ./setup leaves a folder from which it starts."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load
from tests.kit.configuration import ROOT
from tests.kit.gateway import one_route
from tests.kit.tools import SBIN, documents, run, tool

COMPOSE = ROOT / "deploy" / "compose"
OWN = ["balancer", "gatepass", "valkey"]
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


FILES = ("compose.yaml", "instances.yaml")


def compose(file: str = "compose.yaml") -> dict[str, Any]:
    (found,) = documents(COMPOSE / file)
    return found


def services(file: str = "compose.yaml") -> dict[str, dict[str, Any]]:
    """Return the services of a file, with what they extend."""
    found = {}
    for name, service in compose(file)["services"].items():
        own = dict(service)
        base = own.pop("extends", None)
        found[name] = {**services(base["file"])[base["service"]], **own} if base else own
    return found


@pytest.mark.parametrize("file", FILES)
def test_compose_follows_the_compose_specification(file: str) -> None:
    specification = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    model = specification.ComposeSpecification.model_validate(compose(file))
    for name, service in compose(file)["services"].items():
        known = set(type(model.services[name]).model_fields) | {
            field.alias for field in type(model.services[name]).model_fields.values()
        }
        assert set(service) <= known, f"{name}: {set(service) - known}"


@pytest.mark.parametrize("file", FILES)
def test_compose_asks_for_no_variable_so_that_it_can_build_before_anything_is_filled_in(file: str) -> None:
    text = (COMPOSE / file).read_text(encoding="utf-8")
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert variables
    assert all(default.startswith(":-") for _, default in variables)
    example = (COMPOSE / ".env.example").read_text(encoding="utf-8")
    assert {name for name, _ in variables} == set(re.findall(r"^(?:# )?(\w+)=", example, re.MULTILINE))


@pytest.mark.parametrize("file", FILES)
def test_no_secret_comes_by_environment(file: str) -> None:
    """Compose reads `$` in .env as a variable: `pa$word` became `pa`. And `docker inspect` shows the environment."""
    for service in services(file).values():
        for name in service.get("environment", {}):
            assert name.endswith("__FILE") or not re.search("SECRET|PASSWORD|KEY|TOKEN", name), name


@pytest.mark.parametrize("file", FILES)
def test_every_mount_is_a_folder_that_exists_or_that_setup_makes(file: str) -> None:
    setup = (COMPOSE / "setup").read_text(encoding="utf-8")
    made = {folder for line in re.findall(r"mkdir -p (.*)", setup) for folder in line.split()}
    for service in services(file).values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).is_dir() or source.removeprefix("./") in made, source
                assert volume.endswith(":ro")


@pytest.mark.parametrize("file", FILES)
def test_every_log_is_bounded(file: str) -> None:
    """Docker's default keeps every line for ever."""
    for name, service in services(file).items():
        options = service["logging"]["options"]
        assert options["max-size"], name
        assert options["max-file"], name


@pytest.mark.parametrize(("file", "names"), [("compose.yaml", ["gatepass"]), ("instances.yaml", OWN)])
def test_what_faces_the_network_in_compose_is_hardened(file: str, names: list[str]) -> None:
    found = services(file)
    for name in names:
        assert found[name]["read_only"] is True, name
        assert found[name]["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in found[name]["security_opt"], name
    assert all(port.startswith("127.0.0.1:") for service in found.values() for port in service.get("ports", ()))


# ------------------------------------------------------------------------------------------------------------ instances


def test_several_instances_are_the_one_of_the_other_file_without_a_port_of_their_own() -> None:
    one, each = services()["gatepass"], services("instances.yaml")["gatepass"]
    assert one.pop("ports")
    assert each.pop("depends_on") == {"valkey": {"condition": "service_healthy"}}
    assert each == one


def test_prometheus_finds_every_instance_and_reads_the_same_rules() -> None:
    (one,), (each,) = (documents(COMPOSE / "prometheus" / name) for name in ("prometheus.yml", "instances.yml"))
    (job,) = each.pop("scrape_configs")
    one.pop("scrape_configs")
    assert job["dns_sd_configs"][0]["names"] == ["gatepass"]
    assert each == one


def test_the_balancer_waits_longer_than_the_gateway(tmp_path: Path) -> None:
    text = (COMPOSE / "balancer" / "haproxy.cfg").read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(one_route(1)))
    config = load([path], environ={"CANARY": "CANARY"})
    (route,) = config.routes
    once = route.pool.wait + route.timeouts.connect + route.timeouts.first_byte
    waits = {name: float(value) for name, value in re.findall(r"timeout (server|client) (\d+)s", text)}
    assert waits["server"] > 2 * (once + config.token_timeout)
    assert waits["client"] > route.timeouts.idle


def test_haproxy_takes_the_balancer_s_file() -> None:
    run(tool("haproxy", SBIN), "-c", "-f", str(COMPOSE / "balancer" / "haproxy.cfg"))


def test_setup_for_instances_leaves_a_store_that_only_the_gateways_open(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    done = clone.setup("--instances", "idfy")
    assert done.returncode == 0, done.stderr
    secrets = clone.compose / "secrets" / "gatepass"
    assert "store_" not in done.stdout, "nobody has to fill them in"
    for name in ("idfy_client_id", "idfy_client_secret"):
        (secrets / name).write_text("pa$word-CANARY\n")
    path = clone.compose / "config" / "config.yaml"
    path.write_text(path.read_text().replace("/run/secrets/gatepass", str(secrets)))
    config = load([path], environ={"GATEPASS_LISTEN": "0.0.0.0:8080", "GATEPASS_ADMIN": "0.0.0.0:9090"})
    assert config.store is not None
    assert config.store.password is not None
    hashed = sha256(config.store.password.reveal().encode()).hexdigest()
    acl = (clone.compose / "secrets" / "valkey" / "users.acl").read_text()
    assert f"user {config.store.username} on #{hashed} " in acl
    assert "user default off\n" in acl
    assert config.store.keys[0].reveal() not in acl
    (network,) = compose("instances.yaml")["networks"]["inside"]["ipam"]["config"]
    assert config.trusted_proxies == (network["subnet"],)
    (address,) = config.store.server.addresses
    assert address.host in services("instances.yaml")


# ---------------------------------------------------------------------------------------------------------------- setup


class Clone:
    """A clone of what deploy/compose needs, made with umask 077 as a careful administrator would."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(
            COMPOSE, folder / "deploy" / "compose", ignore=shutil.ignore_patterns(".env", "config", "secrets")
        )
        shutil.copytree(ROOT / "deploy" / "valkey", folder / "deploy" / "valkey")
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
    assert clone.setup("--instances", "idfy").returncode == 0
    for service in (*services().values(), *services("instances.yaml").values()):
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
