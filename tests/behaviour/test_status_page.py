"""The status page for a person in a hurry: what fails comes first, in every state, on every screen, for everybody.

The check for accessibility needs `npm ci --prefix tests/kit/axe` and Chromium.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.access import hash_key
from gateway.admin import AdminServer
from gateway.config import load
from gateway.model import Address, CredentialStatus
from gateway.observe import Metrics, current_logging
from tests.kit.chromium import PROGRAM, chromium
from tests.kit.gateway import one_route, running
from tests.kit.seen import ADMIN_KEY, admin_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.kit.chromium import Tab

AXE = Path(__file__).parents[1] / "kit" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
GOOD = CredentialStatus(
    "good", "valid", tried=True, fingerprint="3f1c0a2b", generation=3, life=3600.0, expires_in=3599.0,
    next_attempt_in=3500.0, last_success=1.0,
)  # fmt: skip
DOWN = CredentialStatus(
    "down", "unavailable", tried=True, reason="auth.example: connection refused", last_failure=1.0,
    consecutive_failures=4, next_attempt_in=2.0, skew=301.0,
)  # fmt: skip
REFUSED = replace(DOWN, name="refused", state="refused", reason="invalid_client")
RENEWAL = replace(GOOD, name="renewal", reason="auth.example: no answer within 2.0 s", last_failure=1.0)
VENDOR = replace(
    GOOD, name="vendor", state="refused_by_vendor", reason="api.example refused the token 14 times in a row"
)
PENDING = CredentialStatus("pending", "pending", tried=False)
STATIC = CredentialStatus("static", "static", tried=True, fingerprint="0a0b0c0d", generation=1, expiry_source="static")
FEW = [GOOD, DOWN, RENEWAL, PENDING, STATIC]
MANY = [replace(GOOD, name=f"credential-{n:02}-with-a-rather-long-name") for n in range(28)] + [REFUSED, VENDOR]


def config(folder: Path, names: Sequence[str]) -> Any:
    credentials = "".join(f"  {name}: {{static: {{token: CANARY-{name}}}}}\n" for name in names)
    routes = "".join(f"  {name}: {{credential: {name}, upstream: 'http://127.0.0.1:9'}}\n" for name in names)
    path = folder / "config.yaml"
    path.write_text(
        f"admin_keys_sha256: [{hash_key(ADMIN_KEY)}]\n"
        f"clients:\n  - {{name: onboarding-web, key_sha256: {'ab' * 32}}}\n"
        f"  - {{name: batch, key_sha256: {'cd' * 32}}}\n"
        f"credentials:\n{credentials}routes:\n{routes}"
    )
    return load([path], environ={})


def busy(names: Sequence[str]) -> Metrics:
    """Metrics in which every kind of failure and both budgets have something to show."""
    metrics = Metrics()
    for name in names:
        route = metrics.route(name)
        route.upstream = "api.example"
        for status, code in ((200, ""), (503, ""), (502, "upstream_reset"), (503, "token_unavailable"), (401, "x")):
            route.request("GET", status, code, 0.02, 0.01, 10, 10)
    metrics.client("onboarding-web", names[0]).budget("day", 50, 100).set(100)
    metrics.client("batch", names[0]).budget("month", 50, 100).set(60)
    return metrics


@asynccontextmanager
async def page(
    folder: Path, credentials: list[CredentialStatus], *, key: bool = True, problems: tuple[str, ...] = ()
) -> AsyncIterator[str]:
    names = [each.name for each in credentials] or ["none"]
    loaded = config(folder, names)
    server = AdminServer(
        Address("127.0.0.1", 0), metrics=busy(names), status=lambda: credentials, state=lambda: "ready",
        data_address=lambda: ("127.0.0.1", 8080), problems=lambda: problems,
    )  # fmt: skip
    server.use(loaded if key else replace(loaded, admin_keys_sha256=()))
    await server.start()
    try:
        yield "http://{}:{}".format(*server.address)
    finally:
        await server.stop()


async def text_of(url: str) -> str:
    async with aiohttp.ClientSession() as browser, browser.get(f"{url}/status") as answer:
        assert answer.status == 200
        return unescape(await answer.text())


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (MANY, "2 of 30 credentials failing"),
        ([DOWN], "1 of 1 credentials failing"),
        ([VENDOR, GOOD], "1 of 2 credentials failing"),
        ([GOOD, STATIC], "ready"),
        ([RENEWAL, GOOD], "ready"),
        ([PENDING], "starting"),
    ],
    ids=["two of thirty", "the only one", "refused by the vendor", "all well", "only a renewal", "starting"],
)
async def test_title_badge_and_first_line_say_how_many_fail(
    tmp_path: Path, credentials: list[CredentialStatus], words: str
) -> None:
    async with page(tmp_path, credentials) as url:
        text = await text_of(url)
    assert f"<title>{words} – Gatepass</title>" in text
    assert re.search(rf"<h1>Gatepass <span class=\"pill [a-z]+\">{re.escape(words)}</span></h1>", text)
    if "failing" in words:
        first = text[text.index("<p class=") :].partition("</p>")[0]
        assert first.startswith(f'<p class="bad first">{words}: ')
        for each in credentials:
            assert (f'<a href="#credential-{each.name}">' in first) == (
                each.state in {"unavailable", "refused", "refused_by_vendor"}
            )


async def test_failing_credentials_come_first_and_beyond_eight_only_they_are_cards(tmp_path: Path) -> None:
    async with page(tmp_path, MANY) as url:
        many = await text_of(url)
    async with page(tmp_path, FEW) as url:
        few = await text_of(url)
    assert re.findall(r'<article id="credential-([\w-]+)"', many) == ["refused", "vendor"]
    assert len(re.findall(r'<tr id="credential-', many)) == 28
    assert re.findall(r'<article id="credential-([\w-]+)"', few) == ["down", "renewal", "pending", "good", "static"]
    assert '<tr id="credential-' not in few


async def test_the_columns_of_failures_say_whose_they_are(tmp_path: Path) -> None:
    async with page(tmp_path, [GOOD]) as url:
        text = await text_of(url)
    head = text[text.index("Routes, last") :].partition("</thead>")[0]
    assert re.search(r'colspan="5"[^>]*>failures by</th>', head)
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", head.partition("</tr>")[2])
    assert heads == ["app", "gateway", "token", "connection", "vendor"]
    row = text[text.index('<tr id="route-good">') :].partition("</tr>")[0]
    cells = re.findall(r'<td class="n( bad)?" data-label="(\w+)">(\d+)</td>', row)
    assert cells[1:] == [
        ("", "app", "0"),
        *((" bad", hop, "1") for hop in ("gateway", "token", "connection", "vendor")),
    ]


async def test_a_spent_budget_and_one_over_its_soft_limit_stand_out(tmp_path: Path) -> None:
    async with page(tmp_path, [GOOD]) as url:
        text = await text_of(url)
    assert '<span class="budget spent">good: 100 of 100 a day (spent)</span>' in text
    assert '<span class="budget warned">good: 60 of 100 a month (over its soft limit)</span>' in text


async def test_a_wrong_admin_key_gets_the_page_again_with_a_word_and_the_form(tmp_path: Path) -> None:
    async with page(tmp_path, FEW) as url, aiohttp.ClientSession() as browser:
        async with browser.post(
            f"{url}/status/enter", data={"key": "gp_CANARY-wrong"}, headers={"Accept": "text/html,*/*"}
        ) as answer:
            assert (answer.status, answer.content_type) == (401, "text/html")
            text = await answer.text()
            assert "Content-Security-Policy" in answer.headers
        async with browser.post(f"{url}/status/enter", data={"key": "gp_CANARY-wrong"}) as answer:
            assert (answer.status, answer.content_type) == (401, "application/json")
    assert '<p class="message bad" role="status">This is not an admin key. Try again' in text
    assert 'action="../status/enter"' in text
    assert "gp_CANARY" not in text


@pytest.mark.parametrize(("level", "status"), [("debug", 200), ("warning", 200), ("loud", 400)])
async def test_the_log_level_is_set_on_the_page_by_whoever_has_entered_the_key(level: str, status: int) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with running(one_route(1)) as it, admin_port(it) as url, aiohttp.ClientSession(cookie_jar=jar) as browser:
        before = current_logging()
        async with browser.post(f"{url}/status/logging", data={"level": level}) as answer:
            assert answer.status == 401
        async with browser.post(f"{url}/status/enter", data={"key": ADMIN_KEY}) as answer:
            csrf = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
        assert csrf
        own = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
        async with browser.post(f"{url}/status/logging", data={"level": level}, headers=own) as answer:
            assert answer.status == 403
        fields = {"level": level, "csrf": csrf[1]}
        async with browser.post(f"{url}/status/logging", data=fields, headers=own) as answer:
            assert answer.status == status
            text = await answer.text()
        assert before is not None
        now = current_logging()
        assert now is not None
        if status == 200:
            assert f"The log level is {level} until the next reload or restart." in text
            assert f"<option selected>{level}</option>" in text
            assert now.level == level
        else:
            assert now == before


# ------------------------------------------------------------------------------------------------------ a real browser

browser = pytest.mark.skipif(
    PROGRAM is None or not AXE.exists(),
    reason="needs chromium (Debian: apt install chromium) and axe (npm ci --prefix tests/kit/axe)",
)
SCREENS = [(1280, False), (1280, True), (390, False), (390, True)]
RUN_AXE = """axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations
    .filter(v => v.impact === "serious" || v.impact === "critical" || v.id.startsWith("landmark") || v.id === "region")
    .map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.target.join(" ")).join(", ")))"""


async def findings(tab: Tab) -> list[str]:
    """Return what axe finds on the open page, on each screen."""
    await tab.run(AXE.read_text())
    found = []
    for width, dark in SCREENS:
        await tab.size(width, 800, dark=dark)
        found += [f"{width}{' dark' if dark else ''}: {each}" for each in await tab.run(RUN_AXE)]
        assert await tab.run("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    return found


@pytest.mark.slow
@browser
async def test_axe_finds_nothing_serious_in_any_state_of_the_page_on_any_screen(tmp_path: Path) -> None:
    found: dict[str, list[str]] = {}
    async with chromium() as tab:
        several = MANY[-11:]
        states = {"few": FEW, "many": several, "all well": [GOOD, STATIC], "vendor": [VENDOR, GOOD], "none": []}
        for name, credentials in states.items():
            async with page(tmp_path, credentials, key=name != "all well", problems=("config.yaml:3: x",)) as url:
                await tab.open(f"{url}/status")
                found[name] = await findings(tab)
        await tab.run("document.body.append(document.createElement('img'))")
        await tab.run(
            "document.querySelector('h2').style.color = '#777777'; document.body.style.background = '#888888'"
        )
        seeded = " ".join(await findings(tab))
        assert "image-alt" in seeded, "axe is at work"
        assert "color-contrast" in seeded
        async with page(tmp_path, several) as url:
            for name, key in (("wrong key", "gp_CANARY-wrong"), ("unlocked", ADMIN_KEY)):
                await tab.open(f"{url}/status")
                await tab.run(f"document.querySelector('input[name=key]').value = '{key}'")
                await tab.run("document.querySelector('footer button').click()")
                selector = "p.message.bad" if name == "wrong key" else "footer select"
                await tab.until(f"document.querySelector('{selector}') !== null")
                found[name] = await findings(tab)
    assert not any(found.values()), found


@browser
async def test_on_a_phone_the_failures_are_visible_and_a_keyboard_reaches_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admin.html.REFRESH", 0.2)
    async with chromium() as tab, page(tmp_path, MANY) as url:
        await tab.size(390, 800)
        await tab.open(f"{url}/status")
        for label in ("app", "gateway", "token", "connection", "vendor"):
            box = await tab.run(
                f"(() => {{ const box = document.querySelector('#route-vendor td[data-label={label}]')"
                ".getBoundingClientRect(); return [box.left, box.right, box.width, box.height]; })()"
            )
            assert box[0] >= 0
            assert box[1] <= 390
            assert box[2] > 0
            assert box[3] > 0
        await tab.size(800, 800)
        await tab.run("document.getElementById('routes-table').focus()")
        assert await tab.run("document.activeElement.id") == "routes-table"
        await tab.run("window.before = document.getElementById('routes-table')")
        await tab.until("document.getElementById('routes-table') !== window.before")
        assert await tab.run("document.activeElement.id") == "routes-table", "a refresh does not take the focus away"
