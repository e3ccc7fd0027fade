"""The shared store: the Valkey or Redis server in which several instances keep tokens and counts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.model.ports import Address  # noqa: TC001 - pydantic reads the annotation at run time

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.secret import Secret


@dataclass(frozen=True, slots=True)
class StoreServer:
    """Where the store is: one server, a Unix socket, or Sentinels that know the server."""

    addresses: tuple[Address, ...] = ()
    """The server; with `master`, the Sentinels."""
    socket: str = ""
    """Path of a Unix socket, instead of an address."""
    database: int = 0
    tls: bool = False
    master: str = ""
    """The name under which the Sentinels know the server; empty without Sentinels."""

    def __str__(self) -> str:
        if self.socket:
            return f"unix:{self.socket}"
        listed = ", ".join(map(str, self.addresses))
        return f"{self.master} by Sentinel {listed}" if self.master else listed


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The `store` block of a configuration."""

    server: StoreServer
    keys: tuple[Secret, ...]
    """At least one. Each opens records; the last one makes the names of keys."""
    namespace: str = "gatepass"
    username: str = ""
    password: Secret | None = None
    password_file: Path | None = None
    """The file that `password` came from, if it is nothing else: read again for each new connection."""
    timeout: float = 0.25
    """Seconds of one command."""
    lease: float = 3.0
    """Seconds after which another instance may request a token that this one was about to request."""
    ca_file: Path | None = None
    ca_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How an instance stands to the shared store."""

    server: str
    mode: Literal["shared", "alone"]
    """`alone` while the store is away, or while its records cannot be opened."""
    members: int
    """Instances as last known, this one included."""
    silence: float
    """Seconds since the store's last answer."""
    reason: str
    """Why the instance works alone; empty otherwise."""
