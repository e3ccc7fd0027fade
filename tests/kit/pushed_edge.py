"""The shipped configuration of Envoy with pushed tokens, run by the real Envoy, and a scene around it."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.planes import sds
from tests.kit.edge_cases import Scene
from tests.kit.edge_vendor import edge_vendor
from tests.kit.edges import PLANES, Edge, started, swap
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import running
from tests.kit.planes import client, fetching
from tests.kit.tools import tool
from tests.kit.wire import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

SHIPPED = PLANES / "envoy-sds" / "envoy.yaml"


class PushedEdge(Edge):
    """A proxy that gets its tokens as files."""

    @property
    def sds(self) -> Path:
        return self.folder / "sds"

    def config(self, credential: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The configuration of a gateway that pushes to this proxy."""
        push = {"kind": "envoy-sds", "directory": str(self.sds), "credentials": ["idfy"], "uid": os.getuid()}
        return {
            "credentials": {"idfy": credential},
            "routes": {"idfy": {"credential": "idfy", "upstream": f"http://127.0.0.1:{self.vendor}"}},
            "clients": [client()],
            "planes": {"listen": f"unix:{self.socket}", "push": {"edge": push}},
            **more,
        }


@contextmanager
def envoy(folder: Path) -> Iterator[PushedEdge]:
    """Run Envoy with the shipped configuration on other ports, and without a vendor's TLS."""
    edge = PushedEdge(folder, "path", replays=frozenset({"GET", "POST"}))
    text = swap(
        SHIPPED.read_text("utf-8"),
        ("{path: /run/gatepass/planes.sock}", f"{{path: {edge.socket}}}"),
        ("path: /run/gatepass/sds/idfy.json", f"path: {edge.sds}/idfy.json"),
        ("{path: /run/gatepass/sds}", f"{{path: {edge.sds}}}"),
        ("port_value: 8080", f"port_value: {edge.port}"),
        ("{address: eve.idfy.com, port_value: 443}", f"{{address: 127.0.0.1, port_value: {edge.vendor}}}"),
    )
    text = text[: text.index("      transport_socket:")]  # the vendor of a test has no TLS
    edge.sds.mkdir(mode=0o750)
    (edge.sds / "idfy.json").write_bytes(sds.document("idfy", None))  # Envoy starts only with the file
    (folder / "envoy.yaml").write_text(text)
    options = (
        "--log-level",
        "warning",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--file-flush-interval-msec",
        "50",
    )
    with started(edge, tool("envoy"), "-c", str(folder / "envoy.yaml"), *options):
        yield edge


@asynccontextmanager
async def pushed(edge: PushedEdge, *, endpoint: Mapping[str, Any] | None = None, **more: Any) -> AsyncIterator[Scene]:
    """Run a gateway and a vendor for Envoy."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with TokenEndpoint() as served, aiohttp.ClientSession(timeout=timeout) as session:
        for key, value in (endpoint or {}).items():
            setattr(served, key, value)
        config = edge.config({}, **more)
        config["credentials"] = {"idfy": fetching(config, served)["credentials"]["key"]}
        async with (
            edge_vendor(edge.vendor, lambda sent: sent.startswith("Bearer ")) as vendor,
            running(config) as gateway,
        ):
            it = Scene(edge, gateway, vendor, served, session)
            yield it
            it.check()
