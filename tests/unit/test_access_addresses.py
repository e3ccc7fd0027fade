"""Where no secret is sent, whoever says so; and whose word counts for where an app is."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.addresses import AddressRefused, Networks, embedded, forwarded_client, is_own, parse, permitted, refused

if TYPE_CHECKING:
    from gateway.addresses import AddrInfo

PUBLIC, LOOPBACK, METADATA = "93.184.216.34", "127.0.0.1", "169.254.169.254"


def infos(*addresses: str) -> list[AddrInfo]:
    return [
        (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443))
        for each in addresses
    ]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("fe80::1", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("0.1.2.3", "unspecified"),
        ("168.63.129.16", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fd00:c1::a9fe:a9fe", "metadata"),
        ("::ffff:0:127.0.0.1", "loopback"),
        ("::ffff:0:169.254.169.254", "link-local"),
        ("::ffff:168.63.129.16", "metadata"),
        ("::0.0.0.0", "unspecified"),
        ("64:ff9b::0.0.0.0", "unspecified"),
        ("64:ff9b:1::127.0.0.1", "loopback"),
        ("64:ff9b:1:7f00:0:100::", "loopback"),
        ("64:ff9b:1:7f:0:1::", "loopback"),
        ("64:ff9b:1:0:7f:0:100:0", "loopback"),
        ("64:ff9b:1:a9fe:a9:fe00::", "link-local"),
        ("64:ff9b:1:abcd::169.254.169.254", "link-local"),
        ("2001:0:7f00:1::1", "loopback"),
        ("2001:0:5db8:d822:0:0:80ff:fffe", "loopback"),
        ("2001:0:5db8:d822:0:0:5601:5601", "link-local"),
        ("2001:db8::5efe:127.0.0.1", "loopback"),
        ("2001:db8::200:5efe:169.254.169.254", "link-local"),
    ],
)
def test_an_address_where_nothing_goes_is_told_by_its_kind(address: str, kind: str) -> None:
    assert kind in str(refused(ipaddress.ip_address(address)))


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "10.0.0.1",
        "172.18.0.3",
        "192.168.1.1",
        "fd12::1",
        "2606::1",
        "::ffff:0:93.184.216.34",
        "64:ff9b:1::93.184.216.34",
        "64:ff9b:1:5db8:d8:2200::",
        "2001:0:5db8:d822:0:0:a247:27dd",
        "2002:5db8:d822::1",
    ],
)
def test_public_and_private_addresses_are_ordinary(address: str) -> None:
    assert refused(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    ("host", "found", "allowed", "kept"),
    [
        ("vendor.example", [PUBLIC], [], [PUBLIC]),
        ("vendor.example", [PUBLIC, LOOPBACK, METADATA], [], [PUBLIC]),
        ("sandbox", ["172.18.0.3"], [], ["172.18.0.3"]),
        ("localhost", [LOOPBACK, "::1"], [], [LOOPBACK, "::1"]),
        ("a.localhost", [LOOPBACK], [], [LOOPBACK]),
        ("127.0.0.1", [LOOPBACK], [], [LOOPBACK]),
        ("169.254.169.254", [METADATA], [], [METADATA]),
        ("sidecar.internal", [LOOPBACK], ["127.0.0.0/8"], [LOOPBACK]),
        ("sidecar.internal", [METADATA, LOOPBACK], ["127.0.0.0/8"], [LOOPBACK]),
    ],
    ids=["public", "mixed", "private", "localhost", "its kin", "literal", "literal metadata", "allowed", "one of two"],
)
def test_what_the_configuration_names_or_is_ordinary_is_connected_to(
    host: str, found: list[str], allowed: list[str], kept: list[str]
) -> None:
    assert [str(info[4][0]) for info in permitted(host, infos(*found), Networks(allowed))] == kept


@pytest.mark.parametrize(
    ("host", "found", "kind"),
    [
        ("vendor.example", [LOOPBACK], "a loopback address"),
        ("vendor.example", [METADATA, "::1"], "a link-local address"),
        ("localhost", [METADATA], "a link-local address"),
        ("localhost.vendor.example", [LOOPBACK], "a loopback address"),
        ("vendor.example", [], "no address"),
    ],
    ids=["loopback", "several", "localhost that leads elsewhere", "a name that only looks local", "nothing"],
)
def test_a_name_that_leads_only_there_is_refused(host: str, found: list[str], kind: str) -> None:
    with pytest.raises(AddressRefused, match=kind) as refusal:
        permitted(host, infos(*found), Networks())
    assert not any(each in str(refusal.value) for each in found)


@pytest.mark.parametrize("length", [48, 56, 64, 96])
def test_a_local_translator_s_address_is_read_for_each_length_of_its_prefix(length: int) -> None:
    """RFC 6052 §2.2: the bits of the IPv4 address follow the prefix, and bits 64 to 71 are left out."""
    inner = ipaddress.IPv4Address("169.254.169.254")
    bits = f"{int(ipaddress.IPv6Address('64:ff9b:1::')):0128b}"[:length] + f"{int(inner):032b}"
    if length < 96:
        bits = bits[:64] + "0" * 8 + bits[64:]
    assert inner in embedded(ipaddress.IPv6Address(int(bits.ljust(128, "0"), 2)))


def test_an_address_of_this_machine_is_refused_by_name_unless_it_is_allowed() -> None:
    """The admin port, or another service of this machine, listens on it as it does on loopback."""
    mine = {"10.9.8.7", "fd12::7"}.__contains__
    assert permitted("vendor.example", infos("10.9.8.7", PUBLIC), Networks(), mine) == infos(PUBLIC)
    with pytest.raises(AddressRefused, match="an address of this machine"):
        permitted("vendor.example", infos("10.9.8.7", "fd12::7"), Networks(), mine)
    assert permitted("vendor.example", infos("10.9.8.7"), Networks(["10.9.0.0/16"]), mine) == infos("10.9.8.7")
    assert permitted("10.9.8.7", infos("10.9.8.7"), Networks(), mine) == infos("10.9.8.7")


def test_the_kernel_knows_which_addresses_are_this_machine_s() -> None:
    assert is_own("127.0.0.1")
    assert not is_own("192.0.2.1")
    assert not is_own("2001:db8::1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        assert is_own(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["localhost.", "a.localhost.", "LOCALHOST"])
def test_localhost_is_the_same_name_with_a_dot_at_its_end(host: str) -> None:
    assert permitted(host, infos(LOOPBACK), Networks()) == infos(LOOPBACK)


# ------------------------------------------------------------------------------------------------------------ proxies

TRUSTED = Networks(["10.0.0.0/8", "::1/128"])


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7, 10.2.2.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, _hidden, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("::1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    ],
    ids=[
        "one hop",
        "what the app wrote itself",
        "two proxies",
        "only proxies",
        "a peer nobody trusts",
        "no field",
        "unknown",
        "hidden",
        "empty",
        "port",
        "IPv6 with a port",
        "IPv4 inside IPv6",
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_is_the_app(peer: str, fields: list[str], client: str) -> None:
    assert forwarded_client(peer, fields, TRUSTED) == client


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("::ffff:198.51.100.0/120", "198.51.100.7", True),
        ("::ffff:198.51.100.0/120", "::ffff:198.51.100.7", True),
        ("::ffff:198.51.100.0/120", "198.51.101.7", False),
        ("::ffff:198.51.100.7", "198.51.100.7", True),
        ("::ffff:198.51.100.7", "198.51.100.8", False),
        ("::ffff:0:0/96", "203.0.113.1", True),
        ("::ffff:0:0/96", "2001:db8::1", False),
        ("::ffff:0:0:0/96", "203.0.113.1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "203.0.113.1", False),
        ("0.0.0.0/0", "::ffff:203.0.113.1", True),
        ("2001:db8::/32", "2001:db8::1%eth0", True),
    ],
)
def test_a_network_of_mapped_addresses_is_one_of_ipv4(network: str, address: str, inside: bool) -> None:
    assert (address in Networks([network])) is inside


def test_memory_for_what_networks_were_asked_is_bounded() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(20_000):
        assert (f"10.0.{number // 256}.{number % 256}" in networks) is True
    assert len(networks._answers) <= 4096
    assert parse("no address") is None
