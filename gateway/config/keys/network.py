"""Hosts, addresses and networks: which host may be reached without TLS, where to listen. Nothing is resolved here.

Names under `.localhost`, `.local`, `.internal` and `.test` are never on the public Internet (RFC 6761, RFC 6762).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated

from gateway.addresses import embedded, parse, refused
from gateway.config.keys.section import kind, refuse, revealed
from gateway.config.keys.text import STRINGS, list_of, plain_text, text_like
from gateway.model import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.addresses import IPAddress

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
PORT = re.compile(r"[0-9]{1,5}")
MAX_PORT = 65535
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".test")


def may_be_plain(host: str) -> bool:
    """Return whether `http://` is allowed, because `host` cannot be on the public Internet.

    These are loopback and private addresses (but no link-local ones and no metadata services), single-label names as
    in Docker Compose, and names under the private suffixes.
    """
    address = parse(host)
    if address is None:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(PRIVATE_SUFFIXES)
    inner: Sequence[IPAddress] = embedded(address)
    return all(_is_near(each) for each in inner or [address])


def _is_near(address: IPAddress) -> bool:
    return address.is_loopback or (address.is_private and refused(address) is None)


def is_host(host: str) -> bool:
    """Return whether the text is an IP address or a well-formed host name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(HOST_NAME.fullmatch(host)) and not DIGITS_AND_DOTS.fullmatch(host)
    return True


def parse_address(text: str) -> Address | None:
    """Parse `host:port`; without a host it is every address (`0.0.0.0`). Return None when it is malformed."""
    host, colon, port = text.rpartition(":")
    if not colon or not PORT.fullmatch(port) or int(port) > MAX_PORT:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host or "0.0.0.0"  # noqa: S104 - the user asks for it by leaving it out
    if bracketed != (":" in host) or not is_host(host):
        return None
    return Address(host, int(port))


def listen_address(value: object) -> Address:
    """Return the address of `host:port`, `[::1]:port`, or `:port` for every address of the machine."""
    written = revealed(value)
    address = parse_address(plain_text(written)) if isinstance(written, str) else None
    return address or refuse("must be host:port, as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080")


def listen_addresses(value: object) -> tuple[Address, ...]:
    """Return the addresses of one text, or of a list of texts."""
    if not isinstance(value, list):
        return (listen_address(value),)
    addresses = tuple(listen_address(each) for each in value)
    if not addresses:
        refuse("must hold at least one address")
    if len(set(addresses)) < len(addresses):
        refuse("holds an address twice")
    return addresses


def network(value: object) -> str:
    """Return a network in CIDR notation; a single address is a network of one."""
    try:
        return str(ipaddress.ip_network(plain_text(value)))
    except ValueError:
        return refuse("must be a network as 10.1.0.0/16 or fd00::/8, its host bits zero")


host_name = text_like(HOST_NAME, "must be a host name without scheme and port")

HostNames = Annotated[tuple[str, ...], *kind("list of host names", list_of(host_name), **STRINGS)]
_ADDRESS: dict[str, object] = {"type": "string", "pattern": r":[0-9]{1,5}$"}
ListenAddress = Annotated[Address, *kind("address", listen_address, **_ADDRESS)]
ListenAddresses = Annotated[
    tuple[Address, ...],
    *kind(
        "address or list of addresses",
        listen_addresses,
        anyOf=[_ADDRESS, {"type": "array", "items": _ADDRESS, "minItems": 1, "uniqueItems": True}],
    ),
]
Networks = Annotated[tuple[str, ...], *kind("list of networks", list_of(network), **STRINGS)]
