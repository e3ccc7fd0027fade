"""The status page and what can be done from it, over real sockets in front of the emulated vendors."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from html import unescape
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway import __version__
from gateway.access import hash_key
from gateway.admin import html
from gateway.admin.guard import COOKIE
from gateway.admin.history import STEPS
from gateway.admin.overview import Overview
from gateway.errors import CredentialRefused
from gateway.model import Logs
from gateway.observe import adjust_logging, current_logging
from tests.kit.emulation import ask, emulated, warm
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.seen import ADMIN_KEY, admin_port
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox import Sandbox
    from tests.kit.gateway import Running

BEARER = {"Authorization": f"Bearer {ADMIN_KEY}"}


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Running, Sandbox, str, aiohttp.ClientSession]]:
    """A warm gateway in front of the sandbox, its admin port, and a browser without a face."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with emulated() as (it, sandbox), admin_port(it) as url, aiohttp.ClientSession(cookie_jar=jar) as browser:
        await warm(it)
        yield it, sandbox, url, browser


async def page_of(browser: aiohttp.ClientSession, url: str) -> str:
    async with browser.get(f"{url}/status") as answer:
        assert answer.status == 200
        return await answer.text()


async def enter(browser: aiohttp.ClientSession, url: str, key: str = ADMIN_KEY) -> str:
    """Unlock the buttons; return the session's token against forgery."""
    async with browser.post(f"{url}/status/enter", data={"key": key}) as answer:
        found = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
    return found[1] if found else ""


def from_page(url: str) -> dict[str, str]:
    """What a browser says when a page of ours sends a form."""
    return {"Origin": url, "Sec-Fetch-Site": "same-origin"}


