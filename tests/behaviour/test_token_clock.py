"""What takes a gateway minutes, told by a clock that only the test moves: how often it asks, and who waits for whom.

Real sockets on both sides; while the clock stands still no time-out can come, so what happens then waits for nobody.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.clock import FakeClock
from tests.kit.endpoint import Answer, TokenEndpoint, json_answer
from tests.kit.gateway import Running, running
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.kit.endpoint import Request

UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 15\r\n\r\nsays the vendor"


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


def acme(endpoint: TokenEndpoint, **more: Any) -> dict[str, Any]:
    request = {"url": endpoint.url, "form": {"grant_type": "client_credentials", "client_secret": "${CANARY}"}}
    return {"grant": {"request": request, "response": {"expires": {"in": "expires_in"}}}, **more}


def config(port: int, **credentials: dict[str, Any]) -> dict[str, Any]:
    """One route for each credential, under its name, all to the vendor on `port`."""
    upstream = f"http://127.0.0.1:{port}"
    return {
        "credentials": credentials,
        "routes": {name: {"credential": name, "upstream": upstream} for name in credentials},
    }


class App:
    """An app that keeps its connection."""

    def __init__(self, it: Running, path: str) -> None:
        self._it, self._path = it, path
        self._peer: Peer | None = None

    async def ask(self) -> Message:
        peer = self._peer = self._peer or await connect(self._it.address)
        await peer.send(get(self._path))
        answer = await peer.message()
        if b"close" in answer.all("Connection"):
            self._peer = None
        return answer


def by_the_clock(clock: FakeClock, answer: Callable[[Request], Answer]) -> tuple[list[float], Any]:
    """Return the list that the instants of token requests go into, and what the endpoint shall answer with."""
    asked: list[float] = []

    def answering(request: Request) -> Answer:
        asked.append(clock.monotonic())
        return answer(request)

    return asked, answering


async def constantly(clock: FakeClock, app: App, seconds: float, step: float) -> list[Message]:
    """Ask again and again while `seconds` pass; the fetches that this starts get the real time they need."""
    answers = []
    for _ in range(round(seconds / step)):
        answers.append(await app.ask())
        await clock.advance(step)
    return answers


# ------------------------------------------------------------------------------------------------- how often it asks


async def test_a_refused_credential_is_asked_about_once_a_minute_whatever_apps_do(endpoint: TokenEndpoint) -> None:
    """Ten minutes of requests, one a second: as many probes as minutes, and no app waits for one."""
    clock = FakeClock()
    asked, endpoint.always = by_the_clock(clock, lambda _: json_answer({"error": "invalid_client"}, 401))
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.message()).target)

    async with vendor(script) as upstream, running(config(upstream.port, acme=acme(endpoint)), clock=clock) as it:
        await clock.until(it.gateway.tokens.warmed.is_set)
        app = App(it, "/acme/a")
        for _ in range(600):
            answer = await app.ask()
            assert (answer.status, json.loads(answer.body)["code"]) == (502, "credential_refused")
            assert 1 <= int(answer.one("Retry-After")) <= 66
            await clock.advance(1.0)
            await clock.until(lambda: not any(cache._fetch for cache in it.gateway.tokens._caches.values()))
        assert it.metric("gatepass_token_waits_total", credential="acme") == 0
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert 9 <= len(asked) <= 11
    assert all(60 - 1 <= pause <= 66 + 1 for pause in pauses), "a second is the step that this clock takes"
    assert seen == [], "without a token nothing goes to the vendor"


async def test_a_vendor_that_refuses_everything_is_asked_for_ever_fewer_tokens(endpoint: TokenEndpoint) -> None:
    """Three at the most in ten seconds of constant requests, then one for each doubling, in the end one a minute."""
    clock = FakeClock()
    asked, endpoint.always = by_the_clock(clock, lambda _: endpoint.fresh())

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(UNAUTHORIZED)

    async with vendor(script) as upstream, running(config(upstream.port, acme=acme(endpoint)), clock=clock) as it:
        await clock.until(it.gateway.tokens.warmed.is_set)
        del asked[:]
        app = App(it, "/acme/a")
        began = clock.monotonic()
        answers = await constantly(clock, app, 10, 0.02)
        first = len(asked)
        answers += await constantly(clock, app, 50, 0.2)
        minute = len(asked)
        answers += await constantly(clock, app, 540, 2.0)
        instants = [instant - began for instant in asked]
        forced = it.metric("gatepass_token_fetches_total", credential="acme", outcome="ok", cause="unauthorized")
        assert forced == len(asked)
    assert {(answer.status, answer.body) for answer in answers} == {(401, b"says the vendor")}
    assert 1 <= first <= 3, instants
    assert minute - first <= 2, instants
    assert len(asked) - minute <= 9, instants
    pauses = [later - earlier for earlier, later in pairwise(instants)]
    assert pauses == sorted(pauses) or min(pauses[-3:]) >= 60, instants


async def test_a_vendor_that_takes_each_token_once_and_then_refuses_it_is_asked_for_ever_fewer(
    endpoint: TokenEndpoint,
) -> None:
    """Four at once, as a vendor that revokes deserves, then one after 10 s, 20 s, 40 s, in the end one a minute."""
    clock = FakeClock()
    asked, endpoint.always = by_the_clock(clock, lambda _: endpoint.fresh())
    taken: set[bytes] = set()

    async def script(peer: Peer) -> None:
        while True:
            token = (await peer.message()).one("Authorization")
            await peer.send(UNAUTHORIZED if token in taken else ok())
            taken.add(token)

    async with vendor(script) as upstream, running(config(upstream.port, acme=acme(endpoint)), clock=clock) as it:
        await clock.until(it.gateway.tokens.warmed.is_set)
        del asked[:]
        app = App(it, "/acme/a")
        answers = await constantly(clock, app, 10, 0.05)
        first = len(asked)
        answers += await constantly(clock, app, 590, 1.0)
    assert {answer.status for answer in answers} == {200, 401}
    assert 4 <= first <= 5
    pauses = [later - earlier for earlier, later in pairwise(asked[3:])]
    assert pauses == sorted(pauses) or min(pauses[-3:]) >= 59, pauses
    assert len(asked) <= 4 + 4 + 10


# --------------------------------------------------------------------------------------------------- who waits for whom


@pytest.mark.parametrize("fault", ["hang", "reset", "refuse"])
async def test_requests_on_the_other_routes_wait_for_nothing_of_a_troubled_credential(
    endpoint: TokenEndpoint, fault: Any
) -> None:
    """The clock stands still, so its fifty waiters can neither be served nor give up; the others are served meanwhile.

    And as quickly as before, by the median: a neighbour on this machine does not count.
    """
    clock = FakeClock()
    seconds: dict[str, list[float]] = {"before": [], "during": []}

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(ok())

    async with TokenEndpoint() as healthy, vendor(script) as upstream:
        whole = config(upstream.port, ill=acme(endpoint, keep_warm="never"), well=acme(healthy))
        async with running(whole, clock=clock) as it:
            await clock.until(it.gateway.tokens.warmed.is_set)
            app = App(it, "/well/a")

            async def served(when: str) -> None:
                for _ in range(60):
                    began = time.perf_counter()
                    assert (await app.ask()).status == 200
                    seconds[when].append(time.perf_counter() - began)

            await served("before")
            waits = it.metric("gatepass_token_waits_total", credential="well")
            endpoint.always = Answer(fault="hang" if fault == "hang" else "reset")
            if fault == "refuse":
                await endpoint.shut()
            troubled = [await connect(it.address) for _ in range(50)]
            for peer in troubled:
                await peer.send(get("/ill/a"))
            if fault == "hang":
                await until(lambda: it.metric("gatepass_token_waiters", credential="ill") == 50)
            await served("during")
            assert it.metric("gatepass_token_waits_total", credential="well") == waits, "nobody waited for a token"
            assert it.metric("gatepass_pool_wait_seconds_count", route="well") == 0, "nobody waited for a connection"
            if fault == "hang":
                assert it.metric("gatepass_token_waiters", credential="ill") == 50, "and these wait still"
            else:
                assert {(await peer.message()).status for peer in troubled} == {503}
            assert upstream.connections == 1, "one kept connection was enough: nothing held it up"
    assert median(seconds["during"]) < 5 * median(seconds["before"]) + 0.02


# --------------------------------------------------------------------------------------------------------- going down


async def test_going_down_lets_an_app_wait_for_its_token_no_longer_than_token_timeout(endpoint: TokenEndpoint) -> None:
    """Its request is an exchange like any other, and ends with its token or its 503; the fetch is not waited for."""
    clock = FakeClock()
    endpoint.always = Answer(fault="hang")

    async def script(peer: Peer) -> None:
        raise AssertionError(await peer.message())

    async with vendor(script) as upstream:
        whole = {**config(upstream.port, acme=acme(endpoint)), "drain": {"grace": 0, "timeout": "60s"}}
        async with running(whole, clock=clock) as it:
            app = await connect(it.address)
            await app.send(get("/acme/a"))
            await until(lambda: it.metric("gatepass_token_waiters", credential="acme") == 1)
            going = asyncio.create_task(it.gateway.drain())
            await until(lambda: it.gateway._data is not None and it.gateway._data.leaving)
            await clock.advance(4.9)
            assert not going.done(), "an exchange runs"
            await clock.advance(0.2)
            answer = await app.message()
            assert (answer.status, json.loads(answer.body)["code"]) == (503, "token_unavailable")
            assert answer.one("Connection") == b"close"
            app.close()
            await asyncio.wait_for(going, 30)
            assert endpoint.count == 1
            assert '"event":"token_fetch_failed"' not in it.log, "the fetch was cut off, its time-out never came"
