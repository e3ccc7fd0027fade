"""Networks, and the addresses that no request of ours may go to unless the configuration says so.

A vendor's or an issuer's name that suddenly leads to this machine, to a link-local address or to a cloud's metadata
service would carry a secret there (server-side request forgery, DNS rebinding). So addresses are looked at when a
connection is made, and exactly those that were looked at are connected to. Pure, but for `look_up`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As `socket.getaddrinfo` has it: family, kind, protocol, canonical name, address."""
LookUp = Callable[[str, int], Awaitable["Sequence[AddrInfo]"]]

METADATA = tuple(ipaddress.ip_network(network) for network in ("fd00:ec2::/32", "100.100.100.200/32", "192.0.0.192/32"))
"""Metadata services outside 169.254.0.0/16, which is link-local anyway."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REMEMBERED = 4096


class AddressRefused(OSError):
    """Every address of a name is one that the configuration does not allow; the text says of what kind."""


class Networks:
    """A set of networks in CIDR notation; `"10.1.2.3" in networks`. Remembers what it was asked, up to a bound."""

    __slots__ = ("_networks", "_seen")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._seen: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __eq__(self, other: object) -> bool:
        return self._networks == other._networks if isinstance(other, Networks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._networks)

    def __contains__(self, text: str) -> bool:
        found = self._seen.get(text)
        if found is None:
            address = parse(text)
            found = address is not None and any(address in network for network in self._networks)
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[text] = found
        return found


def parse(text: str) -> IPAddress | None:
    """Return the address, an IPv4 one also where it is written inside an IPv6 one; None when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def forwarded_client(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """Return who called: the nearest address in `X-Forwarded-For`, from the right, that is no trusted proxy.

    What a proxy that we do not trust has written is never looked at, and neither is anything left of something that
    is no address.
    """
    client = peer
    for hop in reversed([each.strip() for value in forwarded_for for each in value.split(",")]):
        if client not in trusted:
            break
        address = parse(_without_port(hop))
        if address is None:
            break
        client = str(address)
    return client


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def refused(address: IPAddress) -> str | None:
    """Say what kind of address this is if nothing should be sent there; None for an ordinary one, private ones too."""
    inside = _wrapped(address)
    if inside is not None:
        return refused(inside)
    kinds = (
        (address.is_loopback, "a loopback address"),
        (any(address in network for network in METADATA), "a metadata service"),
        (address.is_link_local, "a link-local address"),
        (address.is_unspecified, "an unspecified address"),
        (address.is_multicast or str(address) == "255.255.255.255", "a multicast address"),
    )
    return next((kind for holds, kind in kinds if holds), None)


def _wrapped(address: IPAddress) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 one leads to: mapped, 6to4, NAT64, or the old compatible form."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    low = int(address) & 0xFFFFFFFF
    compatible = int(address) >> 32 == 0 and low > 1
    nat64 = ipaddress.IPv4Address(low) if address in _NAT64 or compatible else None
    return address.ipv4_mapped or address.sixtofour or nat64


def permitted(host: str, infos: Sequence[AddrInfo], allowed: Networks) -> list[AddrInfo]:
    """Return the addresses of `host` that may be connected to.

    A literal address in the configuration is named by it, and so is loopback by `localhost`. Raises AddressRefused
    when none is left.
    """
    if parse(host) is not None:
        return list(infos)
    local = host == "localhost" or host.endswith(".localhost")
    kept, kinds = [], []
    for info in infos:
        text = str(info[4][0])
        address = parse(text)
        kind = refused(address) if address is not None else "no address"
        if kind is None or text in allowed or (local and kind == "a loopback address"):
            kept.append(info)
        else:
            kinds.append(kind)
    if not kept:
        kind = kinds[0] if kinds else "no address"
        raise AddressRefused(f"the name leads to {kind}; see allow_addresses")
    return kept


_Questions = dict[tuple[str, int], "asyncio.Task[Sequence[AddrInfo]]"]
_UNDER_WAY: WeakKeyDictionary[asyncio.AbstractEventLoop, _Questions] = WeakKeyDictionary()
"""What the resolver is being asked, by loop."""


async def look_up(host: str, port: int) -> Sequence[AddrInfo]:
    """Ask the system's resolver; who wants a name that is being asked for shares the answer. Raises socket.gaierror.

    The resolver has few threads, and a question that hangs keeps one for as long as it hangs, though nobody waits for
    it any more. One question a name: so the name of one vendor takes nothing from the others.
    """
    if parse(host) is not None:
        return await _ask(host, port)
    loop = asyncio.get_running_loop()
    under_way = _UNDER_WAY.setdefault(loop, {})
    question = under_way.get((host, port))
    if question is None:

        def over(it: asyncio.Task[Sequence[AddrInfo]]) -> None:
            under_way.pop((host, port), None)
            if not it.cancelled():
                it.exception()  # seen, even if all who asked have gone

        question = under_way[host, port] = loop.create_task(_ask(host, port))
        question.add_done_callback(over)
    return await asyncio.shield(question)


async def _ask(host: str, port: int) -> Sequence[AddrInfo]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return cast("Sequence[AddrInfo]", infos)
