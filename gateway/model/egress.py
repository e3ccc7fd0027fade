"""A way out through an HTTP proxy, as companies require it at the edge of their networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.secret import Secret


@dataclass(frozen=True, slots=True)
class Egress:
    """An HTTP proxy through which servers are reached with CONNECT (RFC 9110 §9.3.6)."""

    scheme: Literal["http", "https"]
    """How the proxy itself is reached."""
    host: str
    """Name or address without brackets."""
    port: int
    username: str = ""
    """Empty: the proxy asks for no login."""
    password: Secret | None = None
    no_proxy: tuple[str, ...] = ()
    """Names, which stand for all names below them, too, and networks (CIDR) that are reached directly."""
    ca_file: Path | None = None
    """Authorities to trust for an https proxy, instead of the system's."""
    ca_fingerprint: str = ""
    """SHA-256 of the file's bytes, hex."""

    @property
    def url(self) -> str:
        """The proxy's URL, without the login."""
        return f"{self.scheme}://{authority(self.host, self.port)}"


def authority(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
