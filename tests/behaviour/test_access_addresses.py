"""A vendor's or an issuer's name that leads where nothing of ours goes: refused at every single connect."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.access.keysets import JwksFetcher
from gateway.addresses import AddressRefused, Networks
from gateway.clock import SystemClock
from gateway.errors import TokenUnavailable
from gateway.model import Issuer
from gateway.tokens.grant import TokenRequest
from gateway.tokens.sender import Sender
from tests.kit.gateway import Running, one_route, running
from tests.kit.wire import Message, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK, METADATA = "127.0.0.1", "169.254.169.254"


class Names:
    """A resolver that gives each asker the next answer, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, _host: str, port: int) -> Sequence[Any]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


async def ask(it: Running) -> Message:
    app = await connect(it.address)
    await app.send(get("/v/a"))
    return await app.message()


def named(port: int, **more: object) -> dict[str, object]:
    whole = one_route(port)
    whole["routes"]["v"]["upstream"] = f"http://vendor.test:{port}"
    return {**whole, **more}


@pytest.mark.parametrize("address", [LOOPBACK, METADATA, "0.0.0.0"])
async def test_an_upstream_that_resolves_to_an_address_nobody_named_is_not_connected_to(address: str) -> None:
    async with vendor(answering(ok())) as upstream, running(named(upstream.port)) as it:
        it.routes[0].pool.connector.look_up = Names([address])
        answer = await ask(it)
        assert json.loads(answer.body)["code"] == "upstream_unreachable"
        assert answer.status == 502
        assert b"destination_ip_prohibited" in answer.one("Proxy-Status")
        assert address not in answer.body.decode()
        assert "see allow_addresses" in it.log
    assert upstream.connections == 0


async def test_a_name_that_the_configuration_allows_is_served() -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(named(upstream.port, allow_addresses=["127.0.0.0/8"])) as it,
    ):
        it.routes[0].pool.connector.look_up = Names([METADATA, LOOPBACK])
        assert (await ask(it)).status == 200


async def test_dns_rebinding_does_not_help() -> None:
    """Each connection is made to an address that was looked at for it; what the name said before counts for nothing."""
    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with (
        vendor(answering(close)) as upstream,
        running(named(upstream.port, allow_addresses=[f"{LOOPBACK}/32"])) as it,
    ):
        names = it.routes[0].pool.connector.look_up = Names([LOOPBACK], ["127.0.0.2"])
        assert (await ask(it)).status == 200
        assert (await ask(it)).status == 502
        assert names.asked == 2
    assert upstream.connections == 1


async def test_a_literal_address_and_localhost_are_named_by_being_written() -> None:
    for host in (LOOPBACK, "localhost"):
        async with vendor(answering(ok())) as upstream:
            whole = one_route(upstream.port)
            whole["routes"]["v"]["upstream"] = f"http://{host}:{upstream.port}"
            async with running(whole) as it:
                assert (await ask(it)).status == 200


async def test_a_token_endpoint_that_resolves_there_gets_no_secret() -> None:
    async with vendor(answering(ok())) as endpoint:
        request = TokenRequest("POST", f"http://auth.test:{endpoint.port}/token", {}, b"secret=CANARY")
        sender = Sender(SystemClock(), Networks(), Names([LOOPBACK]))
        with pytest.raises(TokenUnavailable) as refusal:
            await sender.send(request, tls=None, within=60)
        assert "a loopback address" in refusal.value.reason
        assert endpoint.connections == 0
        sender.allow(Networks(["127.0.0.0/8"]))
        assert (await sender.send(request, tls=None, within=60)).status == 200
        await sender.close()


async def test_an_issuer_s_keys_are_not_fetched_from_there() -> None:
    async with vendor(answering(ok())) as endpoint:
        issuer = Issuer("corp", "x", ("gatepass",), jwks_url=f"http://login.test:{endpoint.port}/keys")
        with pytest.raises(aiohttp.ClientConnectorDNSError) as refusal:
            await JwksFetcher(Networks(), Names([LOOPBACK]))(issuer)
        assert isinstance(refusal.value.os_error, AddressRefused)
        assert endpoint.connections == 0
        assert await JwksFetcher(Networks(["127.0.0.0/8"]), Names([LOOPBACK]))(issuer) == b"{}"
