"""A session of the status page ends half an hour after its last use, here and in the browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.access import hash_key
from gateway.admin.guard import COOKIE, LIFETIME, Guard, Refused
from tests.kit.gateway import one_route, running
from tests.kit.seen import ADMIN_KEY, admin_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.cookies import SimpleCookie

REFRESHES = [("/status", {"X-Refresh": "1"}), ("/status?refresh", {})]


class Watch:
    """A clock for sessions."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entered(clock: Watch) -> tuple[Guard, str]:
    guard = Guard(clock)
    guard.use([hash_key(ADMIN_KEY)])
    return guard, guard.enter(ADMIN_KEY, None)


def test_each_use_extends_a_session_and_looking_does_not() -> None:
    clock = Watch()
    guard, cookie = entered(clock)
    for _ in range(3):
        clock.now += LIFETIME - 1
        assert guard.session(cookie) is not None
    clock.now += LIFETIME - 1
    assert guard.session(cookie, use=False) is not None
    clock.now += 1
    assert guard.session(cookie, use=False) is None
    with pytest.raises(Refused):
        guard.judge({"Sec-Fetch-Site": "same-origin"}, cookie, "", None)


def test_an_action_is_a_use() -> None:
    clock = Watch()
    guard, cookie = entered(clock)
    session = guard.session(cookie)
    assert session is not None
    clock.now += LIFETIME - 1
    guard.judge({"Sec-Fetch-Site": "same-origin"}, cookie, session.csrf, None)
    clock.now += LIFETIME - 1
    assert guard.session(cookie, use=False) is session


async def enter(url: str) -> str:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
        browser.post(f"{url}/status/enter", data={"key": ADMIN_KEY}, allow_redirects=False) as answer,
    ):
        assert answer.status == 303
        return answer.cookies[COOKIE].value


async def look(url: str, path: str, cookie: str, fields: Mapping[str, str]) -> tuple[SimpleCookie, str]:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
        browser.get(f"{url}{path}", headers={**fields, "Cookie": f"{COOKIE}={cookie}"}) as answer,
    ):
        assert answer.status == 200
        return answer.cookies, await answer.text()


async def test_the_browser_keeps_the_cookie_of_a_session_in_use() -> None:
    async with running(one_route(1)) as it, admin_port(it) as url:
        cookie = await enter(url)
        for _ in range(2):
            cookies, text = await look(url, "/status", cookie, {})
            kept = cookies[COOKIE]
            assert (kept.value, kept["max-age"], kept["samesite"]) == (cookie, str(int(LIFETIME)), "Strict")
            assert kept["httponly"]
            assert "Lock" in text
        stranger, _ = await look(url, "/status", "nobody", {})
    assert not stranger


@pytest.mark.parametrize(("path", "fields"), REFRESHES, ids=["by the script", "without JavaScript"])
async def test_a_refresh_of_an_open_page_does_not_extend_its_session(path: str, fields: dict[str, str]) -> None:
    async with running(one_route(1)) as it, admin_port(it) as url:
        cookie = await enter(url)
        cookies, text = await look(url, path, cookie, fields)
    assert not cookies
    assert "Lock" in text


async def test_without_javascript_the_page_reloads_itself_as_a_refresh() -> None:
    """Also the page that answers a wrong key, which is no page that can be reloaded."""
    async with running(one_route(1)) as it, admin_port(it) as url:
        _, page = await look(url, "/status", "", {})
        async with (
            aiohttp.ClientSession() as browser,
            browser.post(
                f"{url}/status/enter", data={"key": "gp_CANARY-wrong"}, headers={"Accept": "text/html"}
            ) as answer,
        ):
            refused = await answer.text()
    reload = re.compile(r'<noscript><meta http-equiv="refresh" content="10; url=([^"]+)"></noscript>')
    assert reload.findall(page) == ["status?refresh"]
    assert reload.findall(refused) == ["../status?refresh"]
