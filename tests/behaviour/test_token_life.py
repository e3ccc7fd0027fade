"""A token's life that no app notices: the whole gateway in front of the emulated vendors, under load."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from gateway.tokens import TokenCache
from tests.kit.emulation import Load, ask, emulated, warm
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import one_route, running
from tests.kit.metrics import families
from tests.kit.rest import until
from tests.kit.stall import unless_stalled
from tests.kit.wire import connect, get, ok, post, vendor

if TYPE_CHECKING:
    from tests.kit.gateway import Running
    from tests.kit.wire import Peer

VENDORS = ["hypersign", "akiba", "uqudo", "idfy"]
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def failed_fetches(it: Running) -> float:
    """Fetches of idfy's token that failed: counted by the gateway, for a closed port counts nobody."""
    (fetches,) = [each for each in families(it.gateway.metrics) if each.name == "gatepass_token_fetches"]
    mine = [sample for sample in fetches.samples if sample.labels.get("credential") == "idfy"]
    return sum(sample.value for sample in mine if sample.labels["outcome"] == "unavailable")


async def test_a_thousand_first_requests_make_one_token_request() -> None:
    """And the app that came first, and for whom the fetch was started, goes away meanwhile."""
    pool = {"pool": {"size": 250, "wait": "60s"}}  # all of them go up at once when the token is there
    async with emulated(routes={"uqudo": pool}, uqudo={"keep_warm": "never"}) as (it, sandbox):
        await sandbox.uqudo.set(latency=0.5)
        apps = [await connect(it.address) for _ in range(1000)]
        await apps[0].send(get("/uqudo/sandbox/status/200"))
        await until(lambda: sandbox.uqudo.counters.token_requests)
        await asyncio.gather(*(app.send(get("/uqudo/sandbox/status/200")) for app in apps[1:]))
        apps[0].reset()
        statuses = Counter([(await app.message()).status for app in apps[1:]])
        assert statuses == {200: 999}
        assert sandbox.uqudo.counters.token_requests == 1


async def _steady(life: float, lives: int) -> None:
    """Four routes under load while every token runs out `lives` times; two endpoints take a quarter of a life."""
    async with emulated() as (it, sandbox):
        for index, vendor in enumerate(sandbox.vendors.values()):
            await vendor.set(life=life, latency=life * (0.25 if index % 2 else 0.4 / 3))
        for vendor in sandbox.vendors.values():
            vendor.revoke()
        await warm(it)
        await it.clock.sleep(life / 2)
        for name in VENDORS:  # the tokens of the start are gone: from here on only short ones
            await ask(it, name)
        waits = {name: it.metric("gatepass_token_waits_total", credential=name) for name in VENDORS}
        for vendor in sandbox.vendors.values():
            vendor.reset_counters()
        async with Load(it, VENDORS) as load:
            await it.clock.sleep(life * lives)
        assert load.failures == 0
        assert min(seen[200] for seen in load.statuses.values()) > lives, "each token was in use"
        for name, vendor in sandbox.vendors.items():
            assert vendor.counters.api_401s == 0
            assert it.metric("gatepass_token_waits_total", credential=name) == waits[name]
            assert lives <= vendor.counters.token_requests <= 2 * lives + 1


@pytest.mark.slow
async def test_ten_lives_under_load_are_not_noticed() -> None:
    """Lives of a second: no failure, no vendor 401, nobody waits, at most two token requests a life."""
    await _steady(1.0, 10)


