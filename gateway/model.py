"""The nouns of Gatepass: frozen values that every floor above may share.

Knows nothing of ours, does no I/O and holds no clock. What a configuration file says is compiled into these by
`gateway.config`; what a vendor answers becomes a `Token` in `gateway.tokens`. Durations are seconds as `float`,
sizes are bytes as `int`, instants are seconds of the injected monotonic clock unless a name says `wall`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


class Secret:
    """A string that cannot be printed: `repr`, `str` and `format` show only its fingerprint.

    Wrapped where it is read, opened by `reveal()` only at the line that puts it on a wire or into a hash.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself. Never pass the result to a log, an error or a metric."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """First 8 hex digits of the secret's SHA-256: enough to tell two apart, not enough to use either."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogateescape")).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<secret {self.fingerprint}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine = self._value.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(mine, other._value.encode("utf-8", "surrogateescape"))

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is never pickled or copied out of the process"
        raise TypeError(msg)


Text = str | Secret
"""A value of a token request: plain text, or a secret (everything that came from `${…}`)."""
Pairs = tuple[tuple[str, Text], ...]
"""Names and values in the order in which they are sent; a name may repeat."""


# ---------------------------------------------------------------------------------------------------------- the grant


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


ExpirySource = Literal["in", "in_ms", "at", "jwt", "after", "fallback", "static"]


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token in hand. Compared by identity: a vendor may issue the same string twice with another life."""

    value: Secret
    credential: str
    fetched_at: float
    """Monotonic instant just before the token request left; life counts from here."""
    expires_at: float
    """Monotonic instant; `inf` for a static key."""
    expiry_source: ExpirySource
    fingerprint: str = field(default="", compare=False)
    generation: int = 0
    """Counts up with every token of this credential; a lower one never replaces a higher one."""

    @property
    def life(self) -> float:
        """Seconds granted, from `fetched_at`."""
        return self.expires_at - self.fetched_at


class Tokens(Protocol):
    """All that the data plane knows of a credential: one object per credential, static keys included.

    The seam for workers and replicas: nothing above asks for the cache itself.
    """

    def current(self) -> Token | None:
        """Return the token in memory if it is still valid now. Synchronous; the hot path."""

    async def get(self) -> Token:
        """Return a valid token, waiting for the one shared fetch if there is none.

        Raises TokenUnavailable, CredentialRefused or TokenMalformed; never waits longer than `token_timeout`.
        """

    def accepted(self, token: Token) -> None:
        """The vendor answered a request that carried `token` with something other than a refusal of it."""

    async def refused(self, token: Token) -> Token | None:
        """The vendor refused `token` although it should live.

        Returns the token to send the request again with, once; None when sending again cannot help (a forced fetch
        is not allowed yet, failed, or the credential is static). The refused token is gone from the cache when this
        returns *and* when the caller is cancelled while waiting; only while no forced fetch is allowed does it stay in
        use, being the best there is, so that the vendor's own answer goes to the app.
        """

    def discard(self, token: Token) -> None:
        """As `refused`, for an exchange that cannot be sent again: invalidate and fetch in the background."""


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """How one credential stands, for people: the admin port, `check`, the status page. Holds no secret."""

    name: str
    state: Literal["valid", "static", "idle", "pending", "unavailable", "refused", "malformed"]
    """`idle` was not asked for yet (`keep_warm: used|never`), `pending` is being fetched for the first time."""
    tried: bool
    """At least one fetch has ended, well or badly (always true for a static key)."""
    fingerprint: str | None = None
    generation: int = 0
    life: float | None = None
    """Seconds granted to the current token."""
    expires_in: float | None = None
    """Seconds that the current token still lives."""
    expiry_source: ExpirySource | None = None
    last_success: float | None = None
    """Wall-clock instant of the last good fetch."""
    last_failure: float | None = None
    reason: str | None = None
    """Why the last fetch failed, in words, when it did; None after a good one."""
    consecutive_failures: int = 0
    next_attempt_in: float | None = None
    skew: float | None = None
    """Vendor's clock minus ours, seconds, from the token endpoint's `Date`; shown, never used."""
    secret: Literal["current", "next"] = "current"
    """Which secret worked last, during a rotation."""


# ---------------------------------------------------------------------------------------------------------- the route


@dataclass(frozen=True, slots=True)
class Upstream:
    """A vendor's API: fixed by the configuration, never by a request."""

    scheme: Literal["http", "https"]
    host: str
    """Name or address without brackets."""
    port: int
    base_path: str = ""
    """Prefix of every outbound path, without a trailing slash."""
    ca_file: Path | None = None
    client_certificate: ClientCertificate | None = None
    ca_fingerprint: str = ""
    """SHA-256 of the file's bytes, hex: other authorities need other connections."""

    @property
    def authority(self) -> str:
        """The `Host` header: without the scheme's default port, IPv6 in brackets (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Injection:
    """A header and the format of its value; `{token}` is the token."""

    header: str
    credential: str
    format: str = "Bearer {token}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_byte` runs from the request's last byte to the answer's head."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    """Longest silence inside a body, in either direction; also for an open WebSocket and an event stream."""
    total: float | None = None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Connections to the vendor per route, and how long an exchange waits for a free one."""

    size: int = 100
    wait: float = 5.0
    queue: int = 1000
    """Exchanges that wait at most; beyond it one is refused at once, so that one slow vendor never holds every app."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Which requests may be sent again after the vendor refused the token: the method, and bytes of body kept."""

    methods: Literal["all", "idempotent", "none"] = "all"
    up_to: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class RefusalSign:
    """A vendor's answer that means "this token is no longer good": a status and, if given, a value in its JSON body."""

    status: int = 401
    path: str | None = None
    """Dotted path in a JSON error body (≤ 64 KiB)."""
    values: frozenset[str] = frozenset()
    explicit: bool = False
    """True when a profile or a user wrote it: it then also counts where `authorization: pass`."""


