"""Other proxies that keep their own data plane and get their tokens here: by asking, or pushed into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.ports import Address, ServerTLS, SocketFile

RequestSource = Literal["x-forwarded", "x-original", "path"]
"""Where a plane that asks says what the app has requested: `X-Forwarded-Method` and `-Uri`, `X-Original-Method` and
`-URI`, or the method and the path of the question itself, behind `/ask/ROUTE`."""


@dataclass(frozen=True, slots=True)
class AskPlane:
    """A proxy that asks for each request."""

    name: str
    routes: frozenset[str]
    """The routes whose tokens it may get."""
    request: RequestSource
    uid: int | None = None
    """The user that it runs as, on a Unix socket."""
    certificates: tuple[str, ...] = ()
    """Names in its certificate, one of which it must have, on an address with TLS."""
    prefix: bool = True
    """Paths that it reports begin with the route's prefix, as on the data port; else they are the vendor's."""
    addresses: bool = False
    """It puts the app's address last in `X-Forwarded-For`."""


@dataclass(frozen=True, slots=True)
class PushPlane:
    """A proxy whose tokens are written into a folder."""

    name: str
    kind: Literal["envoy-sds"]
    directory: Path
    credentials: tuple[str, ...]
    uid: int | None = None
    """The user that it runs as, on a Unix socket, where it reports refused tokens."""
    certificates: tuple[str, ...] = ()
    """Names in its certificate, one of which it must have, on an address with TLS."""

    @property
    def reports(self) -> bool:
        """Whether it may report refused tokens."""
        return self.uid is not None or bool(self.certificates)


@dataclass(frozen=True, slots=True)
class Planes:
    """All other proxies that get tokens here."""

    listen: Address | SocketFile | None = None
    """Where those that ask, or report refused tokens, connect; None if there are none."""
    tls: ServerTLS | None = None
    """On an address: with authorities for client certificates."""
    ask: tuple[AskPlane, ...] = ()
    push: tuple[PushPlane, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of all planes."""
        return frozenset(plane.name for plane in self.ask) | frozenset(plane.name for plane in self.push)


PushState = Literal["starting", "standby", "ok", "failing", "stopped"]
"""`standby`: another gateway writes the folder."""


@dataclass(frozen=True, slots=True)
class PlaneStatus:
    """How a plane stands that tokens are pushed to."""

    name: str
    state: PushState
    problems: tuple[str, ...] = ()
    """Why files could not be written."""
