"""Runs a gateway for tests from YAML, with the real loader; searches its log and metrics for canaries."""

from __future__ import annotations

import io
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gateway.app import Gateway
from gateway.clock import SystemClock
from gateway.config import load
from gateway.model import Logs
from gateway.observe import close_logging, configure_logging
from tests.kit.metrics import sample, scraped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.model import Clock
    from gateway.proxy import Snapshot
    from gateway.proxy.prepared import PreparedRoute
    from gateway.resolver import Resolver

CANARY = "CANARY-5f1d2c-do-not-print"
"""The secret that all tests use. It may appear only in requests to vendors."""


class Running:
    """A gateway under test, with its log and metrics."""

    def __init__(self, gateway: Gateway, stream: io.StringIO, clock: Clock) -> None:
        self.gateway = gateway
        self.clock = clock
        """The clock for the lives of its tokens."""
        self._stream = stream

    @property
    def address(self) -> tuple[str, int]:
        assert self.gateway.data_address is not None
        return self.gateway.data_address

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    @property
    def log(self) -> str:
        """All events logged so far."""
        self.gateway._journal.close()
        return self._stream.getvalue()

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 if it does not exist."""
        return sample(self.gateway.metrics, name, labels) or 0.0

    def at_rest(self) -> bool:
        """Whether no exchange runs and no pool has a connection in use."""
        gauges = [self.metric("gatepass_requests_in_flight", route=prepared.route.name) for prepared in self.routes]
        return not any(gauges) and all(prepared.pool.at_rest for prepared in self.routes)

    @property
    def routes(self) -> tuple[PreparedRoute, ...]:
        return self.snapshot.routes

    @property
    def snapshot(self) -> Snapshot:
        assert self.gateway._handler is not None
        return self.gateway._handler.snapshot


def _opened(text: str) -> str:
    """Return the line that opens access where a test configures no clients: its requests have any `Host`."""
    keys = yaml.safe_load(text)
    return "" if {"access", "clients"} & keys.keys() else "access: open\n"


@asynccontextmanager
async def running(
    config: Mapping[str, object] | str,
    *,
    clock: Clock | None = None,
    resolver: Resolver | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Run a gateway on free ports; at the end, fail if its log or metrics contain a canary."""
    text = config if isinstance(config, str) else yaml.safe_dump(dict(config))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(  # noqa: ASYNC240 - a small file in a temporary folder
            f"listen: 127.0.0.1:0\nadmin: null\n{_opened(text)}{text}"
        )
        loaded = load([path], environ={"CANARY": CANARY, **(environ or {})})
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="debug"), stream)
    clock = clock or SystemClock()
    gateway = Gateway(loaded, clock=clock, resolver=resolver)
    it = Running(gateway, stream, clock)
    try:
        await gateway.start()
        yield it
    finally:
        await gateway.stop()
        exposition = scraped(gateway.metrics)
        close_logging()
    said = stream.getvalue()
    assert CANARY not in said, "a secret in the log"
    assert CANARY not in exposition, "a secret in the metrics"


def one_route(port: int, **route: object) -> dict[str, Any]:
    """Return a configuration with one route `/v` to a vendor on `port`, with a static token (the canary)."""
    return {
        "credentials": {"key": {"static": {"token": "${CANARY}"}}},
        "routes": {"v": {"credential": "key", "upstream": f"http://127.0.0.1:{port}", **route}},
    }
