"""Who may call, what, and how much, on real sockets: what the app hears, what the vendor sees, what is written down."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from gateway.access import hash_key
from gateway.proxy.exchange import UNKNOWN_AFTER
from tests.kit.gateway import Running, one_route, running
from tests.kit.wire import PATIENCE, Message, Peer, answering, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.wire import Script

WEB, BATCH = "gp_CANARY-5f1d2c-do-not-print-web", "gp_CANARY-5f1d2c-do-not-print-batch"
KEY = f"X-Gatepass-Key: {WEB}"


def client(name: str = "web", key: str = WEB, **more: Any) -> dict[str, Any]:
    return {"name": name, "key_sha256": hash_key(key), **more}


def config(port: int, *clients: dict[str, Any], route: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**one_route(port, **(route or {})), "clients": list(clients) or [client()], **more}


async def ask(it: Running, *fields: str, path: str = "/v/a", method: str = "GET") -> Message:
    app = await connect(it.address)
    await app.send(get(path, *fields, method=method))
    answer = await app.message(is_head=method == "HEAD")
    app.close()
    return answer


def problem(answer: Message) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


def events(it: Running, name: str) -> list[dict[str, Any]]:
    return [event for line in it.log.splitlines() if (event := json.loads(line))["event"] == name]


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - it is for the other side of a socket to come true
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------------------------------------------------- who it is

WRONG = {
    "nothing": [],
    "unknown": ["X-Gatepass-Key: gp_CANARY-5f1d2c-do-not-print"],
    "malformed": ["X-Gatepass-Key: \xff\xfe"],
    "repeated": [KEY, KEY],
    "empty beside a good bearer": ["X-Gatepass-Key:", f"Authorization: Bearer {WEB}"],
    "two bearers": [f"Authorization: Bearer {WEB}", f"Authorization: Bearer {WEB}"],
    "Basic": ["Authorization: Basic d2ViOng="],
    "a JWT": [f"Authorization: Bearer e30.{'e30' * 300}.x"],
}


async def test_all_who_are_not_known_hear_the_same_in_the_same_time_and_nothing_reaches_the_vendor() -> None:
    seen: list[Message] = []
    heard, seconds = set(), []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(config(upstream.port)) as it:
        for fields in WRONG.values():
            began = time.monotonic()
            answer = await ask(it, "X-Request-Id: r", *fields)
            seconds.append(time.monotonic() - began)
            names = tuple(sorted(name for name, _ in answer.headers if name != b"Date"))
            heard.add((answer.status, answer.one("WWW-Authenticate"), answer.body, names))
        assert (await ask(it, KEY)).status == 200
        reasons = [event["reason"] for event in events(it, "request") if event["code"] == "client_unknown"]
    assert [status for status, *_ in heard] == [401]
    # One challenge (RFC 9110 §11.6.1) in the scheme that apps may use, and without `error` (RFC 6750 §3.1): that
    # attribute would tell a token that is wrong from none at all.
    assert [challenge for _, challenge, *_ in heard] == [b'Bearer realm="gatepass"']
    assert min(seconds) >= UNKNOWN_AFTER - 0.001, "a timer of the loop counts in milliseconds"
    assert median(seconds) < 1
    assert len(seen) == 1
    assert len(reasons) == len(WRONG)
    assert len(set(reasons)) > 1


async def test_a_key_beside_an_authorization_is_enough_and_the_authorization_is_not_judged() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(config(upstream.port)) as it:
        assert (await ask(it, KEY, "Authorization: Bearer whatever")).status == 200
    assert b"whatever" not in b"".join(value for _, value in seen[0].headers)


async def test_what_an_app_writes_into_a_field_of_its_own_is_passed_on_be_it_a_key() -> None:
    """Only X-Gatepass-Key and the Authorization that is judged are ours to keep back (docs/access.md says so)."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(config(upstream.port)) as it:
        assert (await ask(it, KEY, f"X-My-Notes: {WEB}")).status == 200
        assert (await ask(it, f"X-My-Notes: {WEB}")).status == 401, "and it opens nothing"
    assert [message.all("X-My-Notes") for message in seen] == [[WEB.encode()]]
    assert seen[0].all("X-Gatepass-Key") == []


async def test_a_key_of_the_gateway_never_travels_even_where_authorization_is_passed_on() -> None:
    seen: list[Message] = []
    route = {"authorization": "pass", "header": "X-Api-Key"}
    async with vendor(answering(ok(), seen=seen)) as upstream, running(config(upstream.port, route=route)) as it:
        refused = await ask(it, KEY, f"Authorization: Bearer {WEB}")
        assert (await ask(it, KEY, "Authorization: Bearer of-an-end-user")).status == 200
    assert (refused.status, problem(refused)["code"]) == (403, "client_forbidden")
    assert len(seen) == 1
    assert seen[0].one("Authorization") == b"Bearer of-an-end-user"
    assert not any(WEB.encode() in value for _, value in seen[0].headers)


