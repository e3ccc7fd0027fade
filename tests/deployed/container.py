"""The image as one hardened container: size, content, start, health, drain, and any user."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.deployed.outcome import Outcome, docker, needs_docker, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = os.environ.get("IMAGE", "gatepass:dev")
CONFIG = """\
access: open
credentials:
  key: {static: {token: "${file:/run/secrets/gatepass/token}"}}
routes:
  v: {credential: key, upstream: "http://127.0.0.1:9"}
"""
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "512m",
            "--pids-limit", "64", "--ulimit", "nofile=4096", "--stop-timeout", "40")  # fmt: skip
INSIDE = """
import datetime, ssl, zoneinfo
import opentelemetry.sdk, redis.asyncio  # the extras
import gateway.proxy.handler as handler
noon = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.timezone.utc)
there = noon.astimezone(zoneinfo.ZoneInfo("Europe/Oslo")).hour
print(len(ssl.create_default_context().get_ca_certs()), there, handler.__file__.rpartition(".")[2])
"""
NOT_SHIPPED = ("bin/sh", "bin/bash", "usr/bin/dpkg", "usr/bin/apt", "usr/local/bin/pip")


def trial(folder: Path) -> Outcome:
    """Run the image as docs/deployment.md says."""
    needs_docker(IMAGE)
    outcome = Outcome()
    image = json.loads(docker("image", "inspect", IMAGE))[0]
    outcome.add("image size", f"{image['Size'] / 2**20:.0f} MiB")
    content(outcome)
    for user in ("10001:10001", "4242:4242"):
        fill(folder)
        with container(folder, "--user", user) as (name, port):
            waited = until_healthy(name)
            outcome.add(f"user {user}: ports open, healthy after", f"{ports_open(port, name):.1f} s, {waited:.1f} s")
            if user == "10001:10001":
                replaced(outcome, folder, name)
            began = time.monotonic()
            docker("stop", name)
            state = inspected(name)["State"]
            outcome.add(f"user {user}: docker stop", f"exit {state['ExitCode']} after {time.monotonic() - began:.1f} s",
                        good=state["ExitCode"] == 0)  # fmt: skip
    unreadable(outcome, folder)
    return outcome


def content(outcome: Outcome) -> None:
    """List the files, without running anything."""
    name = docker("create", IMAGE).strip()
    try:
        archive = shell(f"{{docker}} export {name} | tar -tvf -")
    finally:
        docker("rm", name)
    paths = {line.split()[-1] for line in archive.splitlines()}
    outcome.add("shell, package manager, pip", sorted(paths & set(NOT_SHIPPED)), good=not paths & set(NOT_SHIPPED))
    setuid = [line for line in archive.splitlines() if "s" in line.split()[0][1:]]
    outcome.add("setuid files", len(setuid), good=not setuid)
    said = docker("run", "--rm", "--read-only", "--user", "4242:4242", "--entrypoint", "python", IMAGE, "-c", INSIDE)
    authorities, hour, compiled = said.split()
    outcome.add("authorities, hour of noon UTC in Oslo in July, hot path", said.strip().replace(" ", ", "),
                good=int(authorities) > 100 and hour == "14" and compiled == "so")  # fmt: skip


def fill(folder: Path) -> None:
    """Write a configuration and a secret, readable by any user."""
    for name, text in {"config/config.yaml": CONFIG, "secrets/token": "CANARY"}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        path.parent.chmod(0o755)
    folder.chmod(0o755)


@contextmanager
def container(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Run the image; yield the container's name and the published data port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    name = f"gatepass-trial-{os.getpid()}"
    docker("run", "--detach", "--name", name, *HARDENED, *options, "-p", f"127.0.0.1:{port}:8080",
           "-v", f"{folder / 'config'}:/etc/gatepass:ro", "-v", f"{folder / 'secrets'}:/run/secrets/gatepass:ro",
           IMAGE)  # fmt: skip
    try:
        yield name, port
    finally:
        docker("rm", "--force", name)


def inspected(name: str) -> dict[str, Any]:
    """Return what the engine knows of a container."""
    return dict(json.loads(docker("inspect", name))[0])


def until_healthy(name: str) -> float:
    """Wait until the container is healthy; return the seconds from its start to the end of that check."""
    for _ in range(300):
        state = inspected(name)["State"]
        if state["Health"]["Status"] == "healthy":
            last = state["Health"]["Log"][-1]["End"].split(" +")[0].replace(" ", "T").rstrip("Z")[:26]
            began = state["StartedAt"].rstrip("Z")[:26]
            return (datetime.fromisoformat(last) - datetime.fromisoformat(began)).total_seconds()
        assert state["Status"] == "running", docker("logs", name)
        time.sleep(0.1)
    raise AssertionError(f"not healthy within 30 s: {state}")


def ports_open(port: int, name: str) -> float:
    """Return the seconds from the start of the process to its event `started`; check that the port is reached."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as app:
        app.sendall(b"GET /v/x HTTP/1.1\r\nHost: gatepass\r\nConnection: close\r\n\r\n")
        answer = app.recv(64)
    assert b" 502 " in answer, answer  # the gateway's own: its vendor does not exist
    log = [json.loads(line) for line in docker("logs", name).splitlines()]
    started = next(each["timestamp"] for each in log if each["event"] == "started")
    began = inspected(name)["State"]["StartedAt"]
    return (datetime.fromisoformat(started[:26]) - datetime.fromisoformat(began[:26])).total_seconds()


def replaced(outcome: Outcome, folder: Path, name: str) -> None:
    """Replace the configuration with `mv`, as operators do; the gateway must take it up."""
    fresh = folder / "config" / "new.yaml"
    fresh.write_text(CONFIG.replace("  v:", "  w:"))
    fresh.chmod(0o644)
    fresh.replace(folder / "config" / "config.yaml")
    began = time.monotonic()
    while '"reloaded"' not in docker("logs", name) and time.monotonic() - began < 20:
        time.sleep(0.1)
    taken = time.monotonic() - began
    outcome.add("a configuration that mv replaces is taken up after", f"{taken:.1f} s", good=taken < 20)


def unreadable(outcome: Outcome, folder: Path) -> None:
    """Start with a configuration that the container's user may not read."""
    path = folder / "config" / "config.yaml"
    path.chmod(0o600)
    name = f"gatepass-trial-{os.getpid()}-unreadable"
    try:
        docker("run", "--name", name, "--user", "4242:4242", "-v", f"{folder / 'config'}:/etc/gatepass:ro", IMAGE,
               check=False)  # fmt: skip
        said = shell(f"{{docker}} logs {name} 2>&1")
    finally:
        docker("rm", "--force", name)
    outcome.add("a configuration that may not be read names the user", "user 4242" in said, good="user 4242" in said)
