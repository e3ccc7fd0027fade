"""Unknown callers cannot tell the paths of routes from others; what is rejected is in the log and in the counts."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from gateway.proxy.exchange import UNKNOWN_AFTER
from tests.behaviour.test_access import BATCH, KEY, WEB, WRONG, ask, client, config, events, problem
from tests.kit.gateway import running
from tests.kit.wire import Message, answering, connect, ok, vendor

PLACES = {
    "a route": "/v/a",
    "its prefix": "/v",
    "what it denies": "/v/denied",
    "a route that passes Authorization": "/pass/a",
    "a route for GET": "/get/a",
    "no route": "/nowhere/a",
    "the root": "/",
    "nearly a route": "/V/a",
}


def everywhere(port: int, *clients: dict[str, Any], **more: Any) -> dict[str, Any]:
    whole = config(port, *clients, **more)
    route = whole["routes"]["v"]
    whole["routes"] = {
        "v": {**route, "deny": ["/denied"]},
        "pass": {**route, "authorization": "pass", "header": "X-Api-Key"},
        "get": {**route, "methods": ["GET"]},
    }
    return whole


def shown(answer: Message) -> tuple[object, ...]:
    """All that a caller sees, but for the date and the request's id."""
    fields = tuple(sorted((name, value) for name, value in answer.headers if name not in {b"Date", b"X-Request-Id"}))
    return answer.start, fields, re.sub(rb'"request_id":"[^"]*"', b"", answer.body)


REQUESTS = {
    "GET": "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n",
    "HTTP/1.0": "GET {} HTTP/1.0\r\n{}\r\n",
    "POST": "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{}\r\nhi",
    "a body that comes later": "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n{}\r\nhi",
    "Expect": "PUT {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n{}\r\n",
    "TRACE": "TRACE {} HTTP/1.1\r\nHost: x\r\n{}\r\n",
    "PURGE": "PURGE {} HTTP/1.1\r\nHost: x\r\n{}\r\n",
    "an upgrade": "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n{}\r\n",
    "a huge body": "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n{}\r\n",
    "not HTTP": "GET {} HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n{}\r\n",
}


@pytest.mark.parametrize("request_text", REQUESTS.values(), ids=REQUESTS)
async def test_an_unknown_caller_hears_the_same_at_every_path(request_text: str) -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(everywhere(upstream.port)) as it:
        for fields in WRONG.values():
            heard = {}
            for place, path in PLACES.items():
                app = await connect(it.address)
                began = time.monotonic()
                lines = "".join(f"{line}\r\n" for line in fields)
                await app.send(request_text.format(path, lines).encode("latin-1"))
                answer = await app.message()
                if answer.status == 401:
                    assert time.monotonic() - began >= UNKNOWN_AFTER - 0.001, place
                heard[place] = shown(answer)
                app.close()
            assert len(set(heard.values())) == 1, heard
            assert b'"route":null' in answer.body
    assert seen == []


async def test_a_known_client_hears_that_there_is_no_such_route() -> None:
    async with vendor(answering(ok())) as upstream, running(everywhere(upstream.port)) as it:
        for fields in ([KEY], [f"Authorization: Bearer {WEB}"]):
            answer = await ask(it, *fields, path="/nowhere/a")
            assert (answer.status, problem(answer)["code"]) == (404, "route_not_found")
        assert (await ask(it, KEY)).status == 200, "the connection and the gateway go on"


async def test_where_access_is_open_everybody_hears_that_there_is_no_such_route() -> None:
    async with vendor(answering(ok())) as upstream:
        open_to_all = {**everywhere(upstream.port), "clients": [], "access": "open"}
        async with running(open_to_all) as it:
            assert (await ask(it, path="/nowhere/a")).status == 404


async def test_a_client_on_a_route_that_it_may_not_use_is_named_in_the_log_and_counted() -> None:
    async with vendor(answering(ok())) as upstream:
        whole = everywhere(upstream.port, client(routes=["pass"]), client("batch", BATCH))
        async with running(whole) as it:
            assert (await ask(it, KEY)).status == 403
            [event] = events(it, "request")
            assert (event["client"], event["route"], event["code"]) == ("web", "v", "client_forbidden")
            counted = it.metric("gatepass_client_requests_total", client="web", route="v", outcome="refused")
            assert counted == 1


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/get/a", "DELETE", "method_not_allowed"),
        ("/v/denied", "GET", "path_refused"),
        ("/v/%2Fdenied", "GET", "path_refused"),
        ("/v/../x", "GET", "path_refused"),
    ],
)
async def test_a_call_that_a_route_rejects_is_a_warning_which_is_written_without_an_access_log_too(
    path: str, method: str, code: str
) -> None:
    async with vendor(answering(ok())) as upstream, running(everywhere(upstream.port)) as it:
        await ask(it, KEY, path=path, method=method)
        await ask(it, KEY)
        [event] = [each for each in events(it, "request") if each["level"] == "warning"]
        assert (event["code"], event["method"]) == (code, method)
        assert "denied" not in json.dumps(event["reason"]) or path not in event["reason"]
        assert event["client"] == (None if "%" in path or ".." in path else "web")
