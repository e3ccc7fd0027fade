"""A route: a path prefix of the data port, its upstream, and what is done to its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.egress import Egress
    from gateway.model.grant import ClientCertificate
    from gateway.model.price import Money


@dataclass(frozen=True, slots=True)
class Upstream:
    """A vendor's API. The configuration chooses it, never a request."""

    scheme: Literal["http", "https"]
    host: str
    """Host name, or IP address without brackets."""
    port: int
    base_path: str = ""
    """Prefix of every outbound path, without a trailing slash."""
    ca_file: Path | None = None
    client_certificate: ClientCertificate | None = None
    egress: Egress | None = None
    """The proxy through which it is reached, unless `egress.proxy_for` says directly."""
    ca_fingerprint: str = ""
    """SHA-256 of the file's bytes, hex, because other authorities need new connections."""

    @property
    def authority(self) -> str:
        """Return the `Host` header: without the default port, IPv6 in brackets (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Injection:
    """A header and the format of its value; `{token}` is replaced by the token."""

    header: str
    credential: str
    format: str = "Bearer {token}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs in seconds. `first_byte` is from the request's last byte to the answer's head."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    """Longest silence inside a body, in either direction; also for event streams and WebSockets."""
    total: float | None = None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Connections to the vendor per route, and how long an exchange waits for a free one (seconds)."""

    size: int = 100
    max_age: float = 300.0
    """Seconds after which a connection is not reused; each connection's own limit is up to a tenth shorter."""
    wait: float = 5.0
    queue: int = 1000
    """Largest number of waiting exchanges; one more is refused at once, so a slow vendor cannot hold every app."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Which requests may be sent again after a refused token: the methods, and bytes of body that are buffered."""

    methods: Literal["all", "idempotent", "none"] = "all"
    up_to: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class RefusalSign:
    """An answer that means that a token is no longer valid: a status and, if set, a value in its JSON body."""

    status: int = 401
    path: str | None = None
    """Dotted path in a JSON error body (≤ 64 KiB)."""
    values: frozenset[str] = frozenset()
    explicit: bool = False
    """True when a profile or a user wrote it; it then also counts with `authorization: pass`."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix of the data port and what is done to its requests."""

    name: str
    prefix: str
    """Begins with a slash and does not end with one."""
    upstream: Upstream
    injections: tuple[Injection, ...]
    authorization: Literal["inject", "pass"] = "inject"
    """`pass`: the app's own Authorization is sent to the vendor and is not read as a gateway key."""
    allow: tuple[str, ...] = ()
    """Path patterns below the prefix (`*` within a segment, `**` anything); empty: all."""
    deny: tuple[str, ...] = ()
    """Wins over `allow`."""
    methods: frozenset[str] | None = None
    timeouts: Timeouts = Timeouts()
    max_body: int | None = 32 * MIB
    pool: PoolLimits = PoolLimits()
    replay: Replay = Replay()
    refusal_signs: tuple[RefusalSign, ...] = (RefusalSign(),)
    strip_headers: frozenset[str] = frozenset()
    """Lower-case names, in addition to those that are always stripped."""
    pass_headers: frozenset[str] = frozenset()
    """Lower-case names that are sent although they are stripped by default."""
    origin: str | None = None
    """A fixed value of Origin for this vendor."""
    forwarded: Literal["off", "x-forwarded", "rfc7239"] = "off"
    websocket: bool = True
    echo_guard: bool = False
    """Mask the token in the vendor's answers."""
    hosts: tuple[str, ...] = ()
    """Lower-case host names that select this route for any path."""
    app_tokens: bool = True
    """Answer apps' token requests at the path of the vendor's token endpoint."""
    price: Money | None = None
    """What the vendor charges for one billed call."""
    paths: tuple[str, ...] = ()
    """Templates below the prefix, as `/info/{id}`; the matching one is logged instead of the path."""

    @property
    def reads_answers(self) -> bool:
        """Whether a refusal sign depends on the body of an answer."""
        return any(sign.path is not None for sign in self.refusal_signs)