async def press(
    browser: aiohttp.ClientSession, url: str, what: str, csrf: str, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    target = f"{url}/status/credentials/{what}"
    fields = from_page(url) if headers is None else headers
    async with browser.post(target, data={"csrf": csrf}, headers=fields) as answer:
        return answer.status, unescape(await answer.text())


# --------------------------------------------------------------------------------------------------------- the page


async def test_the_page_shows_every_credential_route_and_nothing_secret() -> None:
    async with opened() as (it, sandbox, url, browser):
        for name in sandbox.vendors:
            assert (await ask(it, name))[0] == 200
        page = await page_of(browser, url)
    assert page.count('class="pill valid"') == 4
    for name, each in sandbox.vendors.items():
        assert f'id="credential-{name}"' in page
        assert f'id="route-{name}"' in page
        for secret in each.credentials.values():
            assert secret.reveal() not in page
    assert CANARY not in page


def cells(page: str, row: str) -> list[str]:
    """The texts of the cells of a row of a table, whose beginning is `row`."""
    inner = page[page.index(row) :].partition("</tr>")[0]
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", inner, re.DOTALL)]


async def test_the_page_says_what_runs_on_which_configuration_and_how_its_clients_fare() -> None:
    """Version, digest, data port; and every client with its outcomes, its refusals and its budget."""
    keys = {name: f"{CANARY}-{name}" for name in ("web", "batch")}
    clients = [
        {"name": "web", "key_sha256": hash_key(keys["web"]), "budgets": [{"route": "v", "per": "day", "hard": 40}]},
        {
            "name": "batch",
            "key_sha256": hash_key(keys["batch"]),
            "routes": ["v"],
            "limits": [{"rate": 0.01, "burst": 1}],
        },
    ]
    missing = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    async with vendor(answering(ok(), ok(), missing, ok())) as upstream:
        config = {**one_route(upstream.port), "clients": clients}
        async with running(config) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
            for name in ("web", "web", "web", "batch", "batch"):
                app = await connect(it.address)
                await app.send(get("/v/a", f"X-Gatepass-Key: {keys[name]}"))
                await app.message()
                app.close()
            page = await page_of(browser, url)
        digest, (host, port) = it.gateway.config.digest, it.address
    assert re.search(rf"version {re.escape(__version__)} · up \d+ (s|min) · ", page)
    assert f"configuration <code>{digest[:12]}</code>" in page
    assert f"data port {host}:{port}" in page
    head = re.findall(r"<th[^>]*>([^<]*)</th>", page[page.index("Clients, since the start") :].partition("</thead>")[0])
    assert head == ["client", "ok", "vendor's 4xx, 5xx", "refused", "limited", "failed", "budgets"]
    assert cells(page, '<tr><th scope="row">web<small>all routes</small>') == [
        "2",
        "1",
        "0",
        "0",
        "0",
        "v: 2 of 40 a day",
    ]
    assert cells(page, '<tr><th scope="row">batch<small>v</small>') == ["1", "0", "1", "1", "0", "–"]
    assert cells(page, '<tr id="route-v">')[0] == "5"


async def test_the_curve_shows_the_requests_of_each_step_and_the_page_how_long_it_is_up() -> None:
    """The oldest step on the left; the highest point is the step with the most requests."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        overview = Overview(
            metrics=it.gateway.metrics,
            status=it.gateway.tokens.status,
            state=lambda: "ready",
            data_address=lambda: it.address,
        )
        overview.use(it.gateway.config)
        overview._started -= 3 * 3600 + 7 * 60 + 5
        app = await connect(it.address)
        for requests in (4, 0, 2):
            overview.tick()
            for _ in range(requests):
                await app.send(get("/v/a"))
                assert (await app.message()).status == 200
        page = html.page(overview.data(), session=None, locked=True)
    assert " · up 3 h 07 · " in page
    (points,) = re.findall(r'<polyline points="([^"]+)">', page)
    curve = [tuple(map(float, point.split(","))) for point in points.split()]
    assert [x for x, _ in curve] == list(range(STEPS))
    floor, top = html.CURVE_HEIGHT - 1, 1.0
    assert [y for _, y in curve[-3:]] == [top, floor, (floor + top) / 2]
    assert {y for _, y in curve[:-3]} == {floor}
    assert cells(page, '<tr id="route-v">')[0] == "6"


async def test_the_policy_lets_nothing_run_but_the_pages_own_style_and_script() -> None:
    async with (
        running(one_route(1)) as it,
        admin_port(it) as url,
        aiohttp.ClientSession() as browser,
        browser.get(f"{url}/status") as answer,
    ):
        policy, page = answer.headers["Content-Security-Policy"], await answer.text()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r'(src|href|action)="(https?:)?//', page), "no external asset"
    assert " style=" not in page
    assert not re.search(r"\son\w+=", page)


async def test_what_a_vendor_says_stays_text() -> None:
    data = {
        "version": "1", "state": "ready", "uptime": 1.0, "data": None, "window": 900, "routes": [], "clients": [],
        "failing": 1, "headline": "1 of 1 credentials failing",
        "config": {"digest": "d", "loaded": 0}, "store": None, "planes": [],
        "credentials": [
            {
                "name": "idfy", "state": "unavailable", "expires_in": None, "life": None, "fingerprint": None,
                "generation": 0, "secret": "current", "last_success": None, "next_attempt_in": 3.0, "routes": [],
                "skew": None,
                "reason": "<script>alert(1)</script>", "last_failure": 0, "consecutive_failures": 2, "advice": None,
                "can_check": False, "failing": True, "expiry_source": None,
            }
        ],
    }  # fmt: skip
    page = html.page(data, session=None, locked=True)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_a_failing_credential_is_explained_with_what_to_do() -> None:
    async with opened() as (it, sandbox, url, browser):
        await sandbox.vendors["idfy"].set(token_fault="500")
        sandbox.vendors["idfy"].revoke()
        await ask(it, "idfy")
        async with browser.get(f"{url}/status.json") as answer:
            idfy = next(each for each in (await answer.json())["credentials"] if each["name"] == "idfy")
        page = await page_of(browser, url)
    assert idfy["state"] == "unavailable"
    assert idfy["reason"]
    assert idfy["advice"].startswith("The token endpoint is down")
    assert unescape(page).count(idfy["advice"]) == 1


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (0.0, ""),
        (300.0, 'class="bad">the endpoint\'s is 5 min ahead of ours'),
        (-300.0, 'class="bad">the endpoint\'s is 5 min behind ours'),
    ],
    ids=["right", "ahead", "behind"],
)
async def test_the_clock_of_a_token_endpoint_is_shown_and_moves_no_expiry(offset: float, words: str) -> None:
    """On the page, as data and as a metric; a request that fails measures it, too."""
    async with opened() as (it, sandbox, url, browser):
        await sandbox.idfy.set(clock_offset=offset, life=1800, rate_limit=False)
        await it.gateway.tokens.fetch_now("idfy")
        page = unescape(await page_of(browser, url))
        async with browser.get(f"{url}/status.json") as answer:
            idfy = next(each for each in (await answer.json())["credentials"] if each["name"] == "idfy")
        metric = it.metric("gatepass_token_clock_skew_seconds", credential="idfy")
        card = page[page.index('id="credential-idfy"') :].partition("</article>")[0]
        assert idfy["skew"] == pytest.approx(offset, abs=5)
        assert metric == pytest.approx(offset, abs=5)
        if words:
            assert f"<dt>clock</dt><dd {words.replace('5 min', html.span(abs(metric)))}</dd>" in card
        else:
            assert "<dt>clock</dt>" not in card or abs(metric) < 5
        assert idfy["life"] == pytest.approx(1800, abs=5)
        assert 1700 < idfy["expires_in"] <= 1800

        await sandbox.idfy.set(clock_offset=offset + 60, token_fault="invalid_client_401")
        with pytest.raises(CredentialRefused):
            await it.gateway.tokens.fetch_now("idfy")
        metric = it.metric("gatepass_token_clock_skew_seconds", credential="idfy")
        assert metric == pytest.approx(offset + 60, abs=5)


async def test_a_configuration_that_was_refused_is_said_on_the_page() -> None:
    async with running(one_route(1)) as it:
        data = Overview(
            metrics=it.gateway.metrics,
            status=it.gateway.tokens.status,
            state=lambda: "ready",
            data_address=lambda: None,
            problems=lambda: ["config.yaml:3: routes.v.timeout: unknown key"],
        ).data()
    page = html.page(data, session=None, locked=True)
    assert "The newest configuration is refused" in page
    assert "config.yaml:3: routes.v.timeout" in page


async def test_the_data_is_numbers_by_route_with_the_hop_that_failed() -> None:
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it, admin_port(it) as url:
        app = await connect(it.address)
        for path in ("/v/a", "/v/a", "/v/../x"):
            await app.send(get(path))
            await app.message()
        async with aiohttp.ClientSession() as browser, browser.get(f"{url}/status.json") as answer:
            said = await answer.json()
    [route] = said["routes"]
    assert (route["name"], route["prefix"], route["requests"]) == ("v", "/v", 2)
    assert sum(route["curve"]) == 2
    assert 0 < route["p50_ms"] <= route["p99_ms"]
    assert route["errors"] == {"app": 0, "gateway": 0, "token_endpoint": 0, "upstream": 0, "vendor": 0}
    assert said["config"]["digest"] == it.gateway.config.digest
    assert said["clients"] == []


# ------------------------------------------------------------------------------------------------------- the buttons


async def test_a_revoked_token_is_replaced_by_fetch_now() -> None:
    async with opened() as (it, _, url, browser):
        csrf = await enter(browser, url)
        before = it.gateway.tokens.tokens("uqudo").current()
        status, page = await press(browser, url, "uqudo/fetch", csrf)
        after = it.gateway.tokens.tokens("uqudo").current()
        assert (status, "uqudo: a new token was fetched." in page) == (200, True)
        assert before is not after
        assert "was fetched" not in await page_of(browser, url), "it is said once"
        assert "manual" in it.log


async def test_check_shows_the_token_to_the_vendor() -> None:
    async with opened() as (_, sandbox, url, browser):
        csrf = await enter(browser, url)
        _, taken = await press(browser, url, "akiba/check", csrf)
        sandbox.vendors["akiba"].revoke()
        _, refused = await press(browser, url, "akiba/check", csrf)
        _, nothing = await press(browser, url, "idfy/check", csrf)
    assert "akiba: the vendor accepts the token (it answered 200)." in taken
    assert "akiba: the vendor refuses the token (it answered 401)." in refused
    assert "idfy: the credential has no identity endpoint." in nothing


async def test_a_program_shows_the_key_and_gets_json() -> None:
    async with opened() as (_, sandbox, url, browser):
        async with browser.post(f"{url}/status/credentials/idfy/fetch", headers=BEARER) as answer:
            good = (answer.status, (await answer.json())["ok"])
        await sandbox.vendors["idfy"].set(token_fault="500")
        async with browser.post(f"{url}/status/credentials/idfy/fetch", headers=BEARER) as answer:
            bad = (answer.status, (await answer.json())["ok"])
        async with browser.post(f"{url}/status/credentials/nobody/fetch", headers=BEARER) as answer:
            missing = answer.status
    assert (good, bad, missing) == ((200, True), (502, False), 404)


@pytest.mark.parametrize(
    ("cookie", "csrf", "headers", "status"),
    [
        (True, True, {"Sec-Fetch-Site": "cross-site"}, 403),
        (True, True, {"Sec-Fetch-Site": "same-site"}, 403),
        (True, True, {"Origin": "http://evil.example"}, 403),
        (True, True, {"Origin": "null"}, 403),
        (True, True, {}, 403),
        (True, False, None, 403),
        (False, True, None, 401),
        (False, False, {"Authorization": "Bearer gp_wrong"}, 401),
        (False, False, {"Authorization": "Basic Z3A6eA=="}, 401),
    ],
    ids=["other site", "sibling", "other origin", "null origin", "unsaid", "no token", "no cookie", "wrong", "basic"],
)
async def test_a_forged_or_nameless_request_changes_nothing(
    cookie: bool, csrf: bool, headers: dict[str, str] | None, status: int
) -> None:
    async with opened() as (it, _, url, browser):
        token = await enter(browser, url)
        if not cookie:
            browser.cookie_jar.clear()
        answered, _ = await press(browser, url, "idfy/fetch", token if csrf else "x", headers)
        fetches = it.metric("gatepass_token_fetches_total", credential="idfy", outcome="ok", cause="manual")
    assert (answered, fetches) == (status, 0)


async def test_a_wrong_key_opens_nothing_and_without_one_there_is_nothing_to_open() -> None:
    async with running(one_route(1)) as it, aiohttp.ClientSession() as browser:
        async with admin_port(it) as url, browser.post(f"{url}/status/enter", data={"key": "gp_CANARY-no"}) as answer:
            assert (answer.status, "Set-Cookie" in answer.headers) == (401, False)
        async with admin_port(it, key=None) as url:
            async with browser.post(f"{url}/status/enter", data={"key": ADMIN_KEY}) as answer:
                assert answer.status == 403
            assert "admin_keys_sha256" in await page_of(browser, url)
        assert "admin_key_refused" in it.log
        assert "gp_CANARY" not in it.log


async def test_the_cookie_is_strict_and_out_of_reach_of_scripts_and_ends_with_the_session() -> None:
    async with opened() as (_, _, url, browser):
        async with browser.post(f"{url}/status/enter", data={"key": ADMIN_KEY}, allow_redirects=False) as answer:
            morsel = answer.cookies[COOKIE]
        assert morsel["httponly"]
        assert morsel["samesite"] == "Strict"
        csrf = await enter(browser, url)
        async with browser.post(f"{url}/status/leave") as answer:
            assert answer.status == 200
        assert (await press(browser, url, "idfy/fetch", csrf))[0] == 401


# ---------------------------------------------------------------------------------------------------------- the log


async def test_levels_change_over_the_admin_port_behind_the_key() -> None:
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
        before = current_logging()
        wanted = {"level": "warning", "loggers": {"gatepass.tokens": "debug"}, "sample": 0.5}
        async with browser.put(f"{url}/logging", json=wanted) as answer:
            assert answer.status == 401
        assert current_logging() == before
        async with browser.put(f"{url}/logging", json=wanted, headers=BEARER) as answer:
            assert await answer.json() == {**wanted, "access": True}
        async with browser.get(f"{url}/logging") as answer:
            assert (await answer.json())["level"] == "warning"
        adjust_logging(before or Logs())


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
async def test_a_change_of_the_level_is_logged_with_the_new_level(level: str) -> None:
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
        async with browser.put(f"{url}/logging", json={"level": level}, headers=BEARER) as answer:
            assert answer.status == 200
        [event] = [json.loads(line) for line in it.log.splitlines() if '"logging_changed"' in line]
    assert (event["level"], event["settings"]["level"]) == ("warning", level)


@pytest.mark.parametrize(
    "wanted",
    [{"level": "error"}, {"loggers": {"gatepass.tokens": "debug"}}, {"sample": 0.5}, {"access": False}],
    ids=["level", "logger", "sample", "access"],
)
async def test_settings_that_were_set_by_hand_end_with_the_next_reload(wanted: dict[str, object]) -> None:
    """Though the configuration is the same as before."""
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
        async with browser.put(f"{url}/logging", json=wanted, headers=BEARER) as answer:
            assert answer.status == 200
        assert current_logging() != it.gateway.config.logs
        await it.gateway.reload(it.gateway.config)
        assert current_logging() == it.gateway.config.logs


@pytest.mark.parametrize(
    "wanted",
    ["{", "[]", '{"level": "loud"}', '{"sample": 2}', '{"loggers": {"a": 1}}', '{"format": "json"}', '{"access": 1}'],
)
async def test_a_wrong_wish_for_the_log_changes_nothing(wanted: str) -> None:
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
        before = current_logging()
        async with browser.put(f"{url}/logging", data=wanted, headers=BEARER) as answer:
            assert answer.status == 400
        assert current_logging() == before


# -------------------------------------------------------------------------------------------------- aiohttp's own words


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nbad line\r\n\r\n"], ids=["TLS", "bad line"]
)
async def test_what_is_no_request_is_refused_without_saying_what_we_run_on(raw: bytes) -> None:
    async with running(one_route(1)) as it, admin_port(it) as url:
        host, port = url.removeprefix("http://").split(":")
        peer = await connect((host, int(port)))
        await peer.send(raw)
        answer = await peer.message()
    assert answer.status == 400
    assert answer.all("Server") == [b"gatepass"], "no version of aiohttp or Python"
    assert json.loads(answer.body) == {"status": 400}


async def test_a_page_of_metrics_lets_requests_through_in_between() -> None:
    """Fifty routes are written while the loop's other work goes on: nothing waits for the whole page."""
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession() as browser:
        for number in range(50):
            route = it.gateway.metrics.route(f"r{number}")
            for status in (200, 201, 404, 502, 503):
                route.request("GET", status, "", 0.01, 0.01, 1, 1)
        turns, done = 0, asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with browser.get(f"{url}/metrics") as answer:
            assert len(await answer.read()) > 100_000
        done.set()
        await counting
    assert turns >= 20
