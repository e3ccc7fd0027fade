"""A vendor's or an issuer's name that leads where nothing of ours goes: refused at every single connect."""

from __future__ import annotations

import json

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
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.rest import until
from tests.kit.wire import Message, answering, connect, get, ok, vendor

LOOPBACK, METADATA = "127.0.0.1", "169.254.169.254"


def names(*addresses: str, host: str = "vendor.test") -> System:
    """Return a system whose name `host` leads to these addresses."""
    system = System()
    system.addresses[host] = list(addresses)
    return system


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
    resolver = resolver_of(names(address))
    async with vendor(answering(ok())) as upstream, running(named(upstream.port), resolver=resolver) as it:
        answer = await ask(it)
        assert json.loads(answer.body)["code"] == "upstream_unreachable"
        assert answer.status == 502
        assert b"destination_ip_prohibited" in answer.one("Proxy-Status")
        assert address not in answer.body.decode()
        assert "see allow_addresses" in it.log
    assert upstream.connections == 0


async def test_a_name_that_the_configuration_allows_is_served() -> None:
    resolver = resolver_of(names(METADATA, LOOPBACK))
    async with (
        vendor(answering(ok())) as upstream,
        running(named(upstream.port, allow_addresses=["127.0.0.0/8"]), resolver=resolver) as it,
    ):
        assert (await ask(it)).status == 200


async def test_dns_rebinding_does_not_help() -> None:
    """Each connection is made to an address that was looked at for it; what the name said before counts for nothing."""
    system = names(LOOPBACK)
    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with (
        vendor(answering(close)) as upstream,
        running(named(upstream.port, allow_addresses=[f"{LOOPBACK}/32"]), resolver=resolver_of(system)) as it,
    ):
        assert (await ask(it)).status == 200
        system.addresses["vendor.test"] = ["127.0.0.2"]
        assert (await ask(it)).status == 502
        assert system.asked["vendor.test"] == 2
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
        request = TokenRequest("POST", f"http://auth.test:{endpoint.port}/token", (), b"secret=CANARY")
        sender = Sender(SystemClock(), Networks(), resolver_of(names(LOOPBACK, host="auth.test")))
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
        resolver = resolver_of(names(LOOPBACK, host="login.test"))
        with pytest.raises(aiohttp.ClientConnectorDNSError) as refusal:
            await JwksFetcher(Networks(), resolver)(issuer)
        assert isinstance(refusal.value.os_error, AddressRefused)
        assert endpoint.connections == 0
        assert await JwksFetcher(Networks(["127.0.0.0/8"]), resolver)(issuer) == b"{}"


async def test_vendors_whose_names_hang_delay_neither_another_vendor_nor_a_token_request() -> None:
    """An event loop's own resolver lets slow look-ups use two of its four threads: two such vendors stopped all."""
    system = System()
    hanging = [f"hangs-{number}.test" for number in range(8)]
    system.hanging = set(hanging)
    system.addresses = {"well.test": [LOOPBACK], "auth.test": [LOOPBACK]}
    token = ok(b'{"access_token": "CANARY-token", "expires_in": 3600}')
    async with vendor(answering(token, ok())) as upstream:
        url = f"http://auth.test:{upstream.port}/token"
        grant = {"request": {"url": url, "form": {"grant_type": "client_credentials"}}}
        routes = {name.split(".")[0]: {"credential": "key", "upstream": f"https://{name}"} for name in hanging}
        routes["v"] = {"credential": "fetched", "upstream": f"http://well.test:{upstream.port}"}
        config = {
            "credentials": {
                "key": {"static": {"token": "${CANARY}"}},
                "fetched": {"grant": grant, "keep_warm": "never"},
            },
            "routes": routes,
            "allow_addresses": ["127.0.0.0/8"],
        }
        async with running(config, resolver=resolver_of(system)) as it:
            stuck = [await connect(it.address) for _ in hanging]
            for app, name in zip(stuck, hanging, strict=True):
                await app.send(get(f"/{name.split('.')[0]}/a"))
            await until(lambda: len(system.asked) == len(hanging))
            assert (await ask(it)).status == 200
            system.free.set()
