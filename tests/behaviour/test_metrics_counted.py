"""Every counter after a known mixture of requests, all compared at once: none forgets, none counts twice."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.access import hash_key
from tests.kit.clock import FakeClock
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import Running, running
from tests.kit.metrics import families
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, connect, get, ok, post, vendor

KEY = "gp_CANARY-5f1d2c-do-not-print-web"
WEB = f"X-Gatepass-Key: {KEY}"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"
FAILED = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
EXPIRED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"nonsense\r\n\r\n"


class Town:
    """A vendor that answers by the path, and revokes the token that it has taken when it is told to."""

    def __init__(self) -> None:
        self.dead: set[bytes] = set()
        self.seen: list[Message] = []

    async def script(self, peer: Peer) -> None:
        while True:
            request = await peer.message()
            self.seen.append(request)
            token = request.one("Authorization")
            if request.target == b"/reset":
                peer.reset()
                return
            if request.target == b"/forbidden-token" or token in self.dead:
                await peer.send(EXPIRED)
                continue
            answers = {b"/missing": MISSING, b"/failed": FAILED, b"/broken": BROKEN}
            await peer.send(answers.get(request.target, ok(b"12345")))


def configuration(port: int, endpoint: TokenEndpoint) -> dict[str, Any]:
    form = {"grant_type": "client_credentials", "client_secret": "${CANARY}"}
    return {
        "credentials": {
            "acme": {
                "grant": {"request": {"url": endpoint.url, "form": form}, "response": {"expires": {"after": "1h"}}}
            }
        },
        "routes": {"v": {"credential": "acme", "upstream": f"http://127.0.0.1:{port}", "pool": {"size": 2}}},
        "clients": [
            {
                "name": "web",
                "key_sha256": hash_key(KEY),
                "deny": ["/v/denied"],
                "budgets": [{"route": "v", "per": "day", "hard": 5, "soft": 1}],
            }
        ],
    }


OF_THE_PROCESS = {"gatepass_trace_spans_dropped", "gatepass_log_events_dropped"}
"""Counted for the whole process, so that other tests move them, too."""


def counted(it: Running) -> dict[str, float]:
    """Every counter's value but nought, and how often each histogram was fed."""
    found: dict[str, float] = {}
    for family in families(it.gateway.metrics):
        if not family.name.startswith("gatepass_") or family.type not in {"counter", "histogram"}:
            continue
        if family.name in OF_THE_PROCESS:
            continue
        for sample in family.samples:
            if sample.name.endswith(("_total", "_count")) and sample.value:
                labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
                found[f"{sample.name.removeprefix('gatepass_')}{{{labels}}}"] = sample.value
    return found


async def ask(it: Running, raw: bytes) -> int:
    app = await connect(it.address)
    await app.send(raw)
    answer = await app.message()
    app.close()
    return answer.status


async def test_every_counter_says_what_happened_and_no_more() -> None:
    """Answers, refusals, a token that was revoked, a vendor that resets: sent one after another, then counted."""
    there = Town()
    async with (
        TokenEndpoint() as endpoint,
        vendor(there.script) as upstream,
        running(configuration(upstream.port, endpoint), clock=FakeClock()) as it,
    ):
        await asyncio.wait_for(it.gateway.tokens.warmed.wait(), 30)
        statuses = [await ask(it, get("/v/a", WEB)) for _ in range(3)]
        statuses += [await ask(it, get("/v/missing", WEB)) for _ in range(2)]
        statuses.append(await ask(it, get("/v/failed", WEB)))
        statuses.append(await ask(it, get("/v/denied", WEB)))
        statuses += [await ask(it, get("/v/a")) for _ in range(2)]
        statuses.append(await ask(it, get("/nowhere", WEB)))
        statuses.append(await ask(it, b"GARBAGE\r\n\r\n"))
        statuses.append(await ask(it, get("/v/broken", WEB)))
        there.dead.add(there.seen[0].one("Authorization"))
        statuses.append(await ask(it, post("/v/a", b"x" * 100, WEB)))
        statuses.append(await ask(it, post("/v/reset", b"x" * 10, WEB)))
        statuses.append(await ask(it, post("/v/a", b"y" * 7, WEB)))
        statuses.append(await ask(it, get("/v/a", WEB)))
        await until(lambda: it.at_rest() and not it.metric("gatepass_client_connections"))
        got = counted(it)
        used = it.metric("gatepass_client_budget_used", client="web", route="v", per="day")
        problems = int(got.pop("response_bytes_total{v}"))
    assert statuses == [200, 200, 200, 404, 404, 500, 403, 401, 401, 404, 400, 502, 200, 502, 200, 429]
    assert got == {
        # code, method, route, status
        "requests_total{,GET,v,200}": 3,
        "requests_total{,POST,v,200}": 2,
        "requests_total{,GET,v,404}": 2,
        "requests_total{,GET,v,500}": 1,
        "requests_total{client_forbidden,GET,v,403}": 1,
        "requests_total{client_unknown,GET,v,401}": 2,
        "requests_total{upstream_malformed,GET,v,502}": 1,
        "requests_total{upstream_reset,POST,v,502}": 1,
        "requests_total{rate_limited,GET,v,429}": 1,
        "unrouted_requests_total{route_not_found}": 1,
        "unrouted_requests_total{bad_request}": 1,
        "request_duration_seconds_count{v}": 14,
        # Answers of the vendor that could be passed on: the eight of 200, 404 and 500.
        "upstream_duration_seconds_count{v}": 8,
        "request_bytes_total{v}": 100 + 10 + 7,
        "upstream_refusals_total{v}": 1,
        "replays_total{sent,v}": 1,
        "upstream_connects_total{ok,v}": 3,
        "upstream_connect_duration_seconds_count{v}": 3,
        # client, outcome, route
        "client_requests_total{web,ok,v}": 5,
        "client_requests_total{web,vendor_error,v}": 3,
        "client_requests_total{web,refused,v}": 2,
        "client_requests_total{web,failed,v}": 2,
        # client, route: the answers with 200
        "client_billed_calls_total{web,v}": 5,
        # client, limit, route
        "client_limited_total{web,budget,v}": 1,
        # cause, credential, outcome
        "token_fetches_total{startup,acme,ok}": 1,
        "token_fetches_total{unauthorized,acme,ok}": 1,
        "token_fetch_duration_seconds_count{acme}": 2,
        "token_waits_total{acme}": 1,
        "config_loads_total{ok}": 1,
    }
    assert used == 5
    assert problems > 5 * 5 + 2 * 3, "vendors' bodies and our own answers"
    assert endpoint.count == 2
