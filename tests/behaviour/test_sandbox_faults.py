"""Each switch of a token endpoint or an API does what it says, on the wire."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from pydantic import ValidationError

from gateway.sandbox import Sandbox
from tests.kit.asking import ask, bearer, documented
from tests.kit.clock import FakeClock
from tests.kit.rest import until
from tests.kit.stall import unless_stalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox.vendor import Vendor


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
        yield client


@pytest.fixture
def uqudo(sandbox: Sandbox) -> Vendor:
    return sandbox.uqudo


async def raw(session: aiohttp.ClientSession, sandbox: Sandbox) -> tuple[int, bytes, str]:
    request = documented(sandbox, "uqudo")
    async with session.request(url=request.url, allow_redirects=False, **request.arguments) as response:
        return response.status, await response.read(), response.content_type


async def test_a_refused_port_refuses_and_comes_back_as_the_same_port(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    url = uqudo.token_url
    await uqudo.set(token_fault="refuse")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", uqudo.token_listener.port)
    await uqudo.set(token_fault="none")
    assert uqudo.token_url == url
    assert (await ask(session, documented(sandbox, "uqudo")))[0] == 200


async def test_a_refused_port_takes_its_open_connections_with_it(uqudo: Vendor) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", uqudo.token_listener.port)
    server = uqudo.token_listener._runner.server
    await until(lambda: server and server.connections)  # until its side has accepted
    await uqudo.set(token_fault="refuse")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()


async def test_the_api_lives_on_while_the_token_port_refuses(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    headers = await bearer(session, sandbox, "uqudo")
    await uqudo.set(token_fault="refuse")
    async with session.get(uqudo.base_url + "/sandbox/echo", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("fault", ["reset", "cut"])
async def test_a_connection_breaks_off(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, fault: str
) -> None:
    await uqudo.set(token_fault=fault)
    with pytest.raises(aiohttp.ClientOSError if fault == "reset" else aiohttp.ClientPayloadError) as caught:
        await raw(session, sandbox)
    assert "reset by peer" in str(caught.value)


async def test_a_hanging_endpoint_says_nothing(sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor) -> None:
    await uqudo.set(token_fault="hang")
    waiting = asyncio.create_task(raw(session, sandbox))
    await until(lambda: uqudo.counters.token_requests == 1)
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    waiting.cancel()


@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", 500), ("503", 503), ("418", 418), *((f"invalid_client_{code}", code) for code in (400, 401, 403))],
    ids=str,
)
async def test_a_fault_that_is_a_status(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, fault: str, status: int
) -> None:
    await uqudo.set(token_fault=fault)
    got, answer = await ask(session, documented(sandbox, "uqudo"))
    assert got == status
    assert (answer["error"] == "invalid_client") == fault.startswith("invalid_client")


@pytest.mark.parametrize("after", ["3", "Wed, 21 Oct 2026 07:28:00 GMT", None], ids=["seconds", "date", "absent"])
async def test_a_429_asks_to_wait_in_the_words_that_were_set(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, after: str | None
) -> None:
    await uqudo.set(token_fault="429", retry_after=after)
    request = documented(sandbox, "uqudo")
    async with session.request(url=request.url, **request.arguments) as response:
        assert (response.status, response.headers.get("Retry-After")) == (429, after)


def _json(body: bytes) -> Any:
    return json.loads(body)


@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        ("html", lambda body, kind: kind == "text/html" and b"<html" in b"<html" + body),
        ("empty", lambda body, _: body == b""),
        ("truncated", lambda body, _: body.startswith(b'{"access_token":"') and not body.endswith(b"}")),
        ("not_json", lambda body, _: body.startswith(b"access_token=")),
        ("json_list", lambda body, _: isinstance(_json(body), list)),
        ("oversized", lambda body, _: len(body) == 64 * 1024 + 1 and "access_token" in _json(body)),
        ("error_in_200", lambda body, _: _json(body) == {"error": "temporarily_unavailable"}),
        ("no_token", lambda body, _: "access_token" not in _json(body)),
        ("empty_token", lambda body, _: _json(body)["access_token"] == ""),
        ("number_token", lambda body, _: _json(body)["access_token"] == 42),
        ("list_token", lambda body, _: _json(body)["access_token"] == ["a", "b"]),
        ("crlf_token", lambda body, _: "\r\n" in _json(body)["access_token"]),
        ("non_ascii_token", lambda body, _: not _json(body)["access_token"].isascii()),
        ("mac", lambda body, _: _json(body)["token_type"] == "MAC"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_unusable_answer_comes_with_200(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, fault: str, holds: Any
) -> None:
    await uqudo.set(token_fault=fault)
    status, body, kind = await raw(session, sandbox)
    assert status == 200
    assert holds(body, kind)


async def test_a_redirect_is_counted_when_somebody_follows_it(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    await uqudo.set(token_fault="redirect")
    assert (await raw(session, sandbox))[0] == 302
    assert uqudo.counters.redirects_followed == 0
    request = documented(sandbox, "uqudo")
    async with session.request(url=request.url, **request.arguments) as response:
        assert response.status == 200
    assert uqudo.counters.redirects_followed == 1


@pytest.mark.parametrize(
    ("override", "seen"),
    [
        ({"value": "3600"}, "3600"),
        ({"value": 3600.0}, 3600.0),
        ({"value": -1}, -1),
        ({"value": 1e12}, 1e12),
        ({"value": None}, None),
        ("missing", "absent"),
        (None, 1859),
    ],
    ids=str,
)
async def test_expires_in_says_whatever_was_set(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, override: Any, seen: Any
) -> None:
    await uqudo.set(expires_in=override)
    _, answer = await ask(session, documented(sandbox, "uqudo"))
    assert answer.get("expires_in", "absent") == seen


async def echo(session: aiohttp.ClientSession, vendor: Vendor, headers: dict[str, str]) -> int:
    async with session.get(vendor.base_url + "/sandbox/echo", headers=headers) as response:
        return response.status


async def test_a_short_life_ends_on_time(session: aiohttp.ClientSession) -> None:
    clock = FakeClock()
    async with Sandbox(clock=clock) as sandbox:
        await sandbox.uqudo.set(life=0.3)
        headers = await bearer(session, sandbox, "uqudo")
        await clock.advance(0.29)
        assert await echo(session, sandbox.uqudo, headers) == 200
        await clock.advance(0.02)
        assert await echo(session, sandbox.uqudo, headers) == 401
        assert sandbox.uqudo.counters.api_401s == 1


@unless_stalled
async def test_latency_is_before_the_token_is_born_and_travel_after(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    """A token of 0.2 s that travels 0.25 s arrives dead; one that was thought about for 0.25 s arrives alive."""
    await uqudo.set(life=0.2, latency=0.25, travel=0)
    began = time.monotonic()
    assert await echo(session, uqudo, await bearer(session, sandbox, "uqudo")) == 200
    assert time.monotonic() - began >= 0.24
    await uqudo.set(latency=0, travel=0.25)
    assert await echo(session, uqudo, await bearer(session, sandbox, "uqudo")) == 401


@pytest.mark.parametrize(("which", "alive"), [("all", [401, 401]), ("newest", [200, 401])])
async def test_a_revoked_token_is_dead_at_once(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, which: Any, alive: list[int]
) -> None:
    tokens = [await bearer(session, sandbox, "uqudo") for _ in range(2)]
    assert len(uqudo.revoke(which)) == alive.count(401)
    assert [await echo(session, uqudo, token) for token in tokens] == alive


async def test_the_same_token_comes_again_until_it_dies(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    await uqudo.set(same_token=True, life=60)
    first, second = [await bearer(session, sandbox, "uqudo") for _ in range(2)]
    uqudo.revoke()
    third = await bearer(session, sandbox, "uqudo")
    assert first == second != third


async def test_where_only_one_token_may_live_a_new_one_kills_the_old(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    await uqudo.set(single_active=True)
    tokens = [await bearer(session, sandbox, "uqudo") for _ in range(2)]
    assert [await echo(session, uqudo, token) for token in tokens] == [401, 200]


async def test_a_clock_that_is_off_shows_in_date(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    await uqudo.set(clock_offset=300)
    request = documented(sandbox, "uqudo")
    before = time.time()
    async with session.request(url=request.url, **request.arguments) as response:
        shown = parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert before + 299 <= shown <= time.time() + 301


async def test_a_wrong_switch_changes_nothing(uqudo: Vendor) -> None:
    before = uqudo.switches
    for wrong in ({"lief": 3}, {"life": -1}, {"token_fault": "explode"}, {"life": 5, "api_fault": "99"}):
        with pytest.raises(ValidationError):
            await uqudo.set(**wrong)
    assert uqudo.switches == before


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", aiohttp.ClientOSError),
        ("hang", TimeoutError),
        ("cut", aiohttp.ClientPayloadError),
        ("not_http", aiohttp.ClientError),
    ],
)
async def test_an_api_breaks_as_switched(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, fault: str, error: type[Exception]
) -> None:
    headers = await bearer(session, sandbox, "uqudo")
    await uqudo.set(api_fault=fault)

    async def read() -> None:
        async with session.get(uqudo.base_url + "/sandbox/echo", headers=headers) as response:
            await response.read()

    with pytest.raises(error):
        await asyncio.wait_for(read(), 0.3 if fault == "hang" else 30)


@pytest.mark.parametrize("status", [401, 403, 419, 429, 503])
async def test_an_api_answers_with_the_status_that_was_switched_on(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor, status: int
) -> None:
    headers = await bearer(session, sandbox, "uqudo")
    await uqudo.set(api_fault=str(status))
    assert await echo(session, uqudo, headers) == status
    assert uqudo.counters.api_401s == (status == 401)


async def test_a_slow_api_keeps_its_first_byte_back(
    sandbox: Sandbox, session: aiohttp.ClientSession, uqudo: Vendor
) -> None:
    headers = await bearer(session, sandbox, "uqudo")
    await uqudo.set(api_latency=0.2)
    began = time.monotonic()
    assert await echo(session, uqudo, headers) == 200
    assert time.monotonic() - began >= 0.19
