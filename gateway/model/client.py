"""Clients (apps): how each is authenticated, what it may call and how much; and the issuers of their JWTs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.egress import Egress


@dataclass(frozen=True, slots=True)
class ClientClaims:
    """What a JWT must contain to authenticate a client: an issuer, by its name in the configuration, and claims."""

    issuer: str
    claims: tuple[tuple[str, str], ...]
    """A claim that is a list matches if it contains the value."""


@dataclass(frozen=True, slots=True)
class ClientLimit:
    """Limits of a client on each of its routes, or on the routes named. None: no limit in this entry."""

    routes: frozenset[str] | None = None
    rate: float | None = None
    """Requests per second."""
    burst: int | None = None
    """Requests at once; None: as many as in one second."""
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class ClientBudget:
    """How many calls of a route are allowed in a day or a month (UTC)."""

    route: str
    per: Literal["day", "month"]
    hard: int | None = None
    """Number of calls after which further ones are refused."""
    soft: int | None = None
    """Number of calls after which a warning is logged."""
    outage_allowance: int = 0
    """Calls of all instances beyond what the shared store has granted, while it is away; 0: none."""


@dataclass(frozen=True, slots=True)
class Client:
    """An app: how it is authenticated, what it may call, and how much."""

    name: str
    keys_sha256: tuple[str, ...]
    """Lower-case hex."""
    routes: frozenset[str] | None = None
    """None: all routes."""
    key_ends: tuple[tuple[str, float], ...] = ()
    """For keys that expire: the hash, and the wall-clock instant from which the key is refused."""
    jwt: tuple[ClientClaims, ...] = ()
    certificates: tuple[str, ...] = ()
    """Names in its certificate, as `subject:CN=web,O=Acme`, `dns:web.internal`, `uri:spiffe://acme/web`."""
    addresses: tuple[str, ...] = ()
    """Networks (CIDR) that it may call from; empty: any."""
    allow: tuple[str, ...] = ()
    """Rules, as `POST /orders/v1/*` or `GET,HEAD /ledger/**`; empty: everything on its routes."""
    deny: tuple[str, ...] = ()
    """Wins over `allow`."""
    limits: tuple[ClientLimit, ...] = ()
    budgets: tuple[ClientBudget, ...] = ()


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of clients' JWTs (RFC 7519), and how its keys are used."""

    name: str
    issuer: str
    """The `iss` claim, exactly."""
    audience: tuple[str, ...]
    """Values of `aud` that mean this gateway."""
    jwks_url: str | None = None
    jwks_file: Path | None = None
    """Exactly one of `jwks_url` and `jwks_file` is set."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway: float = 30.0
    """Seconds that the issuer's clock and ours may differ."""
    refresh: float = 300.0
    """Seconds after which the keys are fetched again."""
    max_age: float = 86400.0
    """Seconds after which keys that could not be fetched again are no longer used."""
    routes_claim: str | None = None
    """A claim with the only routes that a token may use: a list, or names separated by spaces."""
    ca_file: Path | None = None
    egress: Egress | None = None
    """The proxy through which `jwks_url` is reached, unless `egress.proxy_for` says directly."""