@pytest.mark.long
async def test_ten_lives_of_three_seconds_are_not_noticed() -> None:
    """The same with lives of 3 s and endpoints that take 400 ms and 750 ms."""
    await _steady(3.0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("latency", [0.0, 0.03, 0.1])
async def test_an_endpoint_that_hands_out_one_token_until_it_dies_costs_no_app_a_failure(latency: float) -> None:
    """At each change somebody may wait; nobody is refused, and the endpoint is not stormed."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await sandbox.idfy.set(same_token=True, life=1.3, latency=latency)
        sandbox.idfy.revoke()
        await ask(it, "idfy")
        sandbox.idfy.reset_counters()
        async with Load(it, ["idfy"], apps=4) as load:
            await it.clock.sleep(4.5)
        assert load.failures == 0, load.statuses
        assert load.slowest["idfy"] < 1
        assert sandbox.idfy.counters.tokens_issued >= 2
        assert sandbox.idfy.counters.token_requests <= 4 * (sandbox.idfy.counters.tokens_issued + 1)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["refuse", "reset", "500", "503", "hang"])
async def test_a_dead_endpoint_is_felt_only_after_the_tokens_end_and_then_briefly(fault: str) -> None:
    """Then each request is refused at once, and served again soon after the endpoint is back.

    At once: it waits for nothing, and takes less than 50 ms by the median of thirty.
    """
    async with emulated() as (it, sandbox):
        vendor = sandbox.idfy
        await warm(it)
        # Apps wait for a fetch up to `token_timeout`: one that hangs must have lasted as long while the token lives.
        life = 5.0 if fault == "hang" else 1.5
        for cache in it.gateway.tokens._caches.values():
            cache.token_timeout = 2.0
        await vendor.set(life=life)
        vendor.revoke()
        assert (await ask(it, vendor))[0] == 200
        issued = it.clock.monotonic()
        await vendor.set(token_fault=fault)
        attempts = failed_fetches(it)
        async with Load(it, ["idfy"]) as load:
            await it.clock.sleep(issued + life - 0.15 - it.clock.monotonic())
        assert load.failures == 0
        await it.clock.sleep(issued + life + 0.1 - it.clock.monotonic())
        waits = it.metric("gatepass_token_waits_total", credential="idfy")
        took = []
        for _ in range(30):
            status, seconds, fields = await ask(it, vendor)
            took.append(seconds)
            assert status == 503
            assert int(fields[b"retry-after"]) >= 1
            assert b'next-hop="token-endpoint:idfy"' in fields[b"proxy-status"]
            await it.clock.sleep(0.02)
        assert median(took) < 0.05
        assert max(took) < 1
        assert it.metric("gatepass_token_waits_total", credential="idfy") == waits, "nobody waited for a token"
        assert 1 <= failed_fetches(it) - attempts <= 10
        await vendor.set(token_fault="none")
        back = it.clock.monotonic()
        while (await ask(it, vendor))[0] != 200:
            assert it.clock.monotonic() - back < 3
            await it.clock.sleep(0.02)


async def test_an_endpoint_that_becomes_slower_than_its_learned_time_out_refuses_no_app() -> None:
    """A revocation makes apps wait for it; each answer comes after the two seconds that a fetch has at the least."""
    async with emulated() as (it, sandbox):
        await warm(it)
        assert (await ask(it, "idfy"))[0] == 200
        await sandbox.idfy.set(latency=2.4)
        sandbox.idfy.revoke()
        async with Load(it, ["idfy"], apps=4) as load:
            await it.clock.sleep(3.2)
        assert load.failures == 0, load.statuses
        assert load.statuses["idfy"][200] > 4


@unless_stalled
async def test_who_waits_for_a_slow_first_fetch_is_refused_at_its_own_deadline_and_the_fetch_goes_on() -> None:
    """`token_timeout` bounds the wait of a request, not the token request."""
    async with emulated(uqudo={"keep_warm": "never"}) as (it, sandbox):
        cache = it.gateway.tokens._tokens["uqudo"]
        assert isinstance(cache, TokenCache)
        it.gateway.tokens._caches[next(iter(cache.recipe.keys)),].token_timeout = 0.3
        await sandbox.uqudo.set(latency=0.8)
        status, seconds, _ = await ask(it, "uqudo")
        assert status == 503
        assert 0.25 < seconds < 0.7
        assert (await ask(it, "uqudo"))[1] < 0.05
        await until(lambda: sandbox.uqudo.counters.tokens_issued)
        await until(lambda: it.gateway.tokens.tokens("uqudo").current())
        assert (await ask(it, "uqudo"))[0] == 200
        assert sandbox.uqudo.counters.token_requests == 1


@pytest.mark.parametrize("fault", ["invalid_client_400", "invalid_client_401", "invalid_client_403"])
async def test_a_refused_credential_is_permanent_and_asked_about_once_a_minute(fault: str) -> None:
    """502 `credential_refused`, and no vendor has a reason to ban our address."""
    async with emulated(akiba={"keep_warm": "never"}) as (it, sandbox):
        await sandbox.akiba.set(token_fault=fault)
        for _ in range(50):
            status, _, fields = await ask(it, "akiba")
            assert status == 502
            assert b'details="credential_refused"' in fields[b"proxy-status"]
        assert sandbox.akiba.counters.token_requests == 1
        (akiba,) = [status for status in it.gateway.tokens.status() if status.name == "akiba"]
        assert akiba.state == "refused"
        assert akiba.next_attempt_in is not None
        assert 50 < akiba.next_attempt_in < 95


UNUSABLE = [
    "html", "empty", "truncated", "not_json", "json_list", "oversized", "error_in_200", "no_token", "empty_token",
    "number_token", "list_token", "crlf_token", "non_ascii_token", "mac",
]  # fmt: skip


@pytest.mark.parametrize("fault", UNUSABLE)
async def test_nothing_of_an_unusable_answer_reaches_vendor_log_or_app(fault: str) -> None:
    """502 `token_malformed`; the API is never called."""
    async with emulated(uqudo={"keep_warm": "never"}) as (it, sandbox):
        await sandbox.uqudo.set(token_fault=fault)
        app = await connect(it.address)
        await app.send(get("/uqudo/sandbox/echo"))
        answer = await app.message()
        assert answer.status == 502
        assert b'"code":"token_malformed"' in answer.body
        assert sandbox.uqudo.counters.api_requests == 0
        said = it.log + answer.body.decode()
        for token in sandbox.uqudo.ledger.all():
            assert token.value.reveal() not in said
        for trace in ("Maintenance", "<html", "X-Injected", "temporarily_unavailable_"):
            assert trace not in said


async def test_a_redirect_of_a_token_endpoint_is_not_followed() -> None:
    """No secret leaves for another address."""
    async with emulated(uqudo={"keep_warm": "never"}) as (it, sandbox):
        await sandbox.uqudo.set(token_fault="redirect")
        assert (await ask(it, "uqudo"))[0] in {502, 503}
        assert sandbox.uqudo.counters.redirects_followed == 0


async def test_two_hundred_requests_in_flight_survive_a_revocation_with_one_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is sent again once, with the one new token."""
    async with emulated(routes={"uqudo": {"pool": {"size": 250}}}) as (it, sandbox):
        await warm(it)
        await ask(it, "uqudo")
        sandbox.uqudo.reset_counters()
        go, served = asyncio.Event(), sandbox.uqudo._served

        async def held(*request: Any) -> Any:
            await go.wait()
            return await served(*request)

        monkeypatch.setattr(sandbox.uqudo, "_served", held)
        apps = [await connect(it.address) for _ in range(200)]
        for app in apps:
            await app.send(post("/uqudo/sandbox/sink", b"x" * 2000))
        await until(lambda: sandbox.uqudo.counters.api_requests == 200)
        sandbox.uqudo.revoke()
        go.set()
        assert Counter([(await app.message()).status for app in apps]) == {200: 200}
        assert sandbox.uqudo.counters.token_requests == 1
        assert sandbox.uqudo.counters.api_requests == 400
        assert it.metric("gatepass_replays_total", route="uqudo", outcome="sent") == 200


@pytest.mark.slow
async def test_where_a_new_token_kills_the_old_nobody_notices_and_nothing_is_fetched_for_it() -> None:
    """Requests in flight with the old token meet its death and go again with the new one that is there already."""
    async with emulated(idfy={"single_active_token": True}) as (it, sandbox):
        await warm(it)
        await sandbox.idfy.set(single_active=True, life=2.0, api_latency=0.1)
        sandbox.idfy.revoke()
        assert (await ask(it, "idfy"))[0] == 200
        sandbox.idfy.reset_counters()
        forced = {"credential": "idfy", "cause": "unauthorized", "outcome": "ok"}
        before = it.metric("gatepass_token_fetches_total", **forced)
        assert before == 1, "for the revocation; from here on there is none"
        async with Load(it, ["idfy"], apps=10, pause=0) as load:
            await it.clock.sleep(5)
        assert load.failures == 0, load.statuses
        assert it.metric("gatepass_token_fetches_total", **forced) == before
        assert sandbox.idfy.counters.api_401s > 0, "some were caught by the change"
        assert 2 <= sandbox.idfy.counters.token_requests <= 4


async def test_the_same_route_revoked_three_times_in_two_seconds_is_not_noticed() -> None:
    """Three fetches, no 401 at an app."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await ask(it, "idfy")
        sandbox.idfy.reset_counters()
        async with Load(it, ["idfy"], apps=4) as load:
            for turn in range(3):
                await it.clock.sleep(0.4)
                sandbox.idfy.revoke()
                await until(lambda: sandbox.idfy.counters.tokens_issued > turn)  # noqa: B023 - it ends before the next turn
                good = load.total
                # With the new one, whatever was in flight.
                await until(lambda: load.total > good + 4)  # noqa: B023 - it ends before the next turn
        assert load.failures == 0, load.statuses
        assert sandbox.idfy.counters.token_requests == 3


async def test_a_vendor_that_says_401_to_everything_costs_its_token_endpoint_little() -> None:
    """And its own body reaches the app."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await sandbox.uqudo.set(api_fault="401")
        sandbox.uqudo.reset_counters()
        async with Load(it, ["uqudo"], apps=10, pause=0) as load:
            await it.clock.sleep(2)
        assert set(load.statuses["uqudo"]) == {401}
        assert sandbox.uqudo.counters.token_requests <= 2
        app = await connect(it.address)
        await app.send(get("/uqudo/sandbox/echo"))
        assert b"invalid_token" in (await app.message()).body
        assert (await ask(it, "idfy"))[0] == 200


async def test_an_upload_beyond_the_replay_buffer_gets_the_vendors_401_and_the_next_request_is_fine() -> None:
    """The token is gone from the cache although this request could not be saved."""
    async with emulated(routes={"uqudo": {"replay": {"up_to": "64KiB"}}}) as (it, sandbox):
        await warm(it)
        await ask(it, "uqudo")
        await sandbox.uqudo.set(api_latency=0.2)
        sandbox.uqudo.revoke()
        app = await connect(it.address)
        await app.send(post("/uqudo/sandbox/sink", b"x" * 200_000))
        assert (await app.message()).status == 401
        assert (await ask(it, "uqudo"))[0] == 200


async def test_an_upload_whose_token_is_refused_before_its_end_goes_on_in_the_second_request() -> None:
    """The vendor refuses the token after the first half; the app sends the second half afterwards."""
    bodies: list[bytes] = []
    refuses = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        bodies.append(b"")
        number = len(bodies) - 1
        while len(bodies[number]) < 10 and (number or len(bodies[number]) < 5):
            bodies[number] += await peer.reader.read(10)
        await refuses.wait()
        await peer.send(ok(head.one("Authorization")) if number else UNAUTHORIZED)
        assert number or await peer.at_end()

    async with TokenEndpoint() as endpoint, vendor(script) as upstream:
        config = one_route(upstream.port)
        form = {"grant_type": "client_credentials", "client_secret": "${CANARY}"}
        grant = {"request": {"url": endpoint.url, "form": form}, "response": {"expires": {"in": "expires_in"}}}
        config["credentials"] = {"key": {"grant": grant, "min_interval": 0}}
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", "Content-Length: 10", method="POST") + b"first")
            await until(lambda: bodies)
            [first] = it.routes[0].pool._open
            refuses.set()
            await until(lambda: len(bodies) == 2 and bodies[1] == b"first")
            assert first.on_writable is None, "the task of the first request has ended"
            await app.send(b" last")
            got = await app.message()
            assert (got.status, got.body) == (200, f"Bearer {endpoint.issued[1]}".encode())
    assert bodies == [b"first", b"first last"]


async def test_a_403_fetches_nothing() -> None:
    """It says that we may not, not that the token is old."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await sandbox.idfy.set(api_fault="403")
        sandbox.idfy.reset_counters()
        for _ in range(5):
            assert (await ask(it, "idfy"))[0] == 403
        assert sandbox.idfy.counters.token_requests == 0


@pytest.mark.parametrize(
    "where", ["token endpoint hangs", "token endpoint refuses", "token endpoint resets", "API hangs", "API resets"]
)
async def test_one_vendors_trouble_is_not_the_others(where: str) -> None:
    """No failure and no wait on the other three routes."""
    async with emulated() as (it, sandbox):
        await warm(it)
        port, _, fault = where.rpartition(" ")
        kind = {"hangs": "hang", "refuses": "refuse", "resets": "reset"}[fault]
        await sandbox.idfy.set(**({"api_fault": kind} if port == "API" else {"token_fault": kind}))
        sandbox.idfy.revoke()
        waits = {name: it.metric("gatepass_token_waits_total", credential=name) for name in VENDORS[:3]}
        troubled = [asyncio.create_task(ask(it, "idfy")) for _ in range(50)]
        async with Load(it, VENDORS[:3], apps=3) as load:
            await it.clock.sleep(1)
            await until(lambda: load.total > 100)
        assert load.failures == 0
        for name, before in waits.items():
            assert it.metric("gatepass_token_waits_total", credential=name) == before
            assert it.metric("gatepass_pool_wait_seconds_count", route=name) == 0
        for task in troubled:
            task.cancel()
        await asyncio.gather(*troubled, return_exceptions=True)


async def test_going_down_waits_for_no_fetch() -> None:
    """A token endpoint that hangs does not hold up the end."""
    async with emulated() as (it, sandbox):
        await warm(it)
        await sandbox.idfy.set(token_fault="hang")
        sandbox.idfy.revoke()
        asked = sandbox.idfy.counters.token_requests
        asking = asyncio.create_task(ask(it, "idfy"))
        await until(lambda: sandbox.idfy.counters.token_requests > asked)
        started = it.clock.monotonic()
        await it.gateway.stop()
        assert it.clock.monotonic() - started < 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_tokens_are_given_back_at_the_end_after_the_last_request_that_used_them() -> None:
    """`revoke_on_shutdown`, in the vendor's own form; the other vendors' tokens run out by themselves."""
    async with emulated(routes={"akiba": {"timeouts": {"first_byte": "10s"}}}, akiba={"revoke_on_shutdown": True}) as (
        it,
        sandbox,
    ):
        await warm(it)
        await ask(it, "akiba")
        (token,) = sandbox.akiba.ledger.live()
        await sandbox.akiba.set(api_latency=0.4)
        calls = sandbox.akiba.counters.api_requests
        app = await connect(it.address)
        await app.send(get("/akiba/sandbox/status/200"))
        while sandbox.akiba.counters.api_requests == calls:  # noqa: ASYNC110 - the sandbox has no event for it
            await asyncio.sleep(0.01)
        going = asyncio.create_task(it.gateway.drain())
        assert (await app.message()).status == 200, "what runs ends with a token that lives"
        app.close()
        await going
        assert token.revoked
        assert sandbox.akiba.ledger.live() == []
        assert sandbox.akiba.counters.api_401s == 0
        assert len(sandbox.uqudo.ledger.live()) == 1
        events = [json.loads(line) for line in it.log.splitlines()]
        told = [event for event in events if event["event"] == "token_revoked"]
        assert [(event["credential"], event["outcome"]) for event in told] == [("akiba", "HTTP 200")]
        assert token.value.reveal() not in it.log
