"""A WebSocket counts as a call, and ends when its request would be refused, when it is too old, or when it is idle."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.behaviour.test_access import BATCH, KEY, client, config, events, eventually
from tests.behaviour.test_serve_tls import loaded
from tests.kit.gateway import running
from tests.kit.wire import connect, vendor
from tests.wire.test_upgrades import HANDSHAKE, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.kit.gateway import Running
    from tests.kit.wire import Peer

WITH_KEY = HANDSHAKE[:-2] + f"{KEY}\r\n\r\n".encode()
BUDGETS = [{"route": "v", "per": "day", "hard": 5}]


@asynccontextmanager
async def tunnelled(it: Running) -> AsyncIterator[Peer]:
    """An app whose WebSocket is open, and carries bytes."""
    app = await connect(it.address)
    await app.send(WITH_KEY)
    assert (await app.head()).status == 101
    await app.send(b"hello")
    assert await app.reader.readexactly(5) == b"hello"
    yield app
    app.close()


async def goes_on(app: Peer) -> bool:
    """Whether bytes still come back for longer than the gateway takes to look."""
    try:
        for _ in range(4):
            await app.send(b"still")
            await app.reader.readexactly(5)
            await asyncio.sleep(0.3)
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    return True


@pytest.mark.parametrize("ends", ["the app closes", "the app resets"])
async def test_a_websocket_counts_for_the_budgets_of_its_client(ends: str) -> None:
    async with (
        vendor(echo) as upstream,
        running(config(upstream.port, client(budgets=BUDGETS), limits={"header_timeout": "1s"})) as it,
    ):
        async with tunnelled(it) as app:
            app.close() if ends == "the app closes" else app.reset()
        await eventually(it.at_rest)
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 1


async def test_the_bytes_of_both_directions_are_logged_and_counted() -> None:
    """Those that came with the handshake, too."""
    async with vendor(echo) as upstream, running(config(upstream.port, client())) as it:
        app = await connect(it.address)
        await app.send(WITH_KEY + b"early")
        assert (await app.head()).status == 101
        await app.send(b" and more")
        assert await app.reader.readexactly(14) == b"early and more"
        app.close()
        await eventually(it.at_rest)
        (event,) = events(it, "request")
        assert (event["status"], event["bytes_in"], event["bytes_out"]) == (101, 14, 14)
        for name in ("request", "response"):
            assert it.metric(f"gatepass_{name}_bytes_total", route="v") == 14


def route_of(**more: Any) -> dict[str, Any]:
    """Return what changes the route `v`."""
    return {"route": more}


REMOVED: dict[str, dict[str, Any]] = {
    "the client": {"clients": [client("batch", BATCH)]},
    "the key": {"clients": [client(key=BATCH)]},
    "the client's right to the route": {"clients": [client(routes=["other"])]},
    "the client's right to the path": {"clients": [client(deny=["/v/ws"])]},
    "the client's address": {"clients": [client(addresses=["10.0.0.0/8"])]},
    "a key that belongs to another now": {"clients": [client(key=BATCH), client("other")]},
    "websockets on the route": {"route": {"websocket": False}},
    "the path on the route": {"route": {"deny": ["/ws"]}},
    "the prefix": {"route": {"prefix": "/elsewhere"}},
    "the route's vendor": {"route": {"upstream": "http://127.0.0.1:9"}},
}


def changed(port: int, change: dict[str, Any]) -> dict[str, Any]:
    other = {"other": {"credential": "key", "upstream": f"http://127.0.0.1:{port}"}}
    text = config(port, *change.get("clients", [client()]), route=change.get("route"))
    return {**text, "routes": {**text["routes"], **other}, "limits": {"header_timeout": "1s"}}


@pytest.mark.parametrize("what", REMOVED)
async def test_a_tunnel_ends_when_a_reload_removes_what_allowed_it(what: str, tmp_path: Path) -> None:
    async with vendor(echo) as upstream, running(changed(upstream.port, {})) as it, tunnelled(it) as app:
        await it.gateway.reload(loaded(tmp_path, changed(upstream.port, REMOVED[what])))
        assert not await goes_on(app)
        await eventually(it.at_rest)
        await eventually(lambda: events(it, "request"))
        (event,) = events(it, "request")
        assert (event["status"], bool(event["reason"])) == (101, True)


KEPT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another client": {"clients": [client(), client("batch", BATCH)]},
    "another key beside it": {
        "clients": [{"name": "web", "keys_sha256": [client(key=BATCH)["key_sha256"], client()["key_sha256"]]}]
    },
    "a limit": {"clients": [client(budgets=BUDGETS)]},
    "the route's time-outs": {"route": {"timeouts": {"idle": "50s"}}},
}


@pytest.mark.parametrize("what", KEPT)
async def test_a_tunnel_goes_on_through_a_reload_that_leaves_it_allowed(what: str, tmp_path: Path) -> None:
    async with vendor(echo) as upstream, running(changed(upstream.port, {})) as it, tunnelled(it) as app:
        await it.gateway.reload(loaded(tmp_path, changed(upstream.port, KEPT[what])))
        assert await goes_on(app)


async def test_a_tunnel_ends_when_its_key_expires() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    key = {"sha256": client()["key_sha256"], "expires": soon.isoformat()}
    short = {"name": "web", "keys": [key]}
    async with (
        vendor(echo) as upstream,
        running({**config(upstream.port, short), "limits": {"header_timeout": "1s"}}) as it,
        tunnelled(it) as app,
    ):
        while datetime.now(UTC) < soon:
            await app.send(b"until")
            await app.reader.readexactly(5)
        assert not await goes_on(app)


async def test_total_bounds_the_life_of_a_tunnel_however_much_it_carries() -> None:
    route = {"timeouts": {"total": "500ms"}}
    async with (
        vendor(echo) as upstream,
        running(config(upstream.port, route=route)) as it,
        tunnelled(it) as app,
    ):
        assert not await goes_on(app)
        await eventually(lambda: events(it, "request"))
        assert events(it, "request")[0]["reason"] == "total time-out"
