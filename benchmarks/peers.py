"""The gateway's peers: how each is started and configured, and what must be installed for it.

All do the same work: remove `/bench`, add a bearer token to the request, write a JSON line for it to a file. Each is
configured as its documentation recommends, with pools and limits as large as the load needs. Each runs on one core.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import trustme

from benchmarks.processes import COMPILED, ROOT, Subject, gateway_home, render, running, wait_for_port
from benchmarks.report import DIRECT
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy under test, or the gateway itself."""

    name: str
    title: str
    command: tuple[str, ...]
    """May contain `{config}`, `{folder}`, `{port}`, `{upstream}` and `{scheme}`."""
    config: str = ""
    """Template in `templates/`; `{config}` is the file that is rendered from it."""
    more: tuple[str, ...] = ()
    """Further templates, whose rendered files the first one includes."""
    package: str = ""
    """What installs it."""
    needs: tuple[Path, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    """The argument that prints its version."""
    lines: bool = True
    """Whether it writes access lines."""
    home: Path = ROOT
    """Its working directory."""

    def missing(self) -> str:
        """Return what would install it; empty if it is installed."""
        if not find(self.command[0]):
            return self.package
        return "" if all(path.exists() for path in self.needs) else self.package


WHEEL, DEBIAN = "make bench-peers", "benchmarks/debian.sh"
SERVE = (PYTHON, "-m", "gateway", "serve", "-c", "{config}")
NGINX = ("nginx", "-p", "{folder}", "-c", "{config}")
PEERS = (
    Peer("gatepass", "Gatepass, every feature on", SERVE, "gatepass.yaml", home=gateway_home()),
    Peer("interpreted", "Gatepass, not compiled", SERVE, "gatepass.yaml", package="make compiled", needs=(COMPILED,)),
    Peer("bare", "Gatepass, data plane alone", SERVE, "gatepass-bare.yaml", lines=False, home=gateway_home()),
    Peer(
        "envoy",
        "Envoy, credential_injector",
        ("envoy", "-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
        "envoy.yaml",
        package=WHEEL,
        version="--version",
    ),
    Peer(
        "traefik",
        "Traefik, constant header",
        ("traefik", "--configFile={config}"),
        "traefik.yaml",
        more=("traefik-routes.yaml",),
        package=WHEEL,
        version="version",
    ),
    Peer(
        "caddy",
        "Caddy, constant header",
        ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}"),
        "Caddyfile",
        package=WHEEL,
        version="version",
    ),
    Peer("nginx", "nginx, constant header", NGINX, "nginx.conf", package=DEBIAN, version="-v", values={"lua": False}),
    Peer("lua", "nginx + Lua", NGINX, "nginx.conf", package=DEBIAN, needs=(LUA,), values={"lua": True}),
    Peer(
        "haproxy",
        "HAProxy, constant header",
        ("haproxy", "-db", "-f", "{config}"),
        "haproxy.cfg",
        package=DEBIAN,
        version="-v",
    ),
    Peer(
        "plain",
        "plain aiohttp proxy",
        (PYTHON, "-m", "benchmarks.plain_proxy", "{port}", "{scheme}://localhost:{upstream}", "{folder}"),
    ),
)
BY_NAME = {peer.name: peer for peer in PEERS}


@dataclass(frozen=True, slots=True)
class Place:
    """Folder, cores and ports of the processes of one scenario."""

    folder: Path
    core: int
    """The core of the subject."""
    other: int
    """The core of everything else."""
    tls: bool
    upstream: int
    tls_upstream: int
    vendor: Subject

    @property
    def scheme(self) -> str:
        """Return the URL scheme of apps and vendor."""
        return "https" if self.tls else "http"


def find(command: str) -> str | None:
    """Return the path of a command, in this environment or on the system."""
    return shutil.which(command, path=os.pathsep.join((str(Path(PYTHON).parent), os.environ["PATH"], "/usr/sbin")))


@contextlib.contextmanager
def place(folder: Path, core: int, other: int, *, tls: bool, token_life: int) -> Iterator[Place]:
    """Create certificates and run the vendor."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server-both.pem")
    folder.chmod(0o755)
    (folder / "v1").mkdir()
    (folder / "v1" / "portrait").write_bytes(os.urandom(1024 * 1024))
    port, tls_port = free_port(), free_port()
    config = render("upstream.conf", folder, port=port, tls_port=tls_port, token_life=token_life)
    command = (find("nginx") or "nginx", "-p", str(folder), "-c", str(config))
    with running(DIRECT, f"http://127.0.0.1:{port}", other, *command, output=folder / "upstream.log") as vendor:
        wait_for_port(port)
        yield Place(folder, core, other, tls, port, tls_port, replace(vendor, prefix=""))


@contextlib.contextmanager
def started(peer: Peer, here: Place) -> Iterator[tuple[Subject, int]]:
    """Start a peer; yield it and its admin port, which only the gateway uses."""
    port, admin, lines = free_port(), free_port(), here.folder / f"{peer.name}.lines"
    upstream = here.tls_upstream if here.tls else here.upstream
    ports = {"port": port, "admin": admin, "upstream": upstream, "token_port": here.upstream}
    values: dict[str, Any] = {"name": peer.name, "tls": here.tls, "lines": lines, **ports, **peer.values}
    for template in peer.more:
        render(template, here.folder, **values)
    config = render(peer.config, here.folder, f"{peer.name}-{peer.config}", **values) if peer.config else ""
    words = {"config": config, "folder": here.folder, "port": port, "upstream": upstream, "scheme": here.scheme}
    command = (find(peer.command[0]) or "", *(word.format(**words) for word in peer.command[1:]))
    with running(
        peer.name,
        f"{here.scheme}://127.0.0.1:{port}",
        here.core,
        *command,
        output=here.folder / f"{peer.name}.out",
        environ={"GOMAXPROCS": "1"},
        home=peer.home,
    ) as subject:
        yield subject, admin


def version(peer: Peer) -> str:
    """Return the name and version that a peer prints; empty if it prints none."""
    if not peer.version:
        return ""
    told = subprocess.run([find(peer.command[0]) or "", peer.version], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
    return f"{peer.name} {found[0]}" if found else ""


def said(peer: Peer, here: Place) -> str:
    """Return the end of a peer's standard error."""
    return (here.folder / f"{peer.name}.err").read_text(encoding="utf-8", errors="replace")[-2000:]


def check_lines(peer: Peer, here: Place, requests: int) -> None:
    """End the run if a peer did not write a JSON line for each request."""
    with lines_of(peer, here).open("rb") as file:
        number, line = 0, b"{}"
        for number, line in enumerate(file, 1):  # noqa: B007 - the last one is used
            pass
    if number < requests or not isinstance(orjson.loads(line), dict):
        raise SystemExit(f"{peer.name} wrote {number:,} lines for {requests:,} requests")


def lines_of(peer: Peer, here: Place) -> Path:
    """Return the file with a peer's access lines: its own, or its standard output."""
    own = here.folder / f"{peer.name}.lines"
    return own if own.exists() else here.folder / f"{peer.name}.out"