# -------------------------------------------------------------------------------------------------------- what it may


async def test_a_client_may_do_one_thing_and_nothing_else_and_the_rule_is_named() -> None:
    seen: list[Message] = []
    only = client(allow=["POST /v/api/v1/scan"])
    async with vendor(answering(ok(), seen=seen)) as upstream, running(config(upstream.port, only)) as it:
        app = await connect(it.address)
        await app.send(post("/v/api/v1/scan?x=1", b"{}", KEY))
        assert (await app.message()).status == 200
        refused = await ask(it, KEY, path="/v/api/v1/scan")
        assert (refused.status, problem(refused)["code"]) == (403, "client_forbidden")
        assert "no rule of its `allow` matches" in problem(refused)["detail"]
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("peer_field", "status"),
    [("203.0.113.7", 200), ("203.0.113.8", 403), ("203.0.113.7, 198.51.100.1", 403), ("unknown", 403)],
)
async def test_a_client_s_network_is_judged_by_the_address_that_a_trusted_proxy_tells(
    peer_field: str, status: int
) -> None:
    seen: list[Message] = []
    whole = client(addresses=["203.0.113.7/32"])
    async with vendor(answering(ok(), seen=seen)) as upstream:
        route = {"forwarded": "x-forwarded"}
        async with running(config(upstream.port, whole, route=route, trusted_proxies=["127.0.0.0/8"])) as it:
            assert (await ask(it, KEY, f"X-Forwarded-For: {peer_field}")).status == status
            (event,) = events(it, "request")
    assert event["remote"] == (peer_field.rpartition(", ")[2] if peer_field != "unknown" else "127.0.0.1")
    if seen:
        assert seen[0].one("X-Forwarded-For") == b"203.0.113.7"


async def test_without_trusted_proxies_nobody_is_believed_about_his_address() -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(config(upstream.port, client(addresses=["203.0.113.7/32"]))) as it,
    ):
        assert (await ask(it, KEY, "X-Forwarded-For: 203.0.113.7")).status == 403


# ------------------------------------------------------------------------------------------------------------ how much


async def test_a_client_over_its_rate_hears_which_limit_it_is_and_when_to_come_back() -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(config(upstream.port, client(limits=[{"rate": 0.1, "burst": 2}]))) as it,
    ):
        assert [(await ask(it, KEY)).status for _ in range(2)] == [200, 200]
        refused = await ask(it, KEY)
        assert it.metric("gatepass_client_limited_total", client="web", route="v", limit="rate") == 1
    assert (refused.status, problem(refused)["code"]) == (429, "rate_limited")
    assert refused.one("RateLimit-Policy") == b'"rate";q=2;w=20'
    assert refused.one("RateLimit").startswith(b'"rate";r=0;t=')
    assert 1 <= int(refused.one("Retry-After")) <= 10


async def hanging(peer: Peer) -> None:
    await peer.message()
    await asyncio.Event().wait()


async def resetting(peer: Peer) -> None:
    await peer.message()
    peer.reset()


async def cut_off(peer: Peer) -> None:
    await peer.message()
    await peer.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nx")
    peer.reset()


@pytest.mark.parametrize("script", [resetting, cut_off, answering(ok()), answering(b"nonsense\r\n\r\n")])
async def test_no_end_of_an_exchange_leaks_a_place_in_flight_or_a_reservation(script: Script) -> None:
    limits, budgets = [{"in_flight": 1}], [{"route": "v", "per": "day", "hard": 1000}]
    async with (
        vendor(script) as upstream,
        running(config(upstream.port, client(limits=limits, budgets=budgets))) as it,
    ):
        for _ in range(5):
            app = await connect(it.address)
            await app.send(get("/v/a", KEY))
            await app.reader.read(200)
            app.close()
            await eventually(it.at_rest)
            assert it.metric("gatepass_client_requests_in_flight", client="web", route="v") == 0
        allowance = it.snapshot.clients.allowance("web", "v")
        assert allowance is not None
        assert allowance.budgets[0].current().reserved == 0
        assert not it.metric("gatepass_client_limited_total", client="web", route="v", limit="in_flight")


