"""deploy/compose as a newcomer starts it: ./setup, secrets, `docker compose up --wait`."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
from typing import TYPE_CHECKING

from tests.deployed.container import IMAGE
from tests.deployed.outcome import Outcome, Unable, docker, needs_docker, run
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = {"prometheus": "prom/prometheus:v3.5.0", "grafana": "grafana/grafana:12.1.0"}


def docker_elsewhere() -> str:
    """Return the command for Docker with its full path, because the shim itself is called `docker`."""
    program, *options = shlex.split(os.environ.get("DOCKER", "docker"))
    return shlex.join([shutil.which(program) or program, *options])


def trial(folder: Path) -> Outcome:
    """Set up, start, ask, and stop; with Prometheus and Grafana where their images are."""
    needs_docker(IMAGE)
    outcome = Outcome()
    try:
        outcome.add("docker compose", docker("compose", "version", "--short").strip())
    except AssertionError as error:
        raise Unable("there is no Docker Compose 2") from error
    where = cloned(folder)
    shim = folder / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {docker_elsewhere()} "$@"\n')
    shim.chmod(0o755)
    environ = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "GATEPASS_IMAGE": IMAGE}

    def compose(*arguments: str, check: bool = True) -> str:
        return run("docker", "compose", *arguments, cwd=where, check=check, environ=environ)

    said = run("sh", "-c", f"umask 077; exec {where}/setup idfy", environ=environ)
    outcome.add("./setup prints a key", "gp_" in said, good="gp_" in said)
    for path in (where / "secrets" / "gatepass").iterdir():
        path.write_text("pa$word-CANARY")
    services = ["gatepass", *(name for name, image in OTHERS.items() if there(image))]
    try:
        compose("up", "--detach", "--wait", *services)
        health = compose("ps", "--format", "{{.Service}}: {{.Health}}")
        outcome.add("docker compose up --wait", health.strip().replace("\n", ", "), good="gatepass: healthy" in health)
        asked = "gatepass status; test $? = 1 && echo failing"  # the secrets are made up
        said = run("sh", "-c", f"docker compose exec -T gatepass {asked} 2>&1", cwd=where, environ=environ)
        outcome.add("gatepass status in the container", said.split("\n")[0], good="1 of 1 credentials failing" in said)
        inspect = docker("inspect", compose("ps", "--quiet", "gatepass").strip())
        outcome.add("secrets in docker inspect", inspect.count("CANARY"), good="CANARY" not in inspect)
        compose("stop", "gatepass")
        status = json.loads(docker("inspect", "gatepass-gatepass-1"))[0]["State"]["ExitCode"]
        outcome.add("docker compose stop", f"exit {status}", good=status == 0)
    finally:
        compose("down", "--volumes", check=False)
    outcome.add("not started: no image", ", ".join(name for name in OTHERS if name not in services) or "none")
    return outcome


def there(image: str) -> bool:
    """Return whether the engine has the image."""
    try:
        docker("image", "inspect", image)
    except AssertionError:
        return False
    return True


def cloned(folder: Path) -> Path:
    """Copy what compose.yaml needs, with bounds that this machine allows; return the folder of compose.yaml."""
    where = folder / "deploy" / "compose"
    shutil.copytree(ROOT / "deploy" / "compose", where, ignore=shutil.ignore_patterns(".env", "config", "secrets"))
    for name in ("alerts", "dashboards"):
        shutil.copytree(ROOT / "grafana" / name, folder / "grafana" / name)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 32768:
        bound = f"{{soft: {hard}, hard: {hard}}}"
        (where / "compose.override.yaml").write_text(f"services: {{gatepass: {{ulimits: {{nofile: {bound}}}}}}}\n")
    return where
