"""Listening sockets for the addresses in the configuration."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from gateway.addresses import is_loopback
from gateway.errors import ConfigError, ListenError, Problem, os_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model import Address, Config

_BACKLOG: Final = 4096
_ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared with what the user has configured
_ANY_IPV6: Final = "::"


async def listen(*addresses: Address) -> list[socket.socket]:
    """Return a listening socket for every address of every host. Raises OSError.

    `[::]` serves IPv4, too, unless `0.0.0.0` with the same port is among the addresses. If the first of several
    addresses of one host has port 0, the others get the port that it was given.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            both = address.host == _ANY_IPV6 and not _has_any_ipv4(addresses, address.port)
            await _listen(address, sockets, both_families=both)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _has_any_ipv4(addresses: Sequence[Address], port: int) -> bool:
    return any(each.host == _ANY_IPV4 and each.port == port for each in addresses)


async def _listen(address: Address, sockets: list[socket.socket], *, both_families: bool) -> None:
    """Append a listening socket for each address of a host; one that fails is appended, too."""
    loop = asyncio.get_running_loop()
    flags = socket.AI_PASSIVE
    infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    port = address.port
    for family, kind, protocol, _, where in dict.fromkeys(infos):
        sock = socket.socket(family, kind, protocol)
        sockets.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both_families))
        sock.bind((where[0], port, *where[2:]))
        sock.listen(_BACKLOG)
        port = sock.getsockname()[1]


async def open_port(key: str, *addresses: Address) -> list[socket.socket]:
    """Return listening sockets for the addresses of a configuration key. Raises ListenError."""
    try:
        return await listen(*addresses)
    except OSError as error:
        raise ListenError(key, _listed(addresses), os_reason(error)) from error


def check_reach(sockets: Iterable[socket.socket], config: Config) -> None:
    """Raise ConfigError if an open gateway for this machine only would be served on a port that others can reach."""
    reachable = [host for sock in sockets if not is_loopback(host := sock.getsockname()[0])]
    if config.access == "open" and reachable and all(is_loopback(address.host) for address in config.listen):
        listed = _listed(config.listen)
        message = f"says {listed}, but the port is open on {reachable[0]}, where others could call without a key"
        raise ConfigError([Problem("the running gateway", 0, "listen", message)])


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, addresses))
