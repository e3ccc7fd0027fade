"""Where Gatepass listens: addresses, Unix sockets, and TLS on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations at run time


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on. Port 0 means any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A Unix socket to listen on."""

    path: Path
    mode: int = 0o660
    """Permissions of the file: connecting needs the permission to write."""

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """TLS on the data port, as PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Apps must present a certificate that these authorities issued."""
    fingerprint: str = ""
    """SHA-256 over the files' contents, hex."""
