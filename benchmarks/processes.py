"""Starting, pinning and measuring the processes of a bench. Linux only: it reads /proc and pins to cores."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
KEY = "gp_bench-key-of-no-value"
TICK = 1 / os.sysconf("SC_CLK_TCK")
CONFIG = """\
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
clients:
  - {{name: bench, key_sha256: {digest}}}
credentials:
  bench:
    grant:
      request: {{method: POST, url: "http://127.0.0.1:{upstream}/token", form: {{grant_type: client_credentials}}}}
      response: {{token: access_token, expires: {{in: expires_in}}}}
routes:
  bench: {{credential: bench, upstream: "http://127.0.0.1:{upstream}", max_body: 2GiB}}
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def cores() -> tuple[int, int]:
    """Return the core for what is measured and the core for all else."""
    first, *others = sorted(os.sched_getaffinity(0))
    return first, others[0] if others else first


@dataclass(frozen=True, slots=True)
class Subject:
    """A running process that serves `url`."""

    name: str
    pid: int
    url: str
    began: float
    """`time.perf_counter` just before it was started."""

    def cpu(self) -> float:
        """Return the CPU seconds that it has used, user and system, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    def peak_rss(self) -> float:
        """Return the highest resident size so far, MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextlib.contextmanager
def process(name: str, port: int, core: int, *command: str, output: Path) -> Iterator[Subject]:
    """Run a Python module on one core until the block ends; yields when it is on its way, not when it is ready."""
    with output.open("wb") as file:
        began = time.perf_counter()
        child = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-m", *command], cwd=ROOT, stdout=file, stderr=file
        )
        try:
            yield Subject(name, child.pid, f"http://127.0.0.1:{port}", began)
        finally:
            child.terminate()
            child.wait(timeout=30)


def wait_for(url: str, *, seconds: float = 20) -> float:
    """Ask until the answer is 200, and return when that was (`time.perf_counter`)."""
    address, _, path = url.removeprefix("http://").partition("/")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connect(address)) as client:
            client.request("GET", f"/{path}", headers={"X-Gatepass-Key": KEY})
            if client.getresponse().status == 200:
                return time.perf_counter()
        time.sleep(0.005)
    raise TimeoutError(f"{url} was not 200 within {seconds:g} s")


def connect(address: str) -> http.client.HTTPConnection:
    """Return a client for `host:port`."""
    return http.client.HTTPConnection(address, timeout=60)


@contextlib.contextmanager
def vendor(folder: Path, core: int) -> Iterator[int]:
    """Run the upstream, which is the token endpoint too; yields its port."""
    port = free_port()
    with process("upstream", port, core, "benchmarks.upstream", str(port), output=folder / "upstream.log") as subject:
        deadline = time.perf_counter() + 10
        while time.perf_counter() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.01)
        del subject
        yield port


@contextlib.contextmanager
def gatepass(folder: Path, core: int, upstream: int) -> Iterator[Subject]:
    """Run `gatepass serve` with a client's key, metrics and the access log on, as it is shipped."""
    port, config = free_port(), folder / "config.yaml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config.write_text(CONFIG.format(port=port, admin=free_port(), digest=digest, upstream=upstream), encoding="utf-8")
    log = folder / "gatepass.log"
    with process("gatepass", port, core, "gateway", "serve", "-c", str(config), output=log) as subject:
        yield subject


@contextlib.contextmanager
def plain_proxy(folder: Path, core: int, upstream: int) -> Iterator[Subject]:
    """Run the yardstick."""
    port = free_port()
    command = ("benchmarks.plain_proxy", str(port), f"http://127.0.0.1:{upstream}")
    with process("plain aiohttp proxy", port, core, *command, output=folder / "plain.log") as subject:
        yield subject
