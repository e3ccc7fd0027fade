"""The units of deploy/systemd, run by a real systemd: started, reloaded, broken, hung, upgraded and stopped.

That systemd is another one than this machine's: systemd-nspawn boots it on an overlay of this machine's root folder,
with a network and a folder of units of its own, so nothing of this machine is changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deployed.outcome import Outcome, Unable, run
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
"""Outside of /home and /root, which the unit hides from the service."""
VENDOR = 7070
CONFIG = f"""\
access: open
listen: 127.0.0.1:8080
admin: 127.0.0.1:9090
state_file: /var/lib/gatepass/state.json
credentials:
  key: {{static: {{token: "${{file:/run/credentials/gatepass.service/token}}"}}}}
routes:
  v: {{credential: key, upstream: "http://127.0.0.1:{VENDOR}"}}
"""
DROP_IN = """\
[Service]
LoadCredential=token:/etc/gatepass/secrets/token
# Shipped: 30s. A process that is stopped by a signal does not end by SIGABRT, as a hung one does.
WatchdogSec=5s
TimeoutAbortSec=2s
"""
TARGET = """\
[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
"""
BOOT = """\
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1
shift
exec systemd-nspawn --quiet --register=no --directory="$root/root" --private-network "$@"
"""


class Booted:
    """A running systemd of its own."""

    def __init__(self, folder: Path, leader: int) -> None:
        self.folder = folder
        self.leader = leader
        """Process id of its systemd."""

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command beside that systemd; return what it prints."""
        return run("nsenter", "--target", str(self.leader), "--all", "--", *command, check=check)

    def shows(self, name: str, unit: str = "gatepass.service") -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def configure(self, text: str) -> None:
        """Replace the configuration, as operators do."""
        fresh = self.folder / "etc" / "new.yaml"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(self.folder / "etc" / "config.yaml")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 180.0) -> float:
        """Wait for a condition; return the seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s\n{self.journal()[-4000:]}"
            time.sleep(0.05)
        return time.monotonic() - began

    def journal(self) -> str:
        """Return what the service has logged."""
        return self.run("journalctl", "--unit", "gatepass.service", "--output", "cat", "--no-pager")

    def running(self) -> bool:
        """Return whether the service has said that it is ready."""
        return self.shows("SubState") == "running"

    def alive(self, process: str) -> bool:
        """Return whether a process of that systemd is still there."""
        return bool(self.run("ps", "--no-headers", "-p", process, check=False))


def trial(folder: Path) -> Outcome:
    """Install as docs/deployment.md says, and go through a service's bad days."""
    missing = [name for name in ("systemd-nspawn", "nsenter", "unshare") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        raise Unable(f"it needs root, and {', '.join(missing or ['nothing else'])}")
    outcome = Outcome()
    outcome.add("installed", install(folder))
    with booted(folder) as machine:
        machine.run("systemctl", "enable", "--quiet", "gatepass.socket", "gatepass")
        machine.run("systemctl", "start", "gatepass.socket")
        began = time.monotonic()
        machine.run("systemctl", "start", "gatepass")
        outcome.add("systemctl start: ready after", f"{time.monotonic() - began:.1f} s")
        said = machine.run("systemd-analyze", "security", "--no-pager", "gatepass.service")
        score = re.findall(r"exposure level for gatepass.service: ([\d.]+)", said)[0]
        outcome.add("exposure of the running service", score, good=float(score) <= 1.2)
        for name, step in STEPS.items():
            with load(machine) as counts:
                figure, good = step(machine)
            good_requests, failures = counts()
            outcome.add(name, figure, good=good)
            outcome.add("    requests meanwhile, failed", f"{good_requests}, {failures or 0}",
                        good=good_requests > 0 and not (failures and name not in MAY_FAIL))  # fmt: skip
        machine.run("systemctl", "stop", "gatepass.socket", "gatepass")
        result = machine.shows("Result"), machine.shows("ExecMainStatus")
        outcome.add("systemctl stop", " ".join(result), good=result == ("success", "0"))
        outcome.add("secrets in the journal", machine.journal().count("CANARY"), good="CANARY" not in machine.journal())
    return outcome


# ------------------------------------------------------------------------------------------------------ another systemd


def install(folder: Path) -> str:
    """Put a virtual environment with a wheel, the units, a configuration and a secret into the folder."""
    python = python_outside_home()
    environment = folder / "opt"
    inside = environment / "bin" / "python"
    run(python, "-m", "venv", environment)
    run(inside, "-I", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", ROOT / "requirements" / "run.txt")
    wheels = ROOT / "dist"
    if not any(wheels.glob("gatepass-*.whl")):
        wheels = folder / "dist"
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
            "--wheel-dir", wheels, ROOT)  # fmt: skip
    said = run(inside, "-I", "-m", "pip", "install", "--no-deps", "--no-index", "--find-links", wheels, "gatepass")
    program = environment / "bin" / "gatepass"
    program.write_text(program.read_text().replace(str(environment), "/opt/gatepass"))
    for name in ("gatepass.service", "gatepass.socket"):
        write(folder / "units" / name, (ROOT / "deploy" / "systemd" / name).read_text())
    write(folder / "units" / "gatepass.service.d" / "trial.conf", DROP_IN)
    write(folder / "units" / "trial.target", TARGET)
    write(folder / "etc" / "config.yaml", CONFIG)
    write(folder / "etc" / "secrets" / "token", "CANARY")
    (folder / "etc" / "secrets" / "token").chmod(0o600)
    return str(re.findall(r"(gatepass-\S+\.whl)", said)[0])


def python_outside_home() -> str:
    """Return a supported Python that the unit does not hide from the service."""
    python = next((path for path in PYTHONS if suits(path)), None)
    if python is None:
        raise Unable("there is no Python 3.11 or newer with venv outside of /home and /root")
    return python


def suits(python: str) -> bool:
    """Return whether this Python is new enough and makes virtual environments."""
    program = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def write(path: Path, text: str) -> None:
    """Write a file that everybody may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


@contextmanager
def booted(folder: Path) -> Iterator[Booted]:
    """Boot; shut down afterwards."""
    (folder / "overlay").mkdir()
    binds = {"units": "/etc/systemd/system", "etc": "/etc/gatepass", "opt": "/opt/gatepass"}
    keep = [] if Path("/run/systemd/system").is_dir() else ["--keep-unit"]  # without systemd nobody could make a scope
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "boot", str(folder / "overlay"),
               *keep, *(f"--bind={folder / name}:{to}" for name, to in binds.items()), "--boot", "--",
               "--unit=trial.target"]  # fmt: skip
    with (folder / "console").open("wb") as console:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        machine = Booted(folder, leader(nspawn, folder / "console"))
        machine.until(lambda: "trial.target" in machine.run("systemctl", "list-units", "--state=active", "trial.target",
                                                            check=False), "boot")  # fmt: skip
        yield machine
    finally:
        nspawn.terminate()
        try:
            nspawn.wait(60)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def leader(nspawn: subprocess.Popen[bytes], console: Path) -> int:
    """Return the process id of the systemd that nspawn has started."""
    for _ in range(600):
        assert nspawn.poll() is None, console.read_text(errors="replace")
        for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        time.sleep(0.05)
    raise AssertionError(console.read_text(errors="replace"))


@contextmanager
def load(machine: Booted) -> Iterator[Callable[[], tuple[int, dict[str, int]]]]:
    """Run apps in that systemd's network; afterwards the call returns their good requests and their failures."""
    apps = subprocess.Popen(
        ["nsenter", "--target", str(machine.leader), "--net", "--", sys.executable, "-m", "tests.deployed.load",
         str(VENDOR), "8080"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TEST_PATIENCE": "300"},
    )  # fmt: skip
    said: list[str] = []
    assert apps.stdout is not None
    assert apps.stdout.readline() == "served\n"

    def counts() -> tuple[int, dict[str, int]]:
        found = json.loads(said[0])
        return int(found["good"]), dict(found["failures"])

    try:
        yield counts
    finally:
        said.append(apps.communicate(timeout=300)[0])


# ------------------------------------------------------------------------------------------------------------ the steps


def reloaded(machine: Booted) -> tuple[str, bool]:
    """`systemctl reload` takes up another configuration."""
    machine.configure(CONFIG.replace("routes:", "token_timeout: 4s\nroutes:"))
    machine.run("systemctl", "reload", "gatepass")
    took = machine.until(lambda: '"reloaded"' in machine.journal(), "reloaded")
    return f"{took:.1f} s", True


def restarted(machine: Booted) -> tuple[str, bool]:
    """Connections wait in the socket while the service restarts."""
    began = time.monotonic()
    machine.run("systemctl", "restart", "gatepass")
    return f"{time.monotonic() - began:.1f} s", machine.shows("ActiveState") == "active"


def upgraded(machine: Booted) -> tuple[str, bool]:
    """The successor becomes the main process."""
    before, restarts = machine.shows("MainPID"), machine.shows("NRestarts")
    machine.run("systemctl", "kill", "-s", "USR2", "gatepass")
    took = machine.until(lambda: machine.shows("MainPID") not in {before, "0"}, "another main process")
    machine.until(lambda: not machine.alive(before), "the old process ends")
    return f"{took:.1f} s", machine.shows("NRestarts") == restarts and machine.running()


def broken(machine: Booted) -> tuple[str, bool]:
    """More quick failed starts than systemd's default limit end neither service nor socket."""
    before = int(machine.shows("NRestarts"))
    machine.configure("nonsense: 1\n")
    machine.run("systemctl", "restart", "--no-block", "gatepass")
    machine.until(lambda: int(machine.shows("NRestarts")) >= before + 6, "six failed starts")
    listening = machine.shows("ActiveState", "gatepass.socket") == "active"
    machine.configure(CONFIG)
    took = machine.until(machine.running, "a start after the configuration was mended")
    return f"{took:.1f} s after it was mended", listening


def killed(machine: Booted) -> tuple[str, bool]:
    """A process that is killed is started again."""
    before = machine.shows("MainPID")
    machine.run("systemctl", "kill", "-s", "KILL", "gatepass")
    took = machine.until(lambda: machine.shows("MainPID") not in {before, "0"} and machine.running(), "a new start")
    return f"{took:.1f} s", True


def hung(machine: Booted) -> tuple[str, bool]:
    """The watchdog ends a process that does not answer any more."""
    before = machine.shows("MainPID")
    machine.run("systemctl", "kill", "-s", "STOP", "gatepass")
    took = machine.until(lambda: machine.shows("MainPID") not in {before, "0"} and machine.running(), "a new start")
    return f"{took:.1f} s", "atchdog" in machine.run(
        "journalctl", "--no-pager", "--output", "cat", "--unit", "gatepass"
    )


STEPS: dict[str, Callable[[Booted], tuple[str, bool]]] = {
    "systemctl reload: another configuration is active after": reloaded,
    "systemctl restart": restarted,
    "upgrade in place: another main process after": upgraded,
    "systemctl restart after an upgrade": restarted,
    "six failed starts; serves again": broken,
    "kill -9: serves again after": killed,
    "hung; the watchdog (here 5 s) ends it; serves again after": hung,
}
MAY_FAIL = ("kill -9: serves again after", "hung; the watchdog (here 5 s) ends it; serves again after")
"""The requests that were running then are lost."""
