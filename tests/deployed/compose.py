"""deploy/compose as a newcomer starts it: ./setup, secrets, `docker compose up --wait`; one gateway, and three."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shlex
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from tests.deployed.container import IMAGE
from tests.deployed.outcome import Outcome, Unable, docker, needs_docker, run
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHERS = {"prometheus": "prom/prometheus:v3.5.0", "grafana": "grafana/grafana:12.1.0"}
OVERRIDE, OVERRIDE_SEVERAL = "compose.override.yaml", "instances.override.yaml"
METRICS = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9090/metrics').read().decode())"
SEVERAL = {"balancer": "haproxy:3.2", "valkey": "valkey/valkey:8.1"}


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
    one(folder / "one", outcome)
    missing = [image for image in SEVERAL.values() if not there(image)]
    if missing:
        outcome.add("several instances, not tried: no image", ", ".join(missing))
    else:
        several(folder / "several", outcome)
    return outcome


class Project:
    """A clone with its secrets filled in."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.where = cloned(folder)
        shim = folder / "bin" / "docker"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {docker_elsewhere()} "$@"\n')
        shim.chmod(0o755)
        self.name = f"gatepass-{secrets.token_hex(3)}"
        self.environ = {
            "PATH": f"{shim.parent}:{os.environ['PATH']}",
            "GATEPASS_IMAGE": IMAGE,
            "COMPOSE_PROJECT_NAME": self.name,
        }
        self.said = run("sh", "-c", f"umask 077; exec {self.where}/setup {' '.join(arguments)}", environ=self.environ)
        for path in (self.where / "secrets" / "gatepass").iterdir():
            if not path.read_text():
                path.write_text("pa$word-CANARY")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run Compose in the clone."""
        return run("docker", "compose", *arguments, cwd=self.where, check=check, environ=self.environ)


def one(folder: Path, outcome: Outcome) -> None:
    """One gateway, with Prometheus and Grafana where their images are."""
    project = Project(folder, "idfy")
    compose, said = project.compose, project.said
    outcome.add("./setup prints a key", "gp_" in said, good="gp_" in said)
    services = ["gatepass", *(name for name, image in OTHERS.items() if there(image))]
    try:
        compose("up", "--detach", "--wait", *services)
        health = compose("ps", "--format", "{{.Service}}: {{.Health}}")
        outcome.add("docker compose up --wait", health.strip().replace("\n", ", "), good="gatepass: healthy" in health)
        asked = "gatepass status; test $? = 1 && echo failing"  # the secrets are made up
        said = run(
            "sh", "-c", f"docker compose exec -T gatepass {asked} 2>&1", cwd=project.where, environ=project.environ
        )
        outcome.add("gatepass status in the container", said.split("\n")[0], good="1 of 1 credentials failing" in said)
        inspect = docker("inspect", compose("ps", "--quiet", "gatepass").strip())
        outcome.add("secrets in docker inspect", inspect.count("CANARY"), good="CANARY" not in inspect)
        if "prometheus" in services:
            found = scraped(compose, 1)
            outcome.add("instances that Prometheus scrapes", found, good=found == 1)
        compose("stop", "gatepass")
        status = json.loads(docker("inspect", f"{project.name}-gatepass-1"))[0]["State"]["ExitCode"]
        outcome.add("docker compose stop", f"exit {status}", good=status == 0)
    finally:
        compose("down", "--volumes", check=False)
    outcome.add("not started: no image", ", ".join(name for name in OTHERS if name not in services) or "none")


def several(folder: Path, outcome: Outcome) -> None:
    """Three gateways behind the balancer share a store; then five, and two."""
    project = Project(folder, "--instances", "idfy")
    files = ("-f", "instances.yaml", *(("-f", OVERRIDE_SEVERAL) if (project.where / OVERRIDE_SEVERAL).exists() else ()))

    def compose(*arguments: str, check: bool = True) -> str:
        return project.compose(*files, *arguments, check=check)

    services = ["balancer", "gatepass", "valkey", *(["prometheus"] if there(OTHERS["prometheus"]) else [])]

    def up(count: int) -> None:
        compose("up", "--detach", "--wait", "--no-recreate", "--scale", f"gatepass={count}", *services)

    try:
        for count in (3, 5, 2):
            up(count)
            found = settled(compose, count)
            outcome.add(
                f"instances that see {count} members after --scale gatepass={count}", found, good=found == count
            )
            key = re.findall(r"gp_\w+", project.said)[0]
            statuses = Counter(asked(key) for _ in range(4 * count))
            # Made-up secrets: 502 if the vendor refuses them, 503 if it cannot be reached. An instance has answered.
            outcome.add("answers through the balancer", dict(statuses), good=statuses.keys() <= {502, 503})
        if "prometheus" in services:
            found = scraped(compose, count)
            outcome.add(f"instances of {count} that Prometheus scrapes", found, good=found == count)
        dump = compose("exec", "-T", "valkey", "cat", "/etc/valkey/users.acl")
        outcome.add("passwords in the store's users", dump.count("CANARY"), good="on #" in dump)
    finally:
        compose("down", "--volumes", check=False)


def settled(compose: Callable[..., str], count: int) -> int:
    """Wait until as many instances see each other; return how many do."""
    seen = 0
    for _ in range(20):
        pages = [
            compose("exec", "-T", "--index", str(index), "gatepass", "python3", "-c", METRICS, check=False)
            for index in range(1, count + 1)
        ]
        seen = sum(f"gatepass_store_members {count}\n" in page for page in pages)
        if seen == count:
            break
        time.sleep(0.5)
    return seen


def scraped(compose: Callable[..., str], count: int) -> int:
    """Wait until Prometheus has scraped as many instances; return how many it scrapes."""
    query = ("promtool", "query", "instant", "http://127.0.0.1:9090", 'count(up{job="gatepass"} == 1)')
    found = 0
    for _ in range(60):
        sample = re.match(r"{} => (\d+) ", compose("exec", "-T", "prometheus", *query, check=False))
        found = int(sample[1]) if sample else 0
        if found == count:
            break
        time.sleep(1)
    return found


def asked(key: str) -> int:
    """Return the status of one request through the balancer."""
    request = Request("http://127.0.0.1:8080/idfy/v3/tasks", headers={"X-Gatepass-Key": key})
    try:
        with urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


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
    shutil.copytree(ROOT / "deploy" / "valkey", folder / "deploy" / "valkey")
    for name in ("alerts", "dashboards"):
        shutil.copytree(ROOT / "grafana" / name, folder / "grafana" / name)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 32768:
        bound = {"ulimits": {"nofile": {"soft": hard, "hard": hard}}}
        for name, services in ((OVERRIDE, ["gatepass"]), (OVERRIDE_SEVERAL, ["balancer", "gatepass"])):
            (where / name).write_text(yaml.safe_dump({"services": dict.fromkeys(services, bound)}))
    return where
