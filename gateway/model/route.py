"""A route: a prefix of the data port, its upstream, and everything that is done to its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.grant import ClientCertificate


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
    max_age: float = 300.0
    """Seconds after which a connection is not reused; each connection's own limit is up to a tenth shorter."""
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
