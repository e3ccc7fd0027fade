"""The shipped configurations of planes that ask, run by the real proxies on other ports and without a vendor's TLS.

A proxy runs for all tests of a file, because it takes seconds to start; Gatepass and the vendor run for one test each,
always at the same places.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trustme

from tests.kit.configuration import ROOT
from tests.kit.planes import client
from tests.kit.ports import free_port
from tests.kit.tools import SBIN, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLANES = ROOT / "deploy" / "planes"
READY_WITHIN = 30.0


def swap(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what a test must have otherwise; fails if the shipped file does not contain it."""
    for shipped, ours in pairs:
        assert shipped in text, shipped
        text = text.replace(shipped, ours)
    return text


@dataclass
class Edge:
    """A proxy: where apps reach it, where it expects Gatepass, and where the vendor."""

    folder: Path
    request: str
    """As `planes.ask.*.request`."""
    replays: frozenset[str] = frozenset({"GET", "POST"})
    """Methods that it sends once more after a refused token."""
    passes: frozenset[str] = frozenset()
    """Fields of ours that the vendor gets all the same."""
    port: int = field(default_factory=free_port)
    vendor: int = field(default_factory=free_port)
    planes: int = 0
    """The port of Gatepass, if the proxy cannot use a Unix socket."""

    @property
    def socket(self) -> Path:
        return self.folder / "planes.sock"

    def config(self, credential: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The configuration of a gateway that this proxy asks."""
        ask: dict[str, Any] = {"routes": ["idfy"], "request": self.request, "addresses": True}
        planes: dict[str, Any] = {"listen": f"unix:{self.socket}", "ask": {"edge": {**ask, "uid": os.getuid()}}}
        if self.planes:
            files = {"certificate": "tls.pem", "key": "tls.key", "client_ca": "ca.pem"}
            planes = {
                "listen": f"127.0.0.1:{self.planes}",
                "tls": {key: str(self.folder / name) for key, name in files.items()},
                "ask": {"edge": {**ask, "certificates": ["dns:traefik.internal"]}},
            }
        return {
            "credentials": {"idfy": credential},
            "routes": {"idfy": {"credential": "idfy", "upstream": f"http://127.0.0.1:{self.vendor}", "deny": ["/no"]}},
            "clients": [client()],
            "planes": planes,
            **more,
        }


def _routes(port: int) -> bool:
    """Whether the proxy has read its routes; it accepts connections before, and answers 404."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_WITHIN)
    try:
        connection.request("GET", "/idfy/x")
        return connection.getresponse().status != http.HTTPStatus.NOT_FOUND
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def started(edge: Edge, *command: str) -> Iterator[Edge]:
    """Run a proxy until the end of the block."""
    with (edge.folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=edge.folder)
    try:
        began = time.monotonic()
        while not _routes(edge.port):
            said = (edge.folder / "proxy.log").read_text(errors="replace")
            assert process.poll() is None, said
            assert time.monotonic() - began < READY_WITHIN, said
            time.sleep(0.05)
        yield edge
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def nginx(folder: Path) -> Iterator[Edge]:
    program = tool("nginx", SBIN)
    edge = Edge(folder, "x-original")
    text = swap(
        (PLANES / "nginx" / "gatepass-ask.conf").read_text("utf-8"),
        ("unix:/run/gatepass/planes.sock", f"unix:{edge.socket}"),
        ("server eve.idfy.com:443;", f"server 127.0.0.1:{edge.vendor};"),
        ("https://idfy_api", "http://idfy_api"),
        ("listen 8443 ssl;", f"listen 127.0.0.1:{edge.port};"),
    )
    text = re.sub(r"^\s*(proxy_)?ssl_.*$", "", text, flags=re.MULTILINE)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {temporary}\n{text} }}\n"
    )
    with started(edge, program, "-c", str(folder / "nginx.conf"), "-p", str(folder)):
        yield edge


@contextmanager
def caddy(folder: Path) -> Iterator[Edge]:
    edge = Edge(folder, "x-forwarded", replays=frozenset({"GET"}))
    text = swap(
        (PLANES / "caddy" / "Caddyfile").read_text("utf-8"),
        ("unix//run/gatepass/planes.sock", f"unix/{edge.socket}"),
        ("edge.example.com {", f"http://127.0.0.1:{edge.port} {{"),
        ("https://eve.idfy.com", f"http://127.0.0.1:{edge.vendor}"),
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    with started(edge, tool("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"):
        yield edge


@contextmanager
def traefik(folder: Path) -> Iterator[Edge]:
    program = tool("traefik")
    edge = Edge(folder, "x-forwarded", passes=frozenset({"x-gatepass-generation"}), planes=free_port())
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, host in (("tls", "localhost"), ("client", "traefik.internal")):
        made = ca.issue_cert(host)
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    dynamic = swap(
        (PLANES / "traefik" / "dynamic.yaml").read_text("utf-8"),
        ("https://gatepass.internal:8443", f"https://localhost:{edge.planes}"),
        ("/etc/traefik/gatepass-ca.pem", f"{folder}/ca.pem"),
        ("/etc/traefik/gatepass-client.", f"{folder}/client."),
        ("serverName: gatepass.internal", "serverName: localhost"),
        ("https://eve.idfy.com", f"http://127.0.0.1:{edge.vendor}"),
    )
    static = swap(
        (PLANES / "traefik" / "traefik.yaml").read_text("utf-8"),
        ('":8080"', f'"127.0.0.1:{edge.port}"'),
        ("/etc/traefik/dynamic.yaml", f"{folder}/dynamic.yaml"),
    )
    (folder / "dynamic.yaml").write_text(dynamic)
    (folder / "traefik.yaml").write_text(static)
    with started(edge, program, f"--configFile={folder}/traefik.yaml"):
        yield edge


@contextmanager
def envoy(folder: Path) -> Iterator[Edge]:
    edge = Edge(folder, "path", replays=frozenset())
    text = swap(
        (PLANES / "envoy-ext-authz" / "envoy.yaml").read_text("utf-8"),
        ("{path: /run/gatepass/planes.sock}", f"{{path: {edge.socket}}}"),
        ("{address: 0.0.0.0, port_value: 8080}", f"{{address: 127.0.0.1, port_value: {edge.port}}}"),
        ("{address: eve.idfy.com, port_value: 443}", f"{{address: 127.0.0.1, port_value: {edge.vendor}}}"),
    )
    text = text[: text.index("      transport_socket:")]  # the vendor of a test has no TLS
    (folder / "envoy.yaml").write_text(text)
    options = ("--log-level", "warning", "--disable-hot-restart", "--concurrency", "1")
    with started(edge, tool("envoy"), "-c", str(folder / "envoy.yaml"), *options):
        yield edge
