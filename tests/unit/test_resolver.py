"""Names: one that hangs delays no other, and known addresses serve on while look-ups fail or hang."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

import gateway.threads as threads_module
from gateway.addresses import AddressRefused, Networks
from gateway.resolver import GuardedResolver, Resolver
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.rest import until

FIRST, SECOND, LOOPBACK = "93.184.216.34", "93.184.216.35", "127.0.0.1"


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def system() -> Any:
    it = System()
    yield it
    it.free.set()


async def addresses(resolver: Resolver, host: str = "vendor.example") -> list[str]:
    async with asyncio.timeout(20):
        return [str(info[4][0]) for info in await resolver.look_up(host, 443)]


async def quiet(resolver: Resolver) -> None:
    """Wait until no look-up is under way."""
    await until(lambda: all(name.question is None for name in resolver._names.values()))


async def test_names_that_hang_delay_no_other_name_however_many_they_are(system: System) -> None:
    """An event loop's own resolver has four threads, of which slow look-ups get two."""
    resolver = Resolver(getaddrinfo=system)
    system.hanging = {f"hangs-{number}.example" for number in range(50)}
    asking = [asyncio.ensure_future(resolver.look_up(name, 443)) for name in sorted(system.hanging)]
    await asyncio.sleep(0)
    assert await addresses(resolver, "well.example") == [FIRST]
    assert not any(each.done() for each in asking)
    system.free.set()
    await asyncio.gather(*asking)


async def test_a_name_is_looked_up_once_at_a_time_however_many_ask_and_give_up(system: System) -> None:
    resolver = Resolver(getaddrinfo=system)
    system.hanging = {"vendor.example"}
    asking = [asyncio.ensure_future(resolver.look_up("vendor.example", 443)) for _ in range(20)]
    await asyncio.sleep(0)
    for each in asking[:10]:
        each.cancel()
    await asyncio.gather(*asking[:10], return_exceptions=True)
    asking += [asyncio.ensure_future(resolver.look_up("vendor.example", 8443)) for _ in range(20)]
    await asyncio.sleep(0)
    system.free.set()
    answers = await asyncio.gather(*asking[10:])
    assert {infos[0][4] for infos in answers} == {(FIRST, 443), (FIRST, 8443)}
    assert system.asked == {"vendor.example": 1}


async def test_each_connection_has_its_name_looked_up_anew(system: System) -> None:
    resolver = resolver_of(system)
    assert await addresses(resolver) == [FIRST]
    system.addresses["vendor.example"] = [SECOND, "2001:db8::1"]
    assert await addresses(resolver) == [SECOND, "2001:db8::1"]
    assert resolver.current("vendor.example") == frozenset({SECOND, "2001:db8::1"})
    assert (await resolver.look_up("vendor.example", 443))[1][4] == ("2001:db8::1", 443, 0, 0)


async def test_a_name_that_does_not_resolve_is_an_error_for_all_who_ask_and_is_asked_for_anew(system: System) -> None:
    resolver = Resolver(getaddrinfo=system)
    system.failing = {"nobody.example"}
    for turn in (1, 2):
        told = await asyncio.gather(
            *(resolver.look_up("nobody.example", 443) for _ in range(5)), return_exceptions=True
        )
        assert [type(each) for each in told] == [socket.gaierror] * 5
        assert system.asked["nobody.example"] == turn
    system.failing.clear()
    assert await addresses(resolver, "nobody.example") == [FIRST]


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_known_addresses_are_used_at_once_while_look_ups_fail_or_hang(how: str, system: System) -> None:
    resolver = Resolver(getaddrinfo=system)
    assert await addresses(resolver) == [FIRST]
    (system.failing if how == "fails" else system.hanging).add("vendor.example")
    assert await addresses(resolver) == [FIRST], "only this one may wait, for the grace"
    for _ in range(100):
        asking = asyncio.ensure_future(resolver.look_up("vendor.example", 443))
        await asyncio.sleep(0)
        assert asking.done(), "nothing is waited for"
    assert system.asked["vendor.example"] <= 102
    system.addresses["vendor.example"] = [SECOND]
    system.failing.clear()
    system.hanging.clear()
    system.free.set()
    await quiet(resolver)
    await addresses(resolver)
    await quiet(resolver)
    assert await addresses(resolver) == [SECOND], "the name has moved in the meantime"


@pytest.mark.parametrize(("stale", "age", "used"), [(3600, 3599, True), (3600, 3601, False), (0, 1, False)])
async def test_known_addresses_are_used_for_a_bounded_time(
    stale: float, age: float, used: bool, system: System
) -> None:
    clock = Clock()
    resolver = Resolver(stale, getaddrinfo=system, now=clock)
    assert await addresses(resolver) == [FIRST]
    clock.now += age
    system.failing = {"vendor.example"}
    if used:
        assert await addresses(resolver) == [FIRST]
    else:
        with pytest.raises(socket.gaierror):
            await addresses(resolver)


async def test_the_use_of_known_addresses_is_reported_once_and_so_is_its_end(system: System) -> None:
    told: list[tuple[str, bool]] = []
    resolver = Resolver(getaddrinfo=system, report=lambda name, stale: told.append((name, stale)))
    await addresses(resolver)
    system.failing = {"vendor.example"}
    for _ in range(5):
        await addresses(resolver)
        await quiet(resolver)
    assert told == [("vendor.example", True)]
    system.failing.clear()
    await addresses(resolver)
    await quiet(resolver)
    assert told == [("vendor.example", True), ("vendor.example", False)]


async def test_a_look_up_that_hangs_for_a_second_is_reported_too(system: System) -> None:
    told: list[tuple[str, bool]] = []
    clock = Clock()
    resolver = Resolver(getaddrinfo=system, now=clock, report=lambda name, stale: told.append((name, stale)))
    await addresses(resolver)
    system.hanging = {"vendor.example"}
    await addresses(resolver)
    assert told == []
    clock.now += 2
    await addresses(resolver)
    assert told == [("vendor.example", True)]


async def test_a_name_that_no_thread_can_be_started_for_is_an_error(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver(getaddrinfo=system)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(socket.gaierror):
        await resolver.look_up("vendor.example", 443)


async def test_threads_are_used_again_and_end_when_nothing_is_looked_up(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads_module, "_IDLE", 0.05)
    resolver = Resolver(getaddrinfo=system)
    before = threading.active_count()
    for number in range(50):
        await addresses(resolver, f"{number}.example")
    assert threading.active_count() <= before + 3
    await asyncio.gather(*(addresses(resolver, f"{number}.example") for number in range(50)))
    await until(lambda: threading.active_count() == before)
    assert await addresses(resolver) == [FIRST]


async def test_a_name_that_cannot_be_encoded_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await Resolver().look_up(f"{'a' * 64}.example", 443)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
async def test_a_literal_address_is_not_looked_up(host: str, system: System) -> None:
    infos = await Resolver(getaddrinfo=system).look_up(host, 443)
    assert [info[4][:2] for info in infos] == [(host, 443)]
    assert not system.asked


async def test_a_session_s_resolver_returns_only_permitted_addresses(system: System) -> None:
    resolver = GuardedResolver(Networks(), resolver_of(system))
    system.addresses["vendor.example"] = [FIRST, LOOPBACK]
    assert [found["host"] for found in await resolver.resolve("vendor.example", 443)] == [FIRST]
    system.addresses["vendor.example"] = [LOOPBACK]
    with pytest.raises(AddressRefused):
        await resolver.resolve("vendor.example", 443)
