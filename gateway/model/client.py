"""A client: an internal app, how it is known, what it may do and how much of it; and issuers of its JWTs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientClaims:
    """What a JWT must say to be this client: the issuer, by its name in the configuration, and values of claims."""

    issuer: str
    claims: tuple[tuple[str, str], ...]
    """A claim that is a list fits if it holds the value."""


@dataclass(frozen=True, slots=True)
class ClientLimit:
    """How fast a client may be on each of its routes, or on those named. None: not limited here."""

    routes: frozenset[str] | None = None
    rate: float | None = None
    """Requests per second."""
    burst: int | None = None
    """Requests at once; the rate's second unless set."""
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class ClientBudget:
    """How many calls of a route a client may have answered in a day or a month (UTC)."""

    route: str
    per: Literal["day", "month"]
    hard: int | None = None
    """Calls after which the next one is refused."""
    soft: int | None = None
    """Calls after which a warning is logged."""


@dataclass(frozen=True, slots=True)
class Client:
    """An internal app: how it is known, what it may do, how much of it."""

    name: str
    keys_sha256: tuple[str, ...]
    """Lower-case hex."""
    routes: frozenset[str] | None = None
    """None: all routes."""
    key_ends: tuple[tuple[str, float], ...] = ()
    """For keys that expire: the hash, and the wall-clock instant from which it is unknown."""
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
    """Who signs the JWTs of clients (RFC 7519), and how far it is believed."""

    name: str
    issuer: str
    """The `iss` claim, exactly."""
    audience: tuple[str, ...]
    """Values of `aud` that mean this gateway."""
    jwks_url: str | None = None
    jwks_file: Path | None = None
    """Exactly one of the two."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway: float = 30.0
    """Seconds that its clock and ours may differ."""
    refresh: float = 300.0
    """Seconds between two looks at `jwks_url`."""
    max_age: float = 86400.0
    """Seconds that keys are believed without having been seen again."""
    routes_claim: str | None = None
    """A claim that narrows a token to some routes: a list of names, or one text with spaces."""
    ca_file: Path | None = None