async def test_an_app_that_hangs_up_frees_its_place_and_has_used_its_budget() -> None:
    """The request went out, so the vendor may charge for it."""
    began = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        began.set()
        await asyncio.Event().wait()

    limits, budgets = [{"in_flight": 1}], [{"route": "v", "per": "month", "hard": 2}]
    async with (
        vendor(script) as upstream,
        running(config(upstream.port, client(limits=limits, budgets=budgets))) as it,
    ):
        for used in (1, 2):
            app = await connect(it.address)
            await app.send(get("/v/a", KEY))
            await began.wait()
            began.clear()
            busy = await ask(it, KEY)
            assert (busy.status, problem(busy)["code"]) == (429, "rate_limited")
            app.reset()
            await eventually(it.at_rest)
            assert it.metric("gatepass_client_budget_used", client="web", route="v", per="month") == used
        spent = await ask(it, KEY)
    assert spent.one("RateLimit-Policy").startswith(b'"budget-month";q=2;w=')


async def test_an_app_that_hangs_up_in_the_middle_of_its_upload_has_used_nothing() -> None:
    """What the vendor never got whole it charges nobody for."""
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        begun.set()
        await asyncio.Event().wait()

    async with (
        vendor(script) as upstream,
        running(config(upstream.port, client(budgets=[{"route": "v", "per": "day", "hard": 1}]))) as it,
    ):
        app = await connect(it.address)
        await app.send(post("/v/a", b"x" * 100, KEY)[:-50])
        await begun.wait()
        app.reset()
        await eventually(it.at_rest)
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 0


