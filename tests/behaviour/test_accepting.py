"""Connections count from the moment they are accepted: TLS handshakes, few descriptors, both IP families."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import select
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.model import Address
from gateway.proxy.listening import listen
from tests.behaviour.test_serve_tls import ask, issue, trusting
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.ports import free_port
from tests.kit.served import Served, until
from tests.kit.wire import Peer, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRON = {"CANARY": CANARY}


def open_to_all(port: int) -> dict[str, Any]:
    return {**one_route(port), "access": "open"}


@contextlib.contextmanager
def bare(
    address: tuple[str, int] | None, count: int, source: str = "127.0.0.1", first: bytes = b""
) -> Iterator[list[socket.socket]]:
    """Open TCP connections that say no more than `first`."""
    assert address is not None
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            with contextlib.suppress(ConnectionError):  # refused already
                opened.append(stack.enter_context(socket.create_connection(address, 10, (source, 0))))
                opened[-1].setblocking(False)
                opened[-1].send(first)
        yield opened


def is_open(sock: socket.socket) -> bool:
    """Whether the other side has neither closed nor said anything."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


@pytest.mark.parametrize(
    "limits", [{"connections": 8}, {"connections": 100, "connections_per_address": 8}], ids=["in all", "an address"]
)
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02"], ids=["silent", "in the handshake"])
async def test_a_tls_connection_counts_before_its_handshake(
    limits: dict[str, int], first: bytes, tmp_path: Path
) -> None:
    ca = trustme.CA()
    config = {"tls": issue(tmp_path, ca), "limits": {**limits, "header_timeout": "2s"}}
    async with vendor(answering(ok())) as it_vendor, running({**open_to_all(it_vendor.port), **config}) as it:
        data = it.gateway._data
        assert data is not None
        with bare(it.address, 120, first=first) as opened:
            await until(lambda: sum(map(is_open, opened)) <= 8)
            assert data.connections <= 8
            # What stalls makes room for an app that does not.
            assert it.address is not None
            (await ask(it.address, trusting(ca))).close()
            await until(lambda: data.connections == 0)


async def test_one_address_in_handshakes_leaves_the_others_alone(tmp_path: Path) -> None:
    ca = trustme.CA()
    config = {"tls": issue(tmp_path, ca), "limits": {"connections": 100, "connections_per_address": 8}}
    async with vendor(answering(ok())) as it_vendor, running({**open_to_all(it_vendor.port), **config}) as it:
        assert it.address is not None
        with bare(it.address, 60, source="127.0.0.2"):
            (await ask(it.address, trusting(ca))).close()


async def test_only_so_many_handshakes_run_at_a_time_and_each_gets_its_turn(tmp_path: Path) -> None:
    ca = trustme.CA()
    async with (
        vendor(answering(ok())) as it_vendor,
        running({**open_to_all(it_vendor.port), "tls": issue(tmp_path, ca)}) as it,
    ):
        assert it.address is not None
        context = trusting(ca)
        data = it.gateway._data
        assert data is not None
        with bare(it.address, 200, first=b"\x16\x03\x01\x02"):
            await until(lambda: data._acceptor._running > 0)
            apps = [await ask(it.address, context) for _ in range(20)]
            assert data._acceptor._running <= 64
        for peer in apps:
            peer.close()
        await until(lambda: data.connections == 0)
        assert not data._acceptor._opening
        assert not data._acceptor._running


async def test_without_room_accepting_waits_for_handshakes_that_still_move(tmp_path: Path) -> None:
    """The kernel keeps the connection until a handshake ends or is given up."""
    ca = trustme.CA()
    async with (
        vendor(answering(ok())) as it_vendor,
        running({**open_to_all(it_vendor.port), "tls": issue(tmp_path, ca)}) as it,
    ):
        data = it.gateway._data
        assert data is not None
        acceptor, now = data._acceptor, asyncio.get_running_loop().time()
        data.use_limits(data.limits, room=8)
        with bare(it.address, 7, first=b"\x16\x03\x01\x02"):
            await until(lambda: data.connections == 7)
            for opening in acceptor._opening.values():
                opening.since = now + 3600  # none has stalled, however slow the machine is
            app = asyncio.create_task(ask(it.address, trusting(ca)))
            await until(lambda: acceptor._paused)
            assert (data.connections, app.done()) == (7, False)
            acceptor.sweep(now + 7200)
            (await app).close()


