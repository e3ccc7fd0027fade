"""Listening sockets that were opened by systemd (sd_listen_fds(3)) or by the predecessor of an upgrade.

Each descriptor is checked: it must be a stream socket that listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from gateway.errors import GatepassError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping, Sequence

FIRST = 3
"""Number of the first descriptor that systemd passes."""
INHERIT = "GATEPASS_INHERIT"
"""For a successor: `data=5,6;admin=7;planes=9;ready=8`."""
BOUND = "GATEPASS_INHERIT_BOUND"
"""For a successor: a JSON object with the configured addresses for which the passed sockets were opened, by key."""
PLANES = "planes"
"""The name of sockets for other proxies, which may be Unix sockets."""
_DIGITS = 9
"""Most digits of a descriptor's number: it is an `int` of C."""
SYSTEMD = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class SocketError(GatepassError):
    """A descriptor that was passed is not a listening socket."""


@dataclass(slots=True)
class Inherited:
    """The sockets that were passed to this process."""

    data: list[socket.socket] = field(default_factory=list)
    admin: list[socket.socket] = field(default_factory=list)
    planes: list[socket.socket] = field(default_factory=list)
    bound: dict[str, str] | None = None
    """The configured addresses for which a predecessor, or the service manager before it, has opened the sockets."""
    ready: int | None = None
    """Descriptor from which the predecessor reads a byte when this process is ready."""

    @property
    def successor(self) -> bool:
        """Whether a predecessor serves the ports until this process is ready."""
        return self.ready is not None

    def tell_ready(self) -> None:
        """Tell the predecessor that this process is ready."""
        if self.ready is not None:
            with contextlib.suppress(OSError):  # it may have stopped waiting
                os.write(self.ready, b"1")
            os.close(self.ready)
            self.ready = None


def inherited(environ: MutableMapping[str, str]) -> Inherited:
    """Return the passed sockets, and remove their variables from the environment. Raises SocketError."""
    text = environ.pop(INHERIT, "")
    systemd = _from_systemd({name: environ.pop(name, "") for name in SYSTEMD})
    found = Inherited(bound=_addresses(environ.pop(BOUND, "")))
    passed: list[tuple[str, int]] = []
    for part in filter(None, text.split(";")):
        name, _, rest = part.partition("=")
        if name == "ready":
            found.ready = _ready(_number(rest))
        else:
            passed += [(name, _number(number)) for number in rest.split(",")]
    for name, number in chain(passed, systemd):
        port = {"admin": found.admin, PLANES: found.planes}.get(name, found.data)
        port.append(_listening(number, unix=name == PLANES))
    return found


def _from_systemd(passed: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield names and descriptors. A socket not named `admin` or `planes` is for apps.

    Lazy, because the first descriptor that is no socket ends the start, whatever number the variable claims.
    """
    count = passed["LISTEN_FDS"]
    if passed["LISTEN_PID"] != str(os.getpid()) or not (count.isascii() and count.isdecimal()):
        return
    names = passed["LISTEN_FDNAMES"].split(":")
    for i in range(_number(count)):
        yield names[i] if i < len(names) else "", FIRST + i


def _addresses(text: str) -> dict[str, str] | None:
    """Return the addresses of a predecessor; None if it has passed none, as versions before this variable did."""
    try:
        read = json.loads(text or "null")
    except ValueError:
        return None
    return {str(key): str(value) for key, value in read.items()} if isinstance(read, dict) else None


def _number(text: str) -> int:
    """Return a number that was passed in a variable. Raises SocketError if it cannot be a descriptor."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise SocketError(f"{text[:20]!r} was passed as the number of a descriptor, but is none")
    return int(text)


def _ready(number: int) -> int:
    """Return the descriptor of the predecessor's pipe, which programs of ours do not inherit. Raises SocketError."""
    try:
        os.set_inheritable(number, False)
    except OSError as error:
        raise SocketError(f"descriptor {number} was passed as a pipe, but is none: {error.strerror}") from None
    return number


def _listening(number: int, *, unix: bool) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SocketError(f"descriptor {number} was passed as a socket, but is none: {error.strerror}") from None
    families = {socket.AF_INET, socket.AF_INET6, *((socket.AF_UNIX,) if unix else ())}
    if not listens or sock.type != socket.SOCK_STREAM or sock.family not in families:
        sock.close()
        raise SocketError(f"descriptor {number} was passed, but is no listening {'' if unix else 'TCP '}socket")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def passing(listening: Mapping[str, Sequence[socket.socket]], ready: int) -> tuple[str, list[int]]:
    """Return the value of `INHERIT` for a successor, and the descriptors to pass to it."""
    numbers = {name: [sock.fileno() for sock in sockets] for name, sockets in listening.items() if sockets}
    parts = [f"{name}={','.join(map(str, each))}" for name, each in numbers.items()]
    return ";".join([*parts, f"ready={ready}"]), [*(number for each in numbers.values() for number in each), ready]
