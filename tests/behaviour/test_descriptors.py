"""Few file descriptors, or none: many vendors share what there is, and a lack of them is named and counted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from structlog.testing import capture_logs

from gateway.model import Route, Upstream
from gateway.observe import Metrics
from gateway.proxy import Pool, VendorRoom
from gateway.proxy.room import room_for_apps, room_for_vendors
from gateway.proxy.upstream import UpstreamConnection
from gateway.proxy.wire import Outbox
from gateway.resolver import Resolver
from gateway.tls import UpstreamContexts, client_context
from tests.behaviour.test_accepting import with_files
from tests.kit.configuration import loaded
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import CANARY, running
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.served import Served, until
from tests.kit.wire import connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tests.kit.wire import Peer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are read from /proc")

PLAIN = Route("orders", "/orders", Upstream("http", "vendor.example", 80), ())
NAMED = "no file descriptor is left, raise the limit of open files"


async def patient(peer: Peer) -> None:
    """Answer every request of a connection, after a moment in which others arrive."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await peer.reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(0.05)
            await peer.send(ok())


def routes(ports: list[int]) -> dict[str, Any]:
    return {
        "credentials": {"s": {"static": {"token": "${CANARY}"}}},
        "routes": {
            f"v{n}": {"credential": "s", "pool": {"size": 40}, "upstream": f"http://127.0.0.1:{port}"}
            for n, port in enumerate(ports)
        },
    }


@contextlib.asynccontextmanager
async def vendors(count: int) -> AsyncIterator[list[int]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(vendor(patient))).port for _ in range(count)]


def descriptors(gateway: Served) -> set[int]:
    assert gateway.process is not None
    return {int(each.name) for each in Path(f"/proc/{gateway.process.pid}/fd").iterdir()}