async def test_a_connection_that_is_given_up_while_it_opens_is_reset_and_forgotten() -> None:
    async with vendor(answering(ok())) as it_vendor, running(open_to_all(it_vendor.port)) as it:
        data = it.gateway._data
        assert data is not None
        with socket.create_connection(it.address) as app:
            app.setblocking(False)
            while not any(opening.started for opening in data._acceptor._opening.values()):  # noqa: ASYNC110 - nobody sets an event
                await asyncio.sleep(0)  # its transport reports in the next round of the loop
            data._acceptor.abort()
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(app, 1)
        assert (data.connections, data._connections) == (0, set())


# ---------------------------------------------------------------------------------------------- few descriptors


def with_files(soft: int, hard: int) -> tuple[str, ...]:
    """Return the beginning of a command that starts another with these limits of open files."""
    return ("sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "sh")


async def test_the_limit_of_open_files_is_raised_as_far_as_allowed(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        gateway = Served(tmp_path, {**open_to_all(it_vendor.port), "limits": {"connections": 1000}}, environ=ENVIRON)
        try:
            await gateway.start(wrapper=with_files(64, 4096))
            with bare(gateway.address, 300) as idle:
                app = await connect(gateway.address)
                await app.send(get("/v/x"))
                assert (await app.message()).status == 200
                assert all(map(is_open, idle))
            assert not gateway.events("few_descriptors")
        finally:
            await gateway.stop()


async def test_with_few_descriptors_fewer_connections_are_taken_and_all_of_them_are_served(tmp_path: Path) -> None:
    """Idle connections beyond what fits get a 503; vendors and the admin port keep descriptors of their own."""
    async with vendor(answering(ok())) as it_vendor:
        gateway = Served(tmp_path, open_to_all(it_vendor.port), environ=ENVIRON)
        try:
            await gateway.start(wrapper=with_files(64, 64))
            told = await gateway.seen("few_descriptors")
            assert told["fit"] < told["connections"] == 10_000
            app = await connect(gateway.address)
            await app.send(get("/v/x"))
            assert (await app.message()).status == 200
            with bare(gateway.address, 150) as idle:
                await until(lambda: sum(map(is_open, idle)) < told["fit"])
                for _ in range(20):
                    await app.send(get("/v/x"))
                    assert (await app.message()).status == 200
                    assert (await gateway.ask("/healthz"))[0] == 200
            assert await eventually_served(gateway.address)
            assert not gateway.events("accept_failed")
        finally:
            await gateway.stop()


async def eventually_served(address: tuple[str, int]) -> bool:
    async with asyncio.timeout(20):
        while True:
            app = await connect(address)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await app.send(get("/v/x"))
                if (await app.message()).status == 200:
                    return True
            app.close()


async def test_a_flood_of_tls_connections_with_few_descriptors_resets_no_good_request(tmp_path: Path) -> None:
    ca = trustme.CA()
    async with vendor(answering(ok())) as it_vendor:
        config = {**open_to_all(it_vendor.port), "tls": issue(tmp_path, ca)}
        gateway = Served(tmp_path, config, environ=ENVIRON)
        try:
            await gateway.start(wrapper=with_files(96, 96))
            context = trusting(ca)
            over = asyncio.Event()

            async def floods() -> None:
                with contextlib.ExitStack() as stack:
                    while not over.is_set():
                        stack.enter_context(bare(gateway.address, 5))
                        await asyncio.sleep(0.2)

            flooding = asyncio.create_task(floods())
            for _ in range(20):
                (await ask(gateway.address, context)).close()
            over.set()
            await flooding
        finally:
            await gateway.stop()


# --------------------------------------------------------------------------------------------------- both IP families


async def asks(host: str, port: int, *fields: str) -> int:
    app = await connect_to(host, port)
    await app.send(get("/v/x", *fields))
    status = (await app.message()).status
    app.close()
    return status


async def connect_to(host: str, port: int) -> Peer:
    return Peer(*await asyncio.open_connection(host, port))


LISTEN: dict[str, tuple[Any, list[str]]] = {
    "one address": ("127.0.0.1:{port}", ["127.0.0.1"]),
    "any IPv6 address serves both": ("[::]:{port}", ["127.0.0.1", "::1"]),
    "a list": (["127.0.0.1:{port}", "[::1]:{port}"], ["127.0.0.1", "::1"]),
    "any address of each family": (["0.0.0.0:{port}", "[::]:{port}"], ["127.0.0.1", "::1"]),
    "any, in the other order": (["[::]:{port}", "0.0.0.0:{port}"], ["127.0.0.1", "::1"]),
}


@pytest.mark.parametrize("case", LISTEN)
async def test_the_data_port_listens_on_each_address_that_is_configured(case: str, tmp_path: Path) -> None:
    listen, hosts = LISTEN[case]
    port = free_port()
    shown = [each.format(port=port) for each in listen] if isinstance(listen, list) else listen.format(port=port)
    async with vendor(answering(ok())) as it_vendor:
        config = {**open_to_all(it_vendor.port), "listen": shown}
        gateway = Served(tmp_path, config, environ=ENVIRON)
        try:
            await gateway.start()
            assert [await asks(host, port) for host in hosts] == [200] * len(hosts)
        finally:
            await gateway.stop()


async def test_an_ipv4_app_on_a_dual_stack_port_has_its_ipv4_address_everywhere(tmp_path: Path) -> None:
    port = free_port()
    async with vendor(answering(ok())) as it_vendor:
        route = one_route(it_vendor.port, forwarded="x-forwarded")
        client = {"name": "app", "key_sha256": hashed("gp_key"), "routes": ["v"], "addresses": ["127.0.0.0/8"]}
        config = {**route, "clients": [client], "listen": f"[::]:{port}"}
        gateway = Served(tmp_path, config, environ=ENVIRON)
        try:
            await gateway.start()
            assert await asks("127.0.0.1", port, "X-Gatepass-Key: gp_key") == 200
            assert b"X-Forwarded-For: 127.0.0.1\r\n" in it_vendor.received
            assert (await gateway.seen("request"))["remote"] == "127.0.0.1"
            assert await asks("::1", port, "X-Gatepass-Key: gp_key") == 403
        finally:
            await gateway.stop()


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    ("hosts", "takes_ipv4"),
    [(["::"], socket.AF_INET6), (["0.0.0.0", "::"], socket.AF_INET), (["::", "0.0.0.0"], socket.AF_INET)],
    ids=["IPv6 alone", "IPv4 first", "IPv6 first"],
)
async def test_the_any_address_of_ipv6_serves_ipv4_unless_that_of_ipv4_is_listed(
    hosts: list[str], takes_ipv4: socket.AddressFamily
) -> None:
    port = free_port()
    sockets = await listen(*(Address(host, port) for host in hosts))
    try:
        assert [taken_by(sockets, host, port) for host in ("127.0.0.1", "::1")] == [takes_ipv4, socket.AF_INET6]
    finally:
        for sock in sockets:
            sock.close()


def taken_by(sockets: list[socket.socket], host: str, port: int) -> int:
    """Return the family of the listening socket that takes a connection to this address."""
    with socket.create_connection((host, port), 10):
        [sock], _, _ = select.select(sockets, [], [], 10)
        sock.accept()[0].close()
        return int(sock.family)


async def test_the_any_address_of_ipv4_on_another_port_changes_nothing() -> None:
    first, second = free_port(), free_port()
    sockets = await listen(Address("::", first), Address("0.0.0.0", second))
    try:
        assert taken_by(sockets, "127.0.0.1", first) == socket.AF_INET6
    finally:
        for sock in sockets:
            sock.close()
