"""A gateway whose surroundings fail: its names, its standard output, its disk, its descriptors, the process itself.

Used by the soak and by `python -m benchmarks.faults`. The gateway is a process of its own. Names that end in
`.vendor.test` are resolved from a file, by a `sitecustomize` module that stands in for the system's `getaddrinfo`; its
standard output is a pipe, whose reader may stop. Linux only: limits are changed with prlimit(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gateway.sandbox import Sandbox
from gateway.sandbox.demo.process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from gateway.sandbox.vendor import Vendor

ROOT = Path(__file__).parents[1]
ZONE = "vendor.test"
KEY = "gp_soak-key-of-no-value"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""The addresses that names lead to, before and after a move."""
LOG_BUFFER = 64 * 1024
"""Small, so that a stalled standard output shows."""
NAMES = """\
import json, os, socket, time

_system = socket.getaddrinfo

def getaddrinfo(host, port, *args, **kwargs):
    if not (isinstance(host, str) and host.endswith(".vendor.test")):
        return _system(host, port, *args, **kwargs)
    while True:
        with open(os.environ["SOAK_NAMES"], encoding="utf-8") as file:
            names = json.load(file)
        if host in names["failing"]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host not in names["hanging"]:
            return _system(names["moved"].get(host, "127.0.0.1"), port, *args, **kwargs)
        time.sleep(0.05)

socket.getaddrinfo = getaddrinfo
"""


def name_of(vendor: str) -> str:
    """Return the host name under which the gateway knows an emulated vendor."""
    return f"{vendor}.{ZONE}"


class Names:
    """What the names of vendors lead to."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "names.json"
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.moved: dict[str, str] = {}
        (folder / "sitecustomize.py").write_text(NAMES, encoding="utf-8")
        self.write()

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which the gateway takes its names from here."""
        others = os.environ.get("PYTHONPATH", "")
        return {"SOAK_NAMES": str(self._file), "PYTHONPATH": f"{self._file.parent}{os.pathsep}{others}"}

    def write(self) -> None:
        """Put changes in force."""
        text = json.dumps({"hanging": [*self.hanging], "failing": [*self.failing], "moved": self.moved})
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._file)


