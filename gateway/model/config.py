"""One configuration: addresses, bounds, logs, and all that the other nouns describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.model.client import Client, Issuer
    from gateway.model.grant import Credential
    from gateway.model.route import Route


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the data port."""

    connections: int = 10_000
    connections_per_address: int = 5_000
    exchanges: int = 10_000
    """Requests in flight."""
    head_bytes: int = 64 * KIB
    """All header fields together, request line included."""
    field_bytes: int = 8 * KIB
    fields: int = 100
    header_timeout: float = 10.0
    """From a request's first byte (or the connection's opening) to the end of its head."""
    keepalive_timeout: float = 75.0
    body_timeout: float = 60.0
    """Longest silence of an app inside its request body, or of its reading side."""
    body_rate: int = 100
    """Bytes per second that earn a request body more waiting than `body_timeout` in all; 0: only silence counts."""


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """TLS on the data port, as PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Apps must show a certificate of these authorities."""
    fingerprint: str = ""
    """SHA-256 over the files' contents, hex."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Going down: `grace` seconds of business as usual with `/readyz` failing, then up to `timeout` for what runs."""

    grace: float = 0.0
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Logs:
    """`auto`: console on a terminal, JSON lines elsewhere."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = True
    """One event per request."""
    buffer: int = 8 * MIB
    """Bytes of lines that wait for a slow standard output."""
    sample: float = 1.0
    """Share of the requests answered with 2xx that get their event; all others always do."""
    loggers: tuple[tuple[str, str], ...] = ()
    """Levels of single loggers, by name; a name stands for those below it too."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans go."""

    otlp: str
    """The collector's URL, OTLP over HTTP."""
    sample: float = 1.0
    """Share of the requests without a `traceparent` that are recorded; with one, its caller decides."""
    service: str = "gatepass"


@dataclass(frozen=True, slots=True)
class Config:
    """One immutable snapshot of the whole configuration."""

    listen: Address
    admin: Address | None
    access: Literal["clients", "open"]
    clients: tuple[Client, ...]
    credentials: Mapping[str, Credential]
    routes: tuple[Route, ...]
    replay_budget: int = 64 * MIB
    token_timeout: float = 5.0
    """Longest wait of a request for a token, seconds; only when there is none in memory."""
    limits: Limits = Limits()
    drain: Drain = Drain()
    logs: Logs = Logs()
    tracing: Tracing | None = None
    tls: ServerTLS | None = None
    issuers: tuple[Issuer, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) whose `X-Forwarded-For` is believed."""
    allow_addresses: tuple[str, ...] = ()
    """Networks (CIDR) that a name may lead to although it is loopback, link-local or a cloud's metadata service."""
    resolver_stale: float = 3600.0
    """Seconds for which a name's last known addresses are used while its look-ups fail or hang; 0: not at all."""
    admin_keys_sha256: tuple[str, ...] = ()
    """Keys for what changes something on the admin port; none: nothing can be changed there."""
    admin_hosts: tuple[str, ...] = ()
    """Names that the admin port answers to, beside literal addresses and `localhost`."""
    state_file: Path | None = None
    """Where the counts of budgets outlive a restart."""
    digest: str = ""
    """SHA-256 over the merged configuration, secrets only as hashes: two gateways with one digest act alike."""
    watched_files: tuple[Path, ...] = ()
    """Files whose change is a change of the configuration: its own, `${file:…}`, certificates. Absolute, symlinks
    unresolved, so that Kubernetes' swap of a folder's link shows."""
    secret_files: tuple[Path, ...] = ()
    """Those of them that hold secrets: nobody but the gateway should be able to read them."""
    read_again_after: float | None = None
    """Seconds after which to read the configuration again though no file changed: a command's secret may be new."""
