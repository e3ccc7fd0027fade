"""The keys of the file as a whole, and of its small sections: limits, shutdown, logs and tracing."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys.client import ClientSection
from gateway.config.keys.credential import CredentialSection
from gateway.config.keys.egress import EgressSection
from gateway.config.keys.http import Url
from gateway.config.keys.identity import Sha256s
from gateway.config.keys.issuer import IssuerSection
from gateway.config.keys.network import HostNames, ListenAddress, ListenAddresses, Networks
from gateway.config.keys.numbers import Count, Duration, Flag, PositiveDuration, Share, Size
from gateway.config.keys.planes import PlanesSection
from gateway.config.keys.route import RouteSection
from gateway.config.keys.section import Section, refuse
from gateway.config.keys.store import StoreSection
from gateway.config.keys.text import Levels, Name, PlainText, SecretValue
from gateway.config.keys.tls import TlsSection
from gateway.model import KIB, MIB, Address, Level


class LimitSection(Section):
    """Bounds of the data port."""

    connections: Count = Field(10_000, description="Largest number of connections from apps.")
    connections_per_address: Count = Field(
        5_000, description="Largest number from one address; a proxy in front of the gateway is one address."
    )
    exchanges: Count = Field(10_000, description="Largest number of requests in flight; then 503 `overloaded`.")
    unparsed_bytes: Size = Field(
        32 * MIB,
        description="Size of all incomplete heads and waiting pipelined requests together; beyond it, the connections "
        "that hold most get 503 `overloaded`.",
    )
    head_bytes: Size = Field(64 * KIB, description="Request line and all header fields together.")
    field_bytes: Size = Field(8 * KIB, description="One header field.")
    fields: Count = Field(100, description="Number of header fields.")
    header_timeout: PositiveDuration = Field(10.0, description="Longest time for an app to send a request's head.")
    keepalive_timeout: PositiveDuration = Field(
        75.0, description="Time after which an idle connection of an app is closed."
    )
    body_timeout: PositiveDuration = Field(60.0, description="Longest silence of an app inside a request body.")
    body_rate: Size = Field(
        100, description="Bytes per second that a request body must average after `body_timeout`; 0: any rate."
    )


class DrainSection(Section):
    """How the gateway stops."""

    grace: Duration = Field(
        2.0, description="Time during which `/readyz` fails but requests are served, so that load balancers move on."
    )
    timeout: Duration = Field(30.0, description="After `grace`: time for requests that are still running.")


class LogSection(Section):
    """What is written to standard output."""

    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: `console` on a terminal, else `json` (one object per line)."
    )
    level: Level = Field("info", description="Lowest level that is written.")
    access: Flag = Field(default=True, description="One line per request.")
    buffer: Size = Field(
        8 * MIB, description="Size of the lines that wait for a slow standard output; further lines are dropped."
    )
    sample: Share = Field(
        1.0, description="Share of the requests answered with 2xx that are logged; others are always logged."
    )
    loggers: Levels = Field(
        (), description="Levels of single loggers and of those below them: `{gatepass.tokens: debug}`."
    )


class TracingSection(Section):
    """Where spans are sent; needs the extra `tracing`."""

    otlp: Url = Field(description="URL of the collector, OTLP over HTTP; without a path, `/v1/traces` is used.")
    sample: Share = Field(
        1.0,
        description="Share of the requests without a `traceparent` that are recorded; with one, the caller decides.",
    )
    service: PlainText = Field("gatepass", description="`service.name` of the spans.")


class ResolverSection(Section):
    """How the names of vendors, token endpoints and issuers are resolved."""

    stale: Duration = Field(
        3600.0,
        description="Time for which the last known addresses are used while look-ups fail or hang; 0: not at all.",
    )


LEAST_SIGNING_KEY = 32
"""Characters of `app_token_key`."""


class FileSection(Section):
    """The configuration as a whole."""

    nullable: ClassVar[frozenset[str]] = frozenset({"admin"})

    listen: ListenAddresses = Field(
        default_factory=lambda: (Address("127.0.0.1", 8080),),
        description="Address of the data port, for apps, or a list of them; `[::]:8080` serves IPv4, too. "
        "Not on loopback, it needs `clients`.",
    )
    admin: ListenAddress | None = Field(
        default_factory=lambda: Address("127.0.0.1", 9090),
        description="Address of the admin port: health, metrics, status. `null`: none.",
    )
    tls: TlsSection | None = Field(None, description="TLS on the data port; changed files are read again.")
    access: Literal["clients", "open"] = Field(
        "clients",
        description="Who may call: `clients` (without any, on loopback, programs on this machine), "
        "or everyone (`open`).",
    )
    clients: tuple[ClientSection, ...] = Field((), strict=False, description="The apps that may call.")
    issuers: dict[Name, IssuerSection] = Field(default_factory=dict, description="Issuers of clients' JWTs, by name.")
    trusted_proxies: Networks = Field(
        (),
        description="Networks of proxies in front, as `10.0.0.0/8`: their `X-Forwarded-For` gives the app's address.",
    )
    allow_addresses: Networks = Field(
        (),
        description="Networks that the name of a vendor or issuer may resolve to although they are loopback, "
        "link-local or a cloud's metadata service.",
    )
    resolver: ResolverSection = Field(
        default_factory=ResolverSection.empty,
        description="How the names of vendors, token endpoints and issuers are resolved.",
    )
    egress: EgressSection | None = Field(
        None,
        description="The HTTP proxy through which vendors, token endpoints, issuers and the trace collector are "
        "reached; default: directly.",
    )
    admin_keys_sha256: Sha256s = Field(
        (), description="SHA-256 of the keys for actions on the admin port; without any, no action is possible."
    )
    admin_hosts: HostNames = Field(
        (),
        description="Host names that requests to the admin port may have in `Host`, as `gatepass`; IP addresses and "
        "`localhost` are always allowed.",
    )
    app_token_key: SecretValue | None = Field(
        None,
        description="At least 32 characters that sign the passes of `app_tokens`, the same on every instance; needed "
        "for clients known by JWT. Default: the secrets of each route's credential.",
    )
    state_file: PlainText | None = Field(
        None, description="File that keeps the counts of budgets across restarts; default: kept in memory only."
    )
    store: StoreSection | None = Field(
        None,
        description="The Valkey or Redis server in which several instances keep tokens and counts together; needs the "
        "extra `store`.",
    )
    credentials: dict[Name, CredentialSection] = Field(default_factory=dict, description="Credentials, by name.")
    routes: dict[Name, RouteSection] = Field(default_factory=dict, description="Routes, by name.")
    replay_budget: Size = Field(
        64 * MIB, description="Size of all bodies buffered for replay; beyond it, further requests are not replayable."
    )
    token_timeout: PositiveDuration = Field(
        5.0, description="Longest time that a request waits for a token when none is in memory."
    )
    limits: LimitSection = Field(default_factory=LimitSection.empty, description="Bounds of the data port.")
    drain: DrainSection = Field(default_factory=DrainSection.empty, description="How the gateway stops.")
    logs: LogSection = Field(default_factory=LogSection.empty, description="What is written to standard output.")
    tracing: TracingSection | None = Field(None, description="Where spans are sent; default: no tracing.")
    planes: PlanesSection | None = Field(
        None, description="Other proxies that keep their own data plane and get their tokens here."
    )

    @model_validator(mode="after")
    def app_token_key_is_long(self) -> Self:
        """HS256 needs a key as long as its hash (RFC 7518 §3.2); a shorter one could be guessed."""
        if self.app_token_key is not None and len(self.app_token_key.reveal()) < LEAST_SIGNING_KEY:
            refuse(f"`app_token_key` must have at least {LEAST_SIGNING_KEY} characters: openssl rand -base64 33")
        return self