@dataclass(frozen=True, slots=True)
class Route:
    """A prefix of the data port and everything that is done to what arrives under it."""

    name: str
    prefix: str
    """Starts with a slash, has no trailing one."""
    upstream: Upstream
    injections: tuple[Injection, ...]
    authorization: Literal["inject", "pass"] = "inject"
    """`pass`: the app's own Authorization goes to the vendor (and is no gateway key)."""
    allow: tuple[str, ...] = ()
    """Path patterns below the prefix (`*` one segment's characters, `**` anything); empty: all."""
    deny: tuple[str, ...] = ()
    """Wins over `allow`."""
    methods: frozenset[str] | None = None
    timeouts: Timeouts = Timeouts()
    max_body: int | None = 32 * MIB
    pool: PoolLimits = PoolLimits()
    replay: Replay = Replay()
    refusal_signs: tuple[RefusalSign, ...] = (RefusalSign(),)
    strip_headers: frozenset[str] = frozenset()
    """Lower-case names, beside the ones that are always stripped."""
    pass_headers: frozenset[str] = frozenset()
    """Lower-case names among the stripped that this vendor shall get."""
    origin: str | None = None
    """A fixed Origin for this vendor."""
    forwarded: Literal["off", "x-forwarded", "rfc7239"] = "off"
    websocket: bool = True
    echo_guard: bool = False
    """Mask the token where the vendor's answer holds it."""
    paths: tuple[str, ...] = ()
    """Templates below the prefix, as `/info/{id}`: the one that fits stands for the path in the log."""


# --------------------------------------------------------------------------------------------------------- the config


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    admin_keys_sha256: tuple[str, ...] = ()
    """Keys for what changes something on the admin port; none: nothing can be changed there."""
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


# ----------------------------------------------------------------------------------------------------------- the clock


class Timer(Protocol):
    """A scheduled call that can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it has already run."""


class Clock(Protocol):
    """Time, injected: tests drive it by hand."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    def wall(self) -> float:
        """Seconds since the epoch, UTC."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `delay` seconds of this clock."""

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds of this clock."""
