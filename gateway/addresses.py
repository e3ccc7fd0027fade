"""Networks, and the addresses that no connection goes to unless the configuration allows it.

If a vendor's or an issuer's name suddenly leads to this machine, to a link-local address or to a cloud's metadata
service, a connection would carry a secret there (server-side request forgery, DNS rebinding). So addresses are checked
when a connection is made, and exactly the checked addresses are connected to. Pure, except for `is_own`.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As `socket.getaddrinfo` has it: family, kind, protocol, canonical name, address."""

METADATA = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's host
        "192.0.0.192/32",  # Oracle Cloud, older images
        "fd00:42::42/128",  # Scaleway
        "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud
        "fd00:ec2::/32",  # Amazon
        "fd20:ce::254/128",  # Google Cloud
    )
)
"""Metadata services that are outside 169.254.0.0/16; that network is link-local and refused as such."""
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_LOW_32_BITS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "::/96",  # IPv4-compatible (RFC 4291 §2.5.5.1)
        "::ffff:0:0/96",  # IPv4-mapped (RFC 4291 §2.5.5.2)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765 §2.1)
        "64:ff9b::/96",  # NAT64 (RFC 6052 §2.1)
    )
)
"""Networks whose addresses hold an IPv4 address in their low 32 bits."""
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4-mapped addresses (RFC 4291 §2.5.5.2)."""
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
"""NAT64 prefixes of any length that a network chooses for itself (RFC 8215)."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Beginnings of an interface identifier that ends with an IPv4 address (RFC 5214 §6.1)."""
_REMEMBERED = 4096


class AddressRefused(OSError):
    """The configuration allows none of a name's addresses; the text says which kind they are."""


class Networks:
    """A set of networks in CIDR notation: `"10.1.2.3" in networks`. Caches its answers, up to a bound."""

    __slots__ = ("_answers", "_networks")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(_plain_network(network) for network in networks)
        self._answers: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __eq__(self, other: object) -> bool:
        return self._networks == other._networks if isinstance(other, Networks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._networks)

    def __contains__(self, text: str) -> bool:
        answer = self._answers.get(text)
        if answer is None:
            address = parse(text)
            answer = address is not None and any(address in network for network in self._networks)
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            self._answers[text] = answer
        return answer


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a listener on `host`."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse(text: str) -> IPAddress | None:
    """Return the address that `text` is, an IPv4-mapped one as IPv4; None if it is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _plain_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network of IPv4-mapped addresses as one of IPv4, because `parse` returns its addresses as IPv4."""
    network = ipaddress.ip_network(text)
    if not isinstance(network, ipaddress.IPv6Network) or not network.subnet_of(_MAPPED):
        return network
    return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - _MAPPED.prefixlen))


def plain_address(text: str) -> str:
    """Return an IPv4-mapped address, as dual-stack sockets show IPv4 peers, as IPv4 (RFC 4291 §2.5.5.2)."""
    return text[7:] if text.startswith("::ffff:") and "." in text else text


def forwarded_client(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """Return the client's address: the rightmost one in `X-Forwarded-For` that is not a trusted proxy's.

    Nothing is read that an untrusted proxy wrote, and nothing to the left of an entry that is not an address.
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
    """Return which kind of refused address this is; None for an ordinary one, private networks included.

    An IPv6 address is refused, too, if an IPv4 address inside it is.
    """
    for inner in embedded(address):
        kind = refused(inner)
        if kind is not None:
            return kind
    kinds = (
        (address.is_loopback, "a loopback address"),
        (any(address in network for network in METADATA), "a metadata service"),
        (address.is_link_local, "a link-local address"),
        (address.is_unspecified or address in _THIS_NETWORK, "an unspecified address"),
        (address.is_multicast or str(address) == "255.255.255.255", "a multicast address"),
    )
    return next((kind for holds, kind in kinds if holds), None)


def embedded(address: IPAddress) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses to which a translator or a tunnel may forward packets for an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    bits = int(address)
    low = bits & 0xFFFFFFFF
    inner = list(address.teredo or ())
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    # `::` and `::1` are addresses of their own, not IPv4-compatible ones.
    if any(address in network for network in _LOW_32_BITS) and bits > 1:
        inner.append(ipaddress.IPv4Address(low))
    if address in _LOCAL_NAT64:
        inner += _local_nat64(bits)
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        inner.append(ipaddress.IPv4Address(low))
    return inner


def _local_nat64(bits: int) -> list[ipaddress.IPv4Address]:
    """Return what an address of 64:ff9b:1::/48 may embed: the prefix may have 48, 56, 64 or 96 bits (RFC 6052 §2.2).

    Bits 64 to 71 are left out of the IPv4 address, and the bits behind it are zero.
    """
    candidates = [
        (40, (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF),
        (32, (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFFFFFF),
        (24, bits >> 24 & 0xFFFFFFFF),
    ]
    inner = [value for suffix, value in candidates if not bits & (1 << suffix) - 1]
    low = bits & 0xFFFFFFFF
    return [ipaddress.IPv4Address(value) for value in ([*inner, low] if low else inner)]


def is_own(address: str) -> bool:
    """Whether this is an address of one of this machine's interfaces.

    The kernel is asked for the source address of a packet to it: for an address of this machine that is the same one.
    A datagram socket sends nothing when it is connected.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return parse(str(probe.getsockname()[0])) == parse(address)
    except OSError:
        return False  # there is no route to it


def permitted(
    host: str, infos: Sequence[AddrInfo], allowed: Networks, own: Callable[[str], bool] = is_own
) -> list[AddrInfo]:
    """Return the addresses of `host` that may be connected to.

    A literal address is allowed because the configuration names it, and so is loopback by `localhost`. `own` says
    whether an address belongs to this machine. Raises AddressRefused if no address is left.
    """
    if parse(host) is not None:
        return list(infos)
    name = host.rstrip(".").lower()
    local = name == "localhost" or name.endswith(".localhost")
    kept, kinds = [], []
    for info in infos:
        text = str(info[4][0])
        address = parse(text)
        kind = refused(address) if address is not None else "no address"
        if kind is None and text not in allowed and own(text):
            kind = "an address of this machine"
        if kind is None or text in allowed or (local and kind == "a loopback address"):
            kept.append(info)
        else:
            kinds.append(kind)
    if not kept:
        kind = kinds[0] if kinds else "no address"
        raise AddressRefused(f"the name leads to {kind}; see allow_addresses")
    return kept
