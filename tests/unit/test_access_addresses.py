"""Where no secret is sent, whoever says so; and whose word counts for where an app is."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from gateway import addresses
from gateway.addresses import AddressRefused, Networks, forwarded_client, look_up, parse, permitted, refused
from gateway.resolver import GuardedResolver

if TYPE_CHECKING:
    from collections.abc import Sequence

PUBLIC, LOOPBACK, METADATA = "93.184.216.34", "127.0.0.1", "169.254.169.254"


def infos(*addresses: str) -> list[tuple[object, ...]]:
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
    ],
)
def test_an_address_where_nothing_goes_is_told_by_its_kind(address: str, kind: str) -> None:
    assert kind in str(refused(ipaddress.ip_address(address)))


@pytest.mark.parametrize("address", ["93.184.216.34", "10.0.0.1", "172.18.0.3", "192.168.1.1", "fd12::1", "2606::1"])
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


async def test_a_session_s_resolver_looks_at_the_addresses_that_it_hands_on() -> None:
    answers = [infos(PUBLIC, LOOPBACK), infos(LOOPBACK)]

    async def look_up(_host: str, _port: int) -> object:
        return answers.pop(0)

    resolver = GuardedResolver(Networks(), look_up)
    assert [found["host"] for found in await resolver.resolve("vendor.example", 443)] == [PUBLIC]
    with pytest.raises(AddressRefused):
        await resolver.resolve("vendor.example", 443)


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


def test_memory_for_what_networks_were_asked_is_bounded() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(20_000):
        assert (f"10.0.{number // 256}.{number % 256}" in networks) is True
    assert len(networks._seen) <= 4096
    assert parse("no address") is None


# ---------------------------------------------------------------------------------------------------------- looking up


class Resolver:
    """The system's resolver: a few threads, of which a question that hangs keeps one, waited for or not."""

    def __init__(self, threads: int = 4) -> None:
        self.free = asyncio.Semaphore(threads)
        self.asked: Counter[str] = Counter()
        self.answer = asyncio.Event()

    async def __call__(self, host: str, port: int) -> Sequence[Any]:
        async with self.free:
            self.asked[host] += 1
            if host == "hangs.example":
                await self.answer.wait()
            if host == "nobody.example":
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]


async def test_a_name_that_hangs_is_asked_for_once_and_leaves_the_others_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twenty attempts, given up one after another as connect time-outs do: one question goes on, not twenty."""
    resolver = Resolver()
    monkeypatch.setattr(addresses, "_ask", resolver)
    asking = [asyncio.ensure_future(look_up("hangs.example", 443)) for _ in range(20)]
    await asyncio.sleep(0)
    for each in asking[:10]:
        each.cancel()
    await asyncio.gather(*asking[:10], return_exceptions=True)
    asking += [asyncio.ensure_future(look_up("hangs.example", 443)) for _ in range(20)]
    async with asyncio.timeout(30):
        assert (await look_up("well.example", 443))[0][4] == (PUBLIC, 443)
        assert resolver.asked == {"hangs.example": 1, "well.example": 1}
        resolver.answer.set()
        assert {(await each)[0][4] for each in asking[10:]} == {(PUBLIC, 443)}
        assert (await look_up("hangs.example", 443))[0][4] == (PUBLIC, 443)
    assert resolver.asked["hangs.example"] == 2, "an answer is not kept"


async def test_a_name_that_does_not_resolve_is_told_to_all_who_asked_and_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver()
    monkeypatch.setattr(addresses, "_ask", resolver)
    for turn in (1, 2):
        told = await asyncio.gather(*(look_up("nobody.example", 443) for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in told] == [socket.gaierror] * 5
        assert resolver.asked["nobody.example"] == turn
    gone = asyncio.ensure_future(look_up("nobody.example", 443))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0.01)
