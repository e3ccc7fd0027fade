"""A vendor whose token endpoint is fine and whose API refuses or fails: what the operator sees of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.admin.vendor_refusals import REFUSALS
from gateway.commands.status import status as status_command
from tests.kit.emulation import ask, emulated, warm
from tests.kit.gateway import one_route, running
from tests.kit.seen import admin_port
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from tests.kit.gateway import Running

UNAUTHORIZED = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
SERVER_ERROR = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"


async def call(it: Running, times: int = 1) -> list[int]:
    app = await connect(it.address)
    statuses = []
    for _ in range(times):
        await app.send(get("/v/a"))
        statuses.append((await app.message()).status)
    app.close()
    return statuses


async def data(url: str, page: str = "status.json") -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as browser, browser.get(f"{url}/{page}") as answer:
        return answer.status, await answer.json()


def requests(it: Running) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, it.log.splitlines()) if event["event"] == "request"]


async def test_fourteen_refused_calls_are_seen_everywhere(capfd: pytest.CaptureFixture[str]) -> None:
    async with emulated() as (it, sandbox), admin_port(it) as url:
        await warm(it)
        await sandbox.idfy.set(api_fault="401", rate_limit=False)
        assert {(await ask(it, "idfy"))[0] for _ in range(14)} == {401}
        page = (await data(url))[1]
        [idfy] = [each for each in page["credentials"] if each["name"] == "idfy"]
        [row] = [each for each in page["routes"] if each["name"] == "idfy"]
        ready, body = await data(url, "readyz")
        result = await run_status(url)
        events = [event for event in requests(it) if event["route"] == "idfy"]
    host = sandbox.idfy.base_url.removeprefix("http://")
    assert idfy["state"] == "refused_by_vendor"
    assert row["errors"] == {"app": 0, "gateway": 0, "token_endpoint": 0, "upstream": 0, "vendor": 14}
    assert f"{host} refused the token 14 times in a row (route idfy)" in idfy["reason"]
    assert "the vendor's API refuses them" in idfy["advice"]
    assert ready == 200, "one vendor's refusals must not take the gateway out of service"
    assert {each["name"]: each["state"] for each in body["credentials"]}["idfy"] == "refused_by_vendor"
    assert (result.exit_code, "refused by the vendor" in result.output) == (1, True)
    assert {(event["level"], event["code"]) for event in events} == {("warning", None)}
    assert all(event["reason"].startswith(f"{host} refused the token with 401") for event in events)
    assert capfd.readouterr().err == ""


async def run_status(url: str) -> Any:
    import asyncio

    return await asyncio.to_thread(CliRunner().invoke, status_command, ["--url", url])


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([UNAUTHORIZED] * (REFUSALS - 1), "static"),
        ([UNAUTHORIZED] * REFUSALS, "refused_by_vendor"),
        ([ok(), *[UNAUTHORIZED] * REFUSALS], "refused_by_vendor"),
        ([*[UNAUTHORIZED] * REFUSALS, ok()], "static"),
        ([UNAUTHORIZED, UNAUTHORIZED, ok(), UNAUTHORIZED, UNAUTHORIZED], "static"),
        ([UNAUTHORIZED, SERVER_ERROR, UNAUTHORIZED, SERVER_ERROR, UNAUTHORIZED], "refused_by_vendor"),
        ([SERVER_ERROR] * 5, "static"),
    ],
    ids=["too few", "all", "once fine", "fine again", "some paths only", "and failing", "only failing"],
)
async def test_only_refusals_in_a_row_are_a_vendor_that_refuses(answers: list[bytes], state: str) -> None:
    """With a static key: there is no token endpoint that could have shown anything."""
    async with vendor(answering(*answers)) as there, running(one_route(there.port)) as it, admin_port(it) as url:
        await call(it, len(answers))
        [credential] = (await data(url))[1]["credentials"]
    assert credential["state"] == state


async def test_what_an_unconfigured_401_says_is_the_end_users_business() -> None:
    """`authorization: pass` and a plain 401: the end user's own token may be meant."""
    config = one_route(1, authorization="pass", header="X-Key")
    async with vendor(answering(*[UNAUTHORIZED] * 5)) as there:
        config["routes"]["v"]["upstream"] = f"http://127.0.0.1:{there.port}"
        async with running(config) as it, admin_port(it) as url:
            await call(it, 5)
            [credential] = (await data(url))[1]["credentials"]
            events = requests(it)
    assert credential["state"] == "static"
    assert {(event["level"], event["reason"]) for event in events} == {("info", None)}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_vendors_server_error_is_a_warning_that_names_its_host(status: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    async with vendor(answering(answer)) as there, running(one_route(there.port)) as it:
        await call(it)
        [event] = requests(it)
    assert (event["level"], event["code"]) == ("warning", None)
    assert event["reason"] == f"127.0.0.1:{there.port} answered {status}"


@pytest.mark.parametrize("status", [200, 301, 403, 404, 429])
async def test_any_other_answer_of_the_vendor_is_no_failure(status: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    async with vendor(answering(answer)) as there, running(one_route(there.port)) as it:
        await call(it)
        [event] = requests(it)
    assert (event["level"], event["reason"]) == ("info", None)


async def test_a_vendor_that_cannot_be_reached_is_named() -> None:
    async with vendor(answering(ok())) as there:
        port = there.port
    async with running(one_route(port)) as it:
        assert await call(it) == [502]
        [event] = requests(it)
    assert event["reason"] == f"127.0.0.1:{port}: connection refused"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems refuse a broadcast address otherwise")
async def test_a_vendor_without_a_route_to_it_is_named_with_the_system_s_reason() -> None:
    """TCP cannot reach a broadcast address, so Linux says so at once."""
    config = one_route(9)
    config["routes"]["v"]["upstream"] = "http://127.255.255.255:9"
    async with running(config) as it:
        assert await call(it) == [502]
        [event] = requests(it)
    assert event["reason"] == "127.255.255.255:9: network is unreachable"


async def test_a_token_endpoint_that_fails_is_named() -> None:
    async with emulated() as (it, sandbox):
        await sandbox.idfy.set(token_fault="500")
        await warm(it)
        assert (await ask(it, "idfy"))[0] == 503
        [event] = [event for event in requests(it) if event["route"] == "idfy"]
    host = sandbox.idfy.token_url.removeprefix("http://").partition("/")[0]
    assert event["reason"].startswith(f"{host}: ")