async def test_a_budget_counts_what_vendors_bill_warns_once_and_then_refuses_until_the_period_ends() -> None:
    answers = [b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", ok(), b"HTTP/1.1 303 See\r\nContent-Length: 0\r\n\r\n"]
    budgets = [{"route": "v", "per": "day", "soft": 1, "hard": 3}]
    async with (
        vendor(answering(*answers, ok())) as upstream,
        running(config(upstream.port, client(budgets=budgets))) as it,
    ):
        assert [(await ask(it, KEY)).status for _ in range(4)] == [404, 200, 303, 200]
        refused = await ask(it, KEY)
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 3
        assert it.metric("gatepass_client_budget_limit", client="web", route="v", per="day", level="hard") == 3
        (warning,) = events(it, "budget_soft_limit")
    assert (warning["level"], warning["client"], warning["used"], warning["hard"]) == ("warning", "web", 1, 3)
    assert refused.status == 429
    assert refused.one("RateLimit-Policy") == b'"budget-day";q=3;w=86400'
    assert 1 <= int(refused.one("Retry-After")) <= 86400


async def test_a_reload_frees_nobody_from_what_was_used() -> None:
    """Counts, bursts and places in flight go on under the new configuration."""
    budgets = [{"route": "v", "per": "day", "hard": 2}]
    async with vendor(hanging) as upstream:
        whole = config(upstream.port, client(budgets=budgets, limits=[{"rate": 0.01, "burst": 2, "in_flight": 1}]))
        async with running(whole) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", KEY))
            await eventually(lambda: upstream.open)
            await it.gateway.reload(it.gateway.config)
            assert (await ask(it, KEY)).one("RateLimit-Policy").startswith(b'"in-flight"')
            app.reset()
            await eventually(it.at_rest)
            app = await connect(it.address)
            await app.send(get("/v/a", KEY))
            await eventually(lambda: upstream.connections == 2)
            app.reset()
            await eventually(it.at_rest)
            await it.gateway.reload(it.gateway.config)
            assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 2
            assert (await ask(it, KEY)).status == 429


# ------------------------------------------------------------------------------------------------------------- fairness


async def test_a_greedy_client_leaves_connections_and_its_turn_to_the_others() -> None:
    """It holds three quarters of a slow vendor's pool and has many more waiting; the other client's call goes on."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.target == b"/slow":
                await asyncio.Event().wait()
            await peer.send(ok())

    route = {"pool": {"size": 4, "wait": "60s"}}
    async with (
        vendor(script) as upstream,
        running(config(upstream.port, client(), client("batch", BATCH), route=route)) as it,
    ):
        greedy = [await connect(it.address) for _ in range(12)]
        for app in greedy:
            await app.send(get("/v/slow", KEY))
        await eventually(lambda: len(upstream.open) == 3)
        for _ in range(3):
            assert (await ask(it, f"X-Gatepass-Key: {BATCH}")).status == 200
        assert len(upstream.open) <= 4


async def test_a_greedy_client_fills_its_own_places_in_the_line_and_no_more() -> None:
    """Its surplus is refused at once; the three calls of the other find places and are served in their turn."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.target == b"/slow":
                await asyncio.Event().wait()
            await peer.send(ok())

    route = {"pool": {"size": 2, "wait": "60s", "queue": 6}}
    async with (
        vendor(script) as upstream,
        running(config(upstream.port, client(), client("batch", BATCH), route=route)) as it,
    ):
        for _ in range(10):
            app = await connect(it.address)
            await app.send(get("/v/slow", KEY))
        await eventually(lambda: it.metric("gatepass_client_requests_total", client="web", route="v", outcome="failed"))
        modest = [await connect(it.address) for _ in range(3)]
        for app in modest:
            await app.send(get("/v/a", f"X-Gatepass-Key: {BATCH}"))
        assert [(await app.message()).status for app in modest] == [200, 200, 200]


async def test_a_slow_vendor_takes_nothing_from_the_others() -> None:
    """Neither connections nor places in flight, though one client fills everything that the slow one has."""
    route = {"pool": {"size": 2, "wait": "60s", "queue": 4}}  # who had to wait there would wait too long for `ask`
    async with vendor(hanging) as slow, vendor(answering(ok())) as quick:
        whole = config(slow.port, client(limits=[{"in_flight": 5}]), route=route)
        whole["routes"]["q"] = {"credential": "key", "upstream": f"http://127.0.0.1:{quick.port}"}
        async with running(whole) as it:
            for _ in range(8):
                app = await connect(it.address)
                await app.send(get("/v/a", KEY))
            await eventually(
                lambda: it.metric("gatepass_client_limited_total", client="web", route="v", limit="in_flight")
            )
            for _ in range(20):
                assert (await ask(it, KEY, path="/q/a")).status == 200
            assert it.metric("gatepass_pool_wait_seconds_count", route="q") == 0


async def test_beyond_the_queue_a_request_is_refused_at_once() -> None:
    route = {"pool": {"size": 1, "wait": "60s", "queue": 2}}
    async with vendor(hanging) as upstream, running(config(upstream.port, route=route)) as it:
        for _ in range(3):
            app = await connect(it.address)
            await app.send(get("/v/a", KEY))
        await eventually(lambda: upstream.open and len(it.routes[0].pool._queue) == 2)
        answer = await ask(it, KEY)
    assert (answer.status, problem(answer)["code"]) == (503, "upstream_busy")


# ---------------------------------------------------------------------------------------------------------------- audit


async def test_every_refused_call_leaves_one_event_that_says_who_what_and_why_and_no_identifier() -> None:
    route = {"paths": ["/api/v1/info/{sessionId}", "/api/v1/scan"]}
    only = client(allow=["GET /v/api/v1/info/*"], limits=[{"rate": 0.001, "burst": 1}])
    async with vendor(answering(ok())) as upstream, running(config(upstream.port, only, route=route)) as it:
        await ask(it, KEY, path="/v/api/v1/info/session-4711?q=secret-4712")
        await ask(it, KEY, path="/v/api/v1/info/session-4711?q=secret-4712")
        await ask(it, KEY, path="/v/api/v1/scan", method="POST")
        await ask(it, path="/v/elsewhere/session-4711")
        log, found = it.log, [event for event in events(it, "request") if event["code"]]
    assert [(event["code"], event["client"], event["path"]) for event in found] == [
        ("rate_limited", "web", "/api/v1/info/{sessionId}"),
        ("client_forbidden", "web", "/api/v1/scan"),
        ("client_unknown", None, None),
    ]
    assert all(event["reason"] and event["remote"] == "127.0.0.1" and event["request_id"] for event in found)
    assert {event["level"] for event in found} == {"warning"}
    assert "4711" not in log
    assert "4712" not in log


async def test_clients_are_counted_by_route_and_outcome() -> None:
    answers = [ok(), b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"]
    async with (
        vendor(answering(*answers)) as upstream,
        running(config(upstream.port, client(deny=["/v/no"]))) as it,
    ):
        for path in ("/v/a", "/v/a", "/v/no", "/v/a"):
            await ask(it, KEY, path=path)
        await ask(it)

        def counted(outcome: str) -> float:
            return it.metric("gatepass_client_requests_total", client="web", route="v", outcome=outcome)

        assert [counted(outcome) for outcome in ("ok", "vendor_error", "refused", "failed", "gone")] == [
            1,
            1,
            1,
            1,
            0,
        ]


async def test_a_served_request_is_logged_with_its_template_and_not_its_path() -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(config(upstream.port, route={"paths": ["/info/{id}"]})) as it,
    ):
        await ask(it, KEY, path="/v/info/4711")
        (event,) = events(it, "request")
        assert "4711" not in it.log
    assert (event["client"], event["path"], event["status"]) == ("web", "/info/{id}", 200)
