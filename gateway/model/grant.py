"""A token recipe as data: the token request (as in RFC 6749 §4.4) and how its answer is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.secret import Text

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.egress import Egress
    from gateway.model.secret import Secret

Pairs = tuple[tuple[str, Text], ...]
"""Names and values in the order in which they are sent; a name may be repeated."""


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP Basic client authentication.

    `encode="form"` is RFC 6749 §2.3.1 (id and secret form-urlencoded before base64); `"raw"` is plain RFC 7617, for
    vendors whose document says so.
    """

    username: Text
    password: Text
    encode: Literal["form", "raw"] = "form"


@dataclass(frozen=True, slots=True)
class Assertion:
    """`private_key_jwt` client authentication (RFC 7523 §2.2): a JWT signed anew for every attempt."""

    key: Secret
    """The private key, PEM."""
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"]
    issuer: str
    audience: str
    """The token endpoint or the issuer, as the vendor requires."""
    subject: str | None = None
    """Defaults to the issuer (RFC 7523 §3)."""
    key_id: str | None = None
    lifetime: float = 60.0


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate for mutual TLS (RFC 8705), as PEM files."""

    certificate: Path
    key: Path
    fingerprint: str
    """SHA-256 of the certificate file's bytes, hex: part of the token cache key."""


Json = object
"""A JSON value as a template: dict, list, number, bool, None or `Text` at the leaves."""


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """A token request as data. At most one of `form` and `json` is set; neither means an empty body."""

    url: str
    method: str = "POST"
    query: Pairs = ()
    headers: Pairs = ()
    basic: Basic | None = None
    form: Pairs | None = None
    json: Json = None
    assertion: Assertion | None = None
    client_certificate: ClientCertificate | None = None
    ca_file: Path | None = None
    egress: Egress | None = None
    """The proxy through which the endpoint is reached, unless `egress.proxy_for` says directly."""


@dataclass(frozen=True, slots=True)
class Expires:
    """Where the lifetime of a token is in the answer: exactly one kind.

    `in` seconds, `in_ms` milliseconds, `at` an instant (epoch seconds, epoch milliseconds or ISO 8601), each at a
    dotted `path`; `jwt` the token's own `exp` claim; `after` a fixed number of `seconds`.
    """

    kind: Literal["in", "in_ms", "at", "jwt", "after"]
    path: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GrantResponse:
    """How to read the answer of a token endpoint."""

    expires: Expires
    token: str = "access_token"
    """Dotted path of the token in the JSON answer."""
    success: frozenset[int] = frozenset({200})
    token_type: str | None = "token_type"
    """Dotted path of the token type, which must be `bearer` (case-insensitive). None: not checked."""
    fallback: float = 300.0
    """Lifetime in seconds when the answer has no usable one and the token is no JWT with `exp`."""
    refused_statuses: frozenset[int] = frozenset({401})
    """Statuses that mean that our credential is wrong (a permanent failure)."""
    refused_errors: frozenset[str] = frozenset({"invalid_client", "unauthorized_client"})
    """Values of `error` (RFC 6749 §5.2) that mean the same with any status."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token recipe: the request, and how to read its answer."""

    request: GrantRequest
    response: GrantResponse


@dataclass(frozen=True, slots=True)
class Credential:
    """A named token recipe with its secrets: either `grants` or `static`."""

    name: str
    grants: tuple[Grant, ...] = ()
    """The recipe with the current secret and, during a rotation, with the next one (tried on refusal)."""
    static: Secret | None = None
    """A key that never expires."""
    profile: str | None = None
    keep_warm: Literal["always", "used", "never"] = "always"
    min_interval: float = 0.0
    """Shortest time between two token requests, in seconds, whatever their cause."""
    timeout: float = 10.0
    """Longest time of one fetch, seconds; the learned time-out (3 × the last good fetch) is between 2 s and this."""
    single_active_token: bool = False
    """The vendor invalidates the old token when it issues a new one."""
    store_outage: Literal["open", "closed"] = "open"
    """While the shared store is away: each instance fetches tokens of its own, or none does."""
    revoke: GrantRequest | None = None
    """Request that revokes a token (RFC 7009 or similar), sent on shutdown; `{token}` in a value is replaced."""
    probe: GrantRequest | None = None
    """Request to the vendor's identity endpoint, sent by `check --probe`; `{token}` in a value is replaced."""
