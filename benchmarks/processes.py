"""Starts, pins and measures the processes of a bench. Linux only, because it reads /proc and pins to cores."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]


def compiled_for(environment: Path) -> Path:
    """Return where `make compiled` puts the gateway with its hot path in C, as the image has it.

    Each environment has a folder of its own: `.venv` has `build/compiled`, `.venv-3.13` has `build/compiled-3.13`.
    """
    suffix = environment.name.removeprefix(".venv") if environment.name.startswith(".venv") else ""
    return ROOT / "build" / f"compiled{suffix}"


COMPILED = compiled_for(Path(sys.prefix))
KEY, PROBE = "gp_bench-key-of-no-value", "gp_probe-key-of-no-value"
TICK = 1 / os.sysconf("SC_CLK_TCK")
CONFIGS = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)


def render(template: str, folder: Path, into: str = "", **values: Any) -> Path:
    """Render a configuration file from its template in `templates/`; return its path."""
    path = folder / (into or template)
    digests = {"key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    digests["probe_sha256"] = hashlib.sha256(PROBE.encode()).hexdigest()
    text = CONFIGS.get_template(template).render(folder=str(folder), **digests, **values)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def cores() -> tuple[int, int]:
    """Return the core of the subject and the core of everything else."""
    first, *others = sorted(os.sched_getaffinity(0))
    return first, others[0] if others else first


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended in between
            if int(entry.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == pid:
                yield from family(int(entry.parent.name))


@dataclass(frozen=True, slots=True)
class Subject:
    """A running process, perhaps with children, that serves `url`."""

    name: str
    pid: int
    url: str
    began: float
    """`time.perf_counter` just before it was started."""
    prefix: str = "/bench"

    def cpu(self) -> float:
        """Return the CPU seconds used so far: user and system, all threads and children."""
        spent = 0
        for pid in family(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
        return spent * TICK

    def rss(self) -> float:
        """Return the current resident size in MiB, including children."""
        return sum(memory(pid, "VmRSS") for pid in family(self.pid))

    def peak_rss(self) -> float:
        """Return the highest resident size so far, in MiB."""
        return memory(self.pid, "VmHWM")


def memory(pid: int, field: str) -> float:
    """Return a field of /proc/PID/status in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


@contextlib.contextmanager
def running(
    name: str,
    url: str,
    core: int,
    *command: str,
    output: Path,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> Iterator[Subject]:
    """Run a command on one core until the block ends. It has been started, but need not be ready, when this yields.

    `home` is its working directory, from which Python imports modules first; by default the project's.
    """
    with output.open("wb") as said, output.with_suffix(".err").open("wb") as complained:
        began = time.perf_counter()
        # An installed gateway has its bytecode cached. Without the cache, each start would compile all modules again.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command],
            cwd=home or ROOT,
            stdout=said,
            stderr=complained,
            env={**inherited, **(environ or {})},
        )
        try:
            yield Subject(name, child.pid, url, began)
        finally:
            child.terminate()
            try:
                child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def wait_for(url: str, *, seconds: float = 20) -> float:
    """Send requests until one is answered with 200; return that instant (`time.perf_counter`)."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(url, KEY) == 200:
                return time.perf_counter()
        time.sleep(0.005)
    raise TimeoutError(f"{url} was not 200 within {seconds:g} s")


def ask(url: str, key: str | None, method: str = "GET") -> int:
    """Send one request and return its status."""
    scheme, _, rest = url.partition("://")
    address, _, path = rest.partition("/")
    headers = {"X-Gatepass-Key": key} if key else {}
    with contextlib.closing(connect(address, secure=scheme == "https")) as client:
        client.request(method, f"/{path}", headers=headers)
        return client.getresponse().status


def connect(address: str, *, secure: bool = False) -> http.client.HTTPConnection:
    """Return a client for `host:port`. It does not verify the server's certificate."""
    if not secure:
        return http.client.HTTPConnection(address, timeout=60)
    return http.client.HTTPSConnection(address, timeout=60, context=ssl._create_unverified_context())  # noqa: SLF001


def wait_for_port(port: int, *, seconds: float = 10) -> None:
    """Wait until something listens on the port."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")


@contextlib.contextmanager
def vendor(folder: Path, core: int) -> Iterator[int]:
    """Run `benchmarks.upstream`, which is vendor and token endpoint; yield its port."""
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.upstream", str(port))
    with running("upstream", f"http://127.0.0.1:{port}", core, *command, output=folder / "upstream.log"):
        wait_for_port(port)
        yield port


def is_compiled() -> bool:
    """Return whether `make compiled` has built a gateway for this version of Python."""
    return any(COMPILED.glob(f"*__mypyc{sysconfig.get_config_var('EXT_SUFFIX')}"))


def c_compiler() -> str:
    """Return the name and version of the compiler that builds extension modules."""
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    told = subprocess.run([command, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"{Path(command).name} {told.stdout.strip()}"


def gateway_home() -> Path:
    """Return the folder of the gateway to measure: the compiled one if it exists."""
    return COMPILED if is_compiled() else ROOT


@contextlib.contextmanager
def gatepass(folder: Path, core: int, upstream: int) -> Iterator[Subject]:
    """Run `gatepass serve` in front of that upstream, with all features of a real deployment."""
    port = free_port()
    ports: dict[str, Any] = {"port": port, "admin": free_port(), "upstream": upstream, "token_port": upstream}
    config = render("gatepass.yaml", folder, tls=False, **ports)
    command = (sys.executable, "-m", "gateway", "serve", "-c", str(config))
    url, log = f"http://127.0.0.1:{port}", folder / "gatepass.log"
    with running("gatepass", url, core, *command, output=log, home=gateway_home()) as subject:
        yield subject
