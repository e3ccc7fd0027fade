"""What lives long says its state in a log or a debugger, and shows no secret there."""

from __future__ import annotations

import asyncio
import re

from gateway.access import Counter, hash_key
from gateway.access.counters import Terms
from gateway.access.escrow import Escrow
from gateway.access.keysets import KeySet
from gateway.clock import SystemClock
from gateway.model import Issuer
from gateway.observe import Metrics
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.rest import until
from tests.kit.wire import Peer, connect, get, ok, vendor

KEY = f"gp_{CANARY}-web"
CLIENT = {
    "name": "web", "key_sha256": hash_key(KEY), "budgets": [{"route": "v", "per": "day", "hard": 9}],
}  # fmt: skip


async def test_every_object_of_a_request_under_way_and_at_rest_tells_its_state_and_no_secret() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await go.wait()
        await peer.send(ok())
        await peer.at_end()

    async with vendor(script) as upstream, running({**one_route(upstream.port), "clients": [CLIENT]}) as it:
        assert it.gateway._data is not None
        app = await connect(it.address)
        await app.send(get("/v/a", f"X-Gatepass-Key: {KEY}"))
        await until(lambda: upstream.open)
        (connection,) = it.gateway._data._connections
        allowance = it.snapshot.clients.allowance("web", "v")
        assert allowance is not None
        (route,) = it.routes
        (to_vendor,) = route.pool._open
        told = [repr(each) for each in (connection, allowance, *allowance.budgets, route, to_vendor)]
        assert told == [
            "<ClientConnection 127.0.0.1 answering>",
            "<Allowance web on v, 1 in flight>",
            "<Budget web on v: 0 of 9 a day>",
            f"<PreparedRoute /v -> 127.0.0.1:{upstream.port} <Pool 1 in use, 0 idle, 0 wait>>",
            "<UpstreamConnection in use, 1 exchanges>",
        ]
        go.set()
        assert (await app.message()).status == 200
        await until(it.at_rest)
        assert repr(to_vendor) == "<UpstreamConnection idle, 1 exchanges>"
        assert repr(connection) == "<ClientConnection 127.0.0.1 idle>"
        assert repr(allowance.budgets[0]) == "<Budget web on v: 1 of 9 a day>"
        app.close()
        upstream.open.pop().close()
        await until(lambda: to_vendor.transport is None)
        assert repr(to_vendor) == "<UpstreamConnection closed, 1 exchanges>"


def test_a_key_set_tells_how_many_keys_it_has() -> None:
    async def fetch(_: Issuer) -> bytes:
        raise AssertionError

    issuer = Issuer("corp", "https://login.example", ("gatepass",), jwks_url="https://login.example/keys")
    keys = KeySet(issuer, clock=SystemClock(), metrics=Metrics(), fetch=fetch)
    assert re.fullmatch(r"<KeySet corp, 0 keys, generation \d+>", repr(keys))


def test_an_escrow_tells_how_much_of_its_grant_is_used() -> None:
    escrow = Escrow(Counter(("web", "v", "2026-11-29"), 7), Terms(100, "day", 0.0, 0))
    escrow.granted = 12
    assert repr(escrow) == "<Escrow of ('web', 'v', '2026-11-29'): 7 of 12 granted>"