@contextlib.contextmanager
def no_more_files(gateway: Served) -> Iterator[None]:
    """Let the running process open none: not even the lowest free number is below its limit."""
    assert gateway.process is not None
    pid, used = gateway.process.pid, descriptors(gateway)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    lowest = next(number for number in range(2**20) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def status(app: Peer, path: str) -> int:
    await app.send(get(path))
    return (await app.message()).status


# ------------------------------------------------------------------------------------------------------ many vendors


async def test_idle_connections_to_many_vendors_leave_descriptors_for_the_next_one(tmp_path: Path) -> None:
    """Twelve vendors with ten apps each would keep 120 connections; the process may open 96 files."""
    async with vendors(12) as ports:
        gateway = Served(tmp_path, routes(ports), environ={"CANARY": CANARY})
        try:
            await gateway.start(wrapper=with_files(96, 96))
            apps = [await connect(gateway.address) for _ in range(10)]
            for number in [*range(12), *range(12)]:
                assert await asyncio.gather(*(status(app, f"/v{number}/x") for app in apps)) == [200] * 10
                assert len(descriptors(gateway)) < 90
                assert (await gateway.ask("/healthz"))[0] == 200
            for peer in ("app", "upstream", "token_endpoint"):
                assert await gateway.metric(f'gatepass_no_descriptor_total{{peer="{peer}"}}') == 0
        finally:
            await gateway.stop()


async def test_with_descriptors_to_spare_idle_connections_are_kept(tmp_path: Path) -> None:
    async with vendors(3) as ports, Served(tmp_path, routes(ports), environ={"CANARY": CANARY}) as gateway:
        apps = [await connect(gateway.address) for _ in range(10)]
        for number in range(3):
            assert await asyncio.gather(*(status(app, f"/v{number}/x") for app in apps)) == [200] * 10
        idle = [await gateway.metric(f'gatepass_pool_idle_connections{{route="v{n}"}}') for n in range(3)]
        assert idle == [10, 10, 10]


def pool_with(*idle: float, busy: int = 0) -> Pool:
    """Return a pool whose idle connections are idle since these instants."""
    loop = asyncio.get_running_loop()
    pool = Pool(PLAIN, Metrics().route("orders"), UpstreamContexts(), Resolver())
    for since in [*idle, *[0.0] * busy]:
        connection = UpstreamConnection(loop, Outbox(loop), lambda _: None)
        connection.idle_from = since
        pool._open.add(connection)
        if since:
            pool._idle.append(connection)
    return pool


def idle_in(pool: Pool) -> list[float]:
    return [connection.idle_from for connection in pool._idle]


async def test_the_longest_idle_connections_of_any_pool_go_first_and_busy_ones_stay() -> None:
    room, first, second = VendorRoom(), pool_with(1.0, 5.0, busy=1), pool_with(2.0, 3.0, busy=4)
    room.pools = lambda: [first, second]
    room.make()
    assert room.limit is None
    assert (idle_in(first), idle_in(second)) == ([1.0, 5.0], [2.0, 3.0])
    room.limit = 7
    room.make()
    assert (idle_in(first), idle_in(second)) == ([5.0], [3.0])
    room.limit = 3
    room.make()
    assert (idle_in(first), idle_in(second)) == ([], [])
    assert first.descriptors + second.descriptors == 5
    assert not room.evict()


@pytest.mark.parametrize(
    ("free", "pools", "connections", "apps", "to_vendors"),
    [
        pytest.param(20_000, 400, 10_000, 19_600, None, id="enough"),
        pytest.param(900, 400, 10_000, 500, 400, id="just the pools"),
        pytest.param(900, 4_000, 10_000, 450, 450, id="many pools"),
        pytest.param(2, 400, 10_000, 1, 1, id="hardly any"),
    ],
)
def test_apps_and_vendors_never_have_more_than_there_is(
    free: int, pools: int, connections: int, apps: int, to_vendors: int | None
) -> None:
    assert room_for_apps(free, pools) == apps
    assert room_for_vendors(free, pools, connections) == to_vendors
    assert to_vendors is None or apps + to_vendors <= free


# ---------------------------------------------------------------------------------------------------- no descriptor


async def test_a_vendor_that_needs_a_descriptor_when_there_is_none_is_not_blamed(tmp_path: Path) -> None:
    """The app gets 503 and may ask again; the log and a metric say what was missing; then all is well."""
    async with vendors(1) as ports, Served(tmp_path, routes(ports), environ={"CANARY": CANARY}) as gateway:
        app = await connect(gateway.address)
        await status(app, "/none")  # it is accepted
        with no_more_files(gateway):
            await app.send(get("/v0/x"))
            answer = await app.message()
            assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
            assert answer.one("Retry-After") == b"1"
            event = (await gateway.seen("request", 2))["reason"]
            assert event == NAMED
        assert await status(app, "/v0/x") == 200
        assert await gateway.metric('gatepass_no_descriptor_total{peer="upstream"}') == 1
        assert await gateway.metric('gatepass_upstream_connects_total{route="v0",outcome="no_descriptor"}') == 1


async def test_without_a_descriptor_an_idle_connection_to_another_vendor_makes_room(tmp_path: Path) -> None:
    async with vendors(2) as ports, Served(tmp_path, routes(ports), environ={"CANARY": CANARY}) as gateway:
        app = await connect(gateway.address)
        assert await status(app, "/v0/x") == 200
        with no_more_files(gateway):
            assert await status(app, "/v1/x") == 200
        assert await gateway.metric('gatepass_pool_idle_connections{route="v0"}') == 0


async def test_a_connection_that_cannot_be_accepted_is_logged_counted_and_served_later(tmp_path: Path) -> None:
    async with vendors(1) as ports, Served(tmp_path, routes(ports), environ={"CANARY": CANARY}) as gateway:
        with no_more_files(gateway):
            app = await connect(gateway.address)
            assert (await gateway.seen("accept_failed"))["reason"] == "EMFILE"
            await gateway.seen("files_exhausted")
        assert await status(app, "/v0/x") == 200
        assert await gateway.metric('gatepass_no_descriptor_total{peer="app"}') >= 1


async def test_a_token_request_without_a_descriptor_is_named_and_counted(tmp_path: Path) -> None:
    """The endpoint is not blamed either, and the next attempt gets the token."""
    async with vendors(1) as ports, TokenEndpoint(life=2) as endpoint:
        config = routes(ports)
        form = {"client_id": "x", "client_secret": "${CANARY}"}
        config["credentials"]["s"] = {"min_interval": 0, "grant": {"request": {"url": endpoint.url, "form": form}}}
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            app = await connect(gateway.address)
            assert await status(app, "/v0/x") == 200
            with no_more_files(gateway):
                while not gateway.events("token_fetch_failed"):
                    await status(app, "/v0/x")
            event = await gateway.seen("token_fetch_failed")
            assert event["reason"].endswith(f": {NAMED}")
            assert event["outcome"] == "unavailable"
            before = endpoint.count
            await until(lambda: endpoint.count > before)
            assert await gateway.metric('gatepass_no_descriptor_total{peer="token_endpoint"}') >= 1
            assert CANARY not in gateway.text


# ---------------------------------------------------------------------------- the same with the gateway in this process


@contextlib.contextmanager
def none_here() -> Iterator[None]:
    """Let this process open no files."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", ["directly", "through a proxy"])
async def test_without_a_descriptor_neither_the_vendor_nor_the_proxy_is_blamed(way: str) -> None:
    async with vendor(patient) as upstream:
        config = routes([upstream.port])
        if way == "through a proxy":
            config["routes"]["v0"]["upstream"] = "http://vendor.test"
            config["egress"] = {"proxy": f"http://127.0.0.1:{upstream.port}"}
        async with running(config) as it:
            app = await connect(it.address)
            await status(app, "/none")  # it is accepted
            with none_here():
                await app.send(get("/v0/x"))
                answer = await app.message()
            assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
            assert answer.one("Retry-After") == b"1"
            assert requests(it.log)[-1]["reason"] == NAMED
            assert it.metric("gatepass_no_descriptor_total", peer="upstream") == 1
            assert it.metric("gatepass_upstream_connects_total", route="v0", outcome="no_descriptor") == 1
            assert it.at_rest()
        assert upstream.connections == 0


class Exhausted(System):
    """Finds no descriptor for the first look-ups of a name."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self._failures = failures

    def __call__(self, host: str, port: int, **more: object) -> Sequence[Any]:
        found = super().__call__(host, port, **more)
        if self.asked[host] <= self._failures:
            raise OSError(errno.EMFILE, "Too many open files")
        return found


async def test_without_a_descriptor_the_longest_idle_connection_is_closed_and_the_request_is_served() -> None:
    system = Exhausted(1)
    system.addresses["vendor.test"] = ["127.0.0.1"]
    async with vendors(2) as ports:
        config = {**routes(ports), "allow_addresses": ["127.0.0.0/8"]}
        config["routes"]["v1"]["upstream"] = f"http://vendor.test:{ports[1]}"
        async with running(config, resolver=resolver_of(system)) as it:
            app = await connect(it.address)
            assert await status(app, "/v0/x") == 200
            assert await status(app, "/v1/x") == 200
            assert system.asked["vendor.test"] == 2
            assert [it.metric("gatepass_pool_idle_connections", route=name) for name in ("v0", "v1")] == [0, 1]
            assert it.metric("gatepass_no_descriptor_total", peer="upstream") == 0
            assert it.metric("gatepass_upstream_connects_total", route="v1", outcome="ok") == 1


async def test_without_a_descriptor_and_without_an_idle_connection_nothing_is_tried_again() -> None:
    system = Exhausted(2)
    config = {**routes([9]), "allow_addresses": ["127.0.0.0/8"]}
    config["routes"]["v0"]["upstream"] = "http://vendor.test:9"
    async with running(config, resolver=resolver_of(system)) as it:
        assert await status(await connect(it.address), "/v0/x") == 503
        assert system.asked["vendor.test"] == 1


def requests(log: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, log.splitlines()) if event["event"] == "request"]


