"""A token recipe as data: how a token is asked for (RFC 6749 §4.4 and its kin) and how the answer is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.secret import Text

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.secret import Secret

Pairs = tuple[tuple[str, Text], ...]
"""Names and values in the order in which they are sent; a name may repeat."""


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
    """`private_key_jwt` client authentication (RFC 7523 §2.2): a JWT signed afresh for every attempt."""

    key: Secret
    """The private key, PEM."""
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"]
    issuer: str
    audience: str
    """The token endpoint or the issuer, as the vendor wants it."""
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


@dataclass(frozen=True, slots=True)
class Expires:
    """Where a token's life is written: exactly one kind.

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
    """Dotted path of the token type, compared without case; anything but `bearer` is unusable. None: not looked at."""
    fallback: float = 300.0
    """Life in seconds when the answer names none that is usable and the token is no JWT with `exp`."""
    refused_statuses: frozenset[int] = frozenset({401})
    """Statuses that by themselves say that our credential is wrong (permanent)."""
    refused_errors: frozenset[str] = frozenset({"invalid_client", "unauthorized_client"})
    """Values of `error` (RFC 6749 §5.2) that say so with any status."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token recipe: how to ask and how to read. Pure data, compiled at start."""

    request: GrantRequest
    response: GrantResponse


@dataclass(frozen=True, slots=True)
class Credential:
    """A named token recipe with its secrets: either `grants` or `static`."""

    name: str
    grants: tuple[Grant, ...] = ()
    """The recipe with today's secret and, during a rotation, the same with the next one (tried on refusal)."""
    static: Secret | None = None
    """A key that never expires."""
    profile: str | None = None
    keep_warm: Literal["always", "used", "never"] = "always"
    min_interval: float = 0.0
    """Least seconds between two token requests, whatever their cause."""
    timeout: float = 10.0
    """Upper bound of one fetch, seconds; the learnt time-out (3 × the last good fetch) stays between 2 s and this."""
    single_active_token: bool = False
    """The vendor kills the old token when it issues a new one."""
    revoke: GrantRequest | None = None
    """RFC 7009 or the vendor's own form; `{token}` in a value is replaced. Called on shutdown when set."""
    probe: GrantRequest | None = None
    """The vendor's identity endpoint, called by `check --probe`; `{token}` in a value is replaced."""