class Output:
    """Reads the gateway's standard output from a pipe into a file, except while it is stalled."""

    def __init__(self, folder: Path) -> None:
        self.pipe, self.file = folder / "stdout", folder / "gateway.log"
        self._reading = threading.Event()
        self._reading.set()
        os.mkfifo(self.pipe)
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        with self.pipe.open("rb", buffering=0) as pipe, self.file.open("wb", buffering=0) as file:
            while data := pipe.read(65536):
                self._reading.wait()
                file.write(data)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Read nothing meanwhile."""
        self._reading.clear()
        try:
            yield
        finally:
            self._reading.set()


@dataclass
class Stage:
    """A running gateway, its vendors and its surroundings."""

    sandbox: Sandbox
    gateway: GatewayProcess
    names: Names
    output: Output
    folder: Path

    @property
    def pid(self) -> int:
        """Return the gateway's process id."""
        process = self.gateway._process  # noqa: SLF001 - its id is all that is wanted
        assert process is not None
        return process.pid

    # -------------------------------------------------------------------------------------------------------- faults

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop the process, as a debugger or a hypervisor does."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def without_descriptors(self) -> Iterator[None]:
        """Let the process open no file and no socket."""
        used = {int(each.name) for each in Path(f"/proc/{self.pid}/fd").iterdir()}
        lowest = next(number for number in range(2**20) if number not in used)
        with self._limited(resource.RLIMIT_NOFILE, lowest):
            yield

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let the process write no file (EFBIG, where a full disk says ENOSPC)."""
        with self._limited(resource.RLIMIT_FSIZE, 0):
            yield

    @contextlib.contextmanager
    def _limited(self, what: int, limit: int) -> Iterator[None]:
        before = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (limit, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, what, before)

    @contextlib.contextmanager
    def unresolved(self, vendor: Vendor, *, hangs: bool) -> Iterator[None]:
        """Let the look-up of a vendor's name hang or fail."""
        name, kind = name_of(vendor.name), self.names.hanging if hangs else self.names.failing
        kind.add(name)
        self.names.write()
        try:
            yield
        finally:
            kind.discard(name)
            self.names.write()

    @contextlib.asynccontextmanager
    async def moved(self, vendor: Vendor) -> AsyncIterator[None]:
        """Let a vendor's name lead to another address, which serves it too; back again at the end."""
        loop, servers = asyncio.get_running_loop(), []
        for listener in vendor.listeners().values():
            protocol = listener._runner.server  # noqa: SLF001 - the same application at another address
            assert protocol is not None
            servers.append(await loop.create_server(protocol, ELSEWHERE, listener.port))
        self.names.moved[name_of(vendor.name)] = ELSEWHERE
        self.names.write()
        try:
            yield
        finally:
            del self.names.moved[name_of(vendor.name)]
            self.names.write()
            await asyncio.sleep(0.3)  # look-ups that had begun
            for server in servers:
                server.close()

    def connections_to(self, address: str) -> int:
        """Return how many TCP connections the gateway has to an address, whatever the port."""
        little = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
        rows = Path(f"/proc/{self.pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        own = set(self._open_files())
        ours = [row.split() for row in rows if f"socket:[{row.split()[9]}]" in own]
        return sum(row[2].startswith(f"{little}:") and row[3] == "01" for row in ours)

    def _open_files(self) -> Iterator[str]:
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield str(each.readlink())

    def write(self, more: Mapping[str, Any]) -> None:
        """Replace the last configuration file."""
        fresh, file = self.folder / "last.new", self.folder / "last.yaml"
        fresh.write_text(yaml.safe_dump(dict(more)), encoding="utf-8")
        fresh.replace(file)


@contextlib.asynccontextmanager
async def stage(folder: Path, more: Mapping[str, Any], **life: Any) -> AsyncIterator[Stage]:
    """Start vendors and a gateway with config.yaml; `more` is its last configuration file, `life` sets the vendors."""
    async with Sandbox() as sandbox:
        for vendor in sandbox.vendors.values():
            await vendor.set(rate_limit=False, **life)
        names, output = Names(folder), Output(folder)
        files = [ROOT / "config.yaml", folder / "sandbox.yaml", folder / "last.yaml"]
        gateway = GatewayProcess(files, {**sandbox.environ(), **names.environ}, output.pipe)
        files[1].write_text(_overlay(sandbox, gateway, folder), encoding="utf-8")
        result = Stage(sandbox, gateway, names, output, folder)
        result.write(more)
        async with gateway:
            gateway.log = output.file
            yield result


def _overlay(sandbox: Sandbox, gateway: GatewayProcess, folder: Path) -> str:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    budgets = [{"route": name, "per": "day", "hard": 10**9} for name in sandbox.vendors]
    text = sandbox.overlay(
        listen=gateway.listen,
        admin=gateway.admin,
        state_file=str(folder / "state.json"),
        logs={"buffer": LOG_BUFFER, "format": "json"},
        allow_addresses=["127.0.0.0/8"],
        clients=[{"name": "soak", "key_sha256": digest, "budgets": budgets}],
    )
    ports = {str(each.port): name for name, vendor in sandbox.vendors.items() for each in vendor.listeners().values()}
    return re.sub(rf"http://{re.escape(HERE)}:(\d+)", lambda m: f"http://{name_of(ports[m[1]])}:{m[1]}", text)


class Watched:
    """What the operating system and `/metrics` say of the gateway's process."""

    def __init__(self, stage: Stage) -> None:
        self._gateway, self.pid = stage.gateway, stage.pid

    def memory(self) -> float:
        """Resident memory, MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def state(self) -> dict[str, int]:
        """Open files by kind, and threads."""
        kinds = {"sockets": 0, "other files": 0}
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                kinds["sockets" if str(entry.readlink()).startswith("socket:") else "other files"] += 1
        return {**kinds, "threads": len(list(Path(f"/proc/{self.pid}/task").iterdir()))}

    async def gauges(self) -> dict[str, float]:
        """What must be zero at rest."""
        names = ("requests_in_flight", "client_connections", "token_waiters", "pool_open_connections")
        return {name: await self._gateway.metric(f"gatepass_{name}") for name in names}
