"""The configuration as a whole: `Config` and its small parts (limits, logs, tracing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gateway.model.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.model.client import Client, Issuer
    from gateway.model.egress import Egress
    from gateway.model.grant import Credential
    from gateway.model.planes import Planes
    from gateway.model.ports import Address, ServerTLS
    from gateway.model.route import Route
    from gateway.model.secret import Secret
    from gateway.model.store import StoreConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the data port."""

    connections: int = 10_000
    connections_per_address: int = 5_000
    exchanges: int = 10_000
    """Requests in flight."""
    unparsed_bytes: int = 32 * MIB
    """Bytes of all connections together that cannot be parsed yet: incomplete heads and pipelined requests."""
    head_bytes: int = 64 * KIB
    """All header fields together, request line included."""
    field_bytes: int = 8 * KIB
    fields: int = 100
    header_timeout: float = 10.0
    """Seconds from a request's first byte (or from the connection's start) to the end of its head."""
    keepalive_timeout: float = 75.0
    body_timeout: float = 60.0
    """Seconds that an app may neither send its request body nor read its answer."""
    body_rate: int = 100
    """Bytes per second that a request body must average after `body_timeout`; 0: only silence counts."""


@dataclass(frozen=True, slots=True)
class Drain:
    """How the gateway stops: `grace` seconds with `/readyz` failing, then `timeout` seconds for running requests."""

    grace: float = 2.0
    timeout: float = 30.0


Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Names of the levels that a configuration may set, the most verbose first."""


@dataclass(frozen=True, slots=True)
class Logs:
    """Log settings. `auto` is `console` on a terminal, else `json`."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Level = "info"
    access: bool = True
    """One event per request."""
    buffer: int = 8 * MIB
    """Bytes of lines that may wait for a slow standard output."""
    sample: float = 1.0
    """Share of the requests answered with 2xx that are logged; others are always logged."""
    loggers: tuple[tuple[str, str], ...] = ()
    """Levels of single loggers, by name; a name includes the loggers below it."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans are sent."""

    otlp: str
    """The collector's URL, OTLP over HTTP."""
    sample: float = 1.0
    """Share of the requests without a `traceparent` that are recorded; with one, the caller decides."""
    service: str = "gatepass"
    egress: Egress | None = None
    """The proxy through which the collector is reached, unless `egress.proxy_for` says directly."""


@dataclass(frozen=True, slots=True)
class Config:
    """An immutable snapshot of the whole configuration."""

    listen: tuple[Address, ...]
    """At least one."""
    admin: Address | None
    access: Literal["clients", "open"]
    clients: tuple[Client, ...]
    credentials: Mapping[str, Credential]
    routes: tuple[Route, ...]
    local_only: bool = False
    """Access is open only because there are no clients, so only programs on this machine may call."""
    replay_budget: int = 64 * MIB
    token_timeout: float = 5.0
    """Seconds that a request waits for a token when none is in memory."""
    limits: Limits = Limits()
    drain: Drain = Drain()
    logs: Logs = Logs()
    tracing: Tracing | None = None
    tls: ServerTLS | None = None
    issuers: tuple[Issuer, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of proxies whose `X-Forwarded-For` gives the app's address."""
    allow_addresses: tuple[str, ...] = ()
    """Networks (CIDR) that a name may resolve to although they are loopback, link-local or cloud metadata."""
    resolver_stale: float = 3600.0
    """Seconds for which the last known addresses are used while look-ups fail or hang; 0: not at all."""
    admin_keys_sha256: tuple[str, ...] = ()
    """Hashes of the keys for actions on the admin port; without any, no action is possible."""
    admin_hosts: tuple[str, ...] = ()
    """Host names that the admin port answers to, in addition to IP addresses and `localhost`."""
    app_token_key: Secret | None = None
    """Signs the passes for apps that request a token, instead of the credentials' own secrets."""
    state_file: Path | None = None
    """File that keeps the counts of budgets across restarts."""
    planes: Planes | None = None
    """Other proxies that get tokens here; without any, nothing of `gateway.planes` is imported."""
    store: StoreConfig | None = None
    """The store that several instances share."""
    digest: str = ""
    """SHA-256 over the merged configuration, with secrets as hashes; gateways with the same digest behave alike."""
    watched_files: tuple[Path, ...] = ()
    """Files whose change triggers a reload: the configuration's own, `${file:…}`, certificates. Absolute paths with
    symlinks unresolved, because Kubernetes replaces the link of a folder."""
    secret_files: tuple[Path, ...] = ()
    """Those of `watched_files` that hold secrets; only the gateway should be able to read them."""
    read_again_after: float | None = None
    """Seconds after which to reload even if no file changed, because a command's secret may have changed."""
    warnings: tuple[str, ...] = ()
    """What is valid but has no effect, for people: one sentence each, with file and line."""