@pytest.mark.parametrize(("descriptors", "told"), [(96, True), (20_000, False)])
def test_the_log_says_if_fewer_connections_fit_than_are_configured(
    descriptors: int, told: bool, tmp_path: Path
) -> None:
    config = loaded(tmp_path, yaml.safe_dump({**routes([9]), "access": "open"}), CANARY=CANARY)
    with capture_logs() as logs:
        room = VendorRoom(descriptors).divide(config, ())
    assert room == descriptors
    expected = {"event": "few_descriptors", "log_level": "warning", "connections": 10_000, "fit": 96, "pools": 0}
    assert logs == ([expected] if told else [])


# ----------------------------------------------------------------------------------------- in libraries, where it hides


def test_no_context_is_built_that_trusts_nobody_because_nothing_could_be_read() -> None:
    if not ssl.create_default_context().cert_store_stats()["x509"]:
        pytest.skip("this machine has no file of authorities")
    with none_here(), pytest.raises(OSError, match="Too many open files"):
        client_context()
    assert client_context().cert_store_stats()["x509"]


async def test_a_name_that_cannot_be_looked_up_for_lack_of_a_descriptor_says_so() -> None:
    """`getaddrinfo` says that there is no such name."""
    resolver = Resolver()
    asyncio.get_running_loop().call_soon(int)
    with none_here(), pytest.raises(OSError, match="Too many open files"):
        await resolver.look_up("vendor.example", 443)
