"""A request that comes back to its route ends at once; two gateways in a chain do not disturb each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.access import hash_key
from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.kit.gateway import Running

KEY = "gp_CANARY_client"


class Switch:
    """A port that leads to a gateway which is started later, as a load balancer's does."""

    def __init__(self) -> None:
        self.port = 0
        self.targets: list[tuple[str, int]] = []
        self.change: Callable[[bytes], bytes] = bytes
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand one request to the next target and its answer back."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            host, port = self.targets[self.requests % len(self.targets)]
            there, thither = await asyncio.open_connection(host, port)
            thither.write(self.change(head).replace(b"\r\nHost:", b"\r\nConnection: close\r\nHost:", 1))
            writer.write(await there.read())
            thither.close()
        writer.close()


@asynccontextmanager
async def switch() -> AsyncIterator[Switch]:
    it = Switch()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


def looping(port: int, **route: object) -> dict[str, object]:
    return one_route(port, upstream=f"http://127.0.0.1:{port}/v", **route)


async def ask(it: Running, *fields: str) -> Message:
    app = await connect(it.address)
    await app.send(get("/v/a", *fields))
    got = await app.message()
    app.close()
    return got


def is_loop(got: Message) -> bool:
    return got.status == 508 and json.loads(got.body)["code"] == "loop_detected"


@pytest.mark.parametrize("fields", [[], ["Via: 1.1 edge"], ["Connection: via", "Via: 1.1 edge"]])
async def test_an_upstream_that_is_the_gateway_itself_is_found_in_the_second_round(fields: list[str]) -> None:
    async with switch() as back, running(looping(back.port)) as it:
        back.targets = [it.address]
        assert is_loop(await ask(it, *fields))
        assert back.requests == 1
        assert it.at_rest()


async def test_a_loop_is_found_before_the_caller_is_known_because_the_first_round_took_its_key() -> None:
    async with switch() as back:
        client = {"name": "web", "key_sha256": hash_key(KEY)}
        async with running({**looping(back.port), "clients": [client]}) as it:
            back.targets = [it.address]
            assert is_loop(await ask(it, f"X-Gatepass-Key: {KEY}"))
            assert back.requests == 1


async def test_a_loop_over_two_instances_of_one_configuration_is_found_by_the_other_one() -> None:
    async with switch() as balancer:
        config = looping(balancer.port)
        async with running(config) as one, running(config) as other:
            balancer.targets = [one.address, other.address]
            assert is_loop(await ask(one))
            assert is_loop(await ask(other))
            assert balancer.requests == 2


async def test_a_loop_over_two_gateways_with_other_configurations_is_found_when_it_is_closed() -> None:
    async with (
        switch() as to_first,
        switch() as to_second,
        running(looping(to_second.port)) as first,
        running(looping(to_first.port)) as second,
    ):
        to_first.targets, to_second.targets = [first.address], [second.address]
        assert is_loop(await ask(first))
        assert (to_second.requests, to_first.requests) == (1, 1)


async def test_a_proxy_on_the_way_that_joins_via_fields_hides_no_loop() -> None:
    def joined(head: bytes) -> bytes:
        return head.replace(b"\r\nVia: 1.1 gatepass-", b"\r\nvia: 1.0 a, 1.1 b (c)\r\nVIA: 1.1 x , HTTP/1.1 gatepass-")

    async with switch() as back, running(looping(back.port)) as it:
        back.targets, back.change = [it.address], joined
        assert is_loop(await ask(it))


async def test_two_gateways_in_a_chain_on_purpose_serve() -> None:
    """The one of a team and the one of the company: both are gateways, and each has a name of its own."""
    seen: list[Message] = []
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running(one_route(upstream.port)) as company,
        running(looping(company.address[1])) as team,
    ):
        got = await ask(team, "Via: 1.1 gatepass", "Via: 1.1 gatepass-000000000000")
    assert got.status == 200
    names = [via.removeprefix(b"1.1 ") for via in seen[0].all("Via")]
    assert len(names) == 4
    assert len(set(names)) == 4
    assert all(name.startswith(b"gatepass") for name in names)


async def test_a_service_behind_one_route_may_call_another_route_and_pass_via_on() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, switch() as service:
        config = one_route(upstream.port)
        config["routes"]["service"] = {"credential": "key", "upstream": f"http://127.0.0.1:{service.port}/v"}
        async with running(config) as it:
            service.targets = [it.address]
            app = await connect(it.address)
            await app.send(get("/service/a"))
            assert (await app.message()).status == 200
    assert len(seen[0].all("Via")) == 2
