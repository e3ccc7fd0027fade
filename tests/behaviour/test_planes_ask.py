"""Planes that ask: which questions get a token, and how the others are answered."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin import html
from gateway.admin.overview import Overview
from gateway.commands.status import show
from tests.kit.gateway import CANARY, running
from tests.kit.planes import KEY, WEB, ask, asked_gateway, client, plane_at, question

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.wire import Message


def events(log: str, name: str) -> list[dict[str, Any]]:
    return [event for line in log.splitlines() if (event := json.loads(line))["event"] == name]


def code(answer: Message) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


async def test_a_question_is_answered_with_the_injected_field_and_its_generation(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)) as it:
        answer = await ask(tmp_path, "/ask/v/v/x?a=b", KEY, "X-Request-Id: r1")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.one("Authorization") == f"Bearer {CANARY}".encode()
        assert answer.one("Cache-Control") == b"no-store"
        assert answer.one("X-Gatepass-Generation").startswith(b"1-")
        assert answer.one("X-Request-Id") == b"r1"
        assert it.metric("gatepass_plane_questions_total", plane="edge", route="v", outcome="token") == 1
        assert it.metric("gatepass_plane_last_question_timestamp_seconds", plane="edge") > 0
        assert it.metric("gatepass_client_billed_calls_total", client="web", route="v") == 1


async def test_a_route_with_two_tokens_is_answered_with_both_or_not_at_all(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path, inject=[
        {"header": "x-a", "credential": "key", "format": "{token}"},
        {"header": "x-b", "credential": "key", "format": "B {token}"},
    ])  # fmt: skip
    del config["routes"]["v"]["credential"]
    async with running(config):
        answer = await ask(tmp_path, "/ask/v/v/x", KEY)
        assert (answer.one("x-a"), answer.one("x-b")) == (CANARY.encode(), f"B {CANARY}".encode())
        assert answer.one("X-Gatepass-Generation").count(b".") == 1


async def test_one_connection_asks_many_times(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        plane = await plane_at(tmp_path)
        await plane.send(question("/ask/v/v/x", KEY) * 20)
        assert [(await plane.message()).status for _ in range(20)] == [200] * 20


FORWARDED = {"request": "x-forwarded"}
ORIGINAL = {"request": "x-original"}
SOURCES: dict[str, tuple[dict[str, str], str, list[str], str]] = {
    "the path": ({}, "/ask/v/v/x", [], "POST"),
    "Caddy and Traefik": (FORWARDED, "/ask/v", ["X-Forwarded-Method: POST", "X-Forwarded-Uri: /v/x?q=1"], "GET"),
    "with a query, which Caddy leaves": (
        FORWARDED, "/ask/v?q=1", ["X-Forwarded-Method: POST", "X-Forwarded-Uri: /v/x"], "GET",
    ),
    "nginx": (ORIGINAL, "/ask/v", ["X-Original-Method: POST", "X-Original-URI: /v/x"], "GET"),
    "nginx, with what the app made up": (
        ORIGINAL, "/ask/v",
        ["X-Original-Method: POST", "X-Original-URI: /v/x", "X-Forwarded-Uri: /v/denied", "X-Forwarded-Method: PUT"],
        "GET",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plane", "target", "fields", "method"), SOURCES.values(), ids=SOURCES)
async def test_rules_apply_to_the_method_and_path_in_the_question(
    plane: dict[str, str], target: str, fields: list[str], method: str, tmp_path: Path
) -> None:
    only_this = client(allow=["POST /v/x"])
    async with running(asked_gateway(tmp_path, only_this, ask=plane)):
        assert (await ask(tmp_path, target, KEY, *fields, method=method)).status == 200
    nothing_of_it = client(deny=["POST /v/x"])
    async with running(asked_gateway(tmp_path, nothing_of_it, ask=plane)):
        assert (await ask(tmp_path, target, KEY, *fields, method=method)).status == 403


FIELDS_OF_CADDY = ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /v/x"]
URI = "X-Original-URI: /v/x"
METHOD = "X-Original-Method: GET"
Unclear = tuple[dict[str, str], str, list[str], str, int]
UNCLEAR: dict[str, Unclear] = {
    "nothing": (ORIGINAL, "/ask/v", [], "GET", 400),
    "only the method": (ORIGINAL, "/ask/v", [METHOD], "GET", 400),
    "only the path": (ORIGINAL, "/ask/v", [URI], "GET", 400),
    "two paths": (ORIGINAL, "/ask/v", [METHOD, URI, "X-Original-URI: /v/y"], "GET", 400),
    "two methods": (ORIGINAL, "/ask/v", [METHOD, "X-Original-Method: POST", URI], "GET", 400),
    "an empty path": (ORIGINAL, "/ask/v", [METHOD, "X-Original-URI:"], "GET", 400),
    "a method that is none": (ORIGINAL, "/ask/v", ["X-Original-Method: GETT", URI], "GET", 400),
    "the fields of another proxy": (ORIGINAL, "/ask/v", FIELDS_OF_CADDY, "GET", 400),
    "a path behind the route": (ORIGINAL, "/ask/v/v/x", [METHOD, URI], "GET", 400),
    "the app's own method": (ORIGINAL, "/ask/v", [METHOD, URI], "POST", 400),
    "another path": ({}, "/other", [], "GET", 404),
    "no prefix": ({}, "/ask/v/x", [], "GET", 404),
    "half of a prefix": ({}, "/ask/v/vv", [], "GET", 404),
    "dot segments": ({}, "/ask/v/v/a/../b", [], "GET", 400),
    "dot segments out of the question": ({}, "/ask/v/../other/v", [], "GET", 400),
    "an empty segment": ({}, "/ask/v/v//b", [], "GET", 400),
    "a fragment": (ORIGINAL, "/ask/v", [METHOD, "X-Original-URI: /v/x#y"], "GET", 400),
    "not a path": (ORIGINAL, "/ask/v", [METHOD, "X-Original-URI: v/x"], "GET", 400),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCLEAR.values(), ids=UNCLEAR)
async def test_a_question_without_exactly_one_method_and_path_gets_no_token(case: Unclear, tmp_path: Path) -> None:
    plane, target, fields, method, status = case
    async with running(asked_gateway(tmp_path, ask=plane)) as it:
        answer = await ask(tmp_path, target, KEY, *fields, method=method)
        assert answer.status == status
        assert not answer.all("Authorization")
        assert it.metric("gatepass_client_billed_calls_total", client="web", route="v") == 0


async def test_a_question_with_a_body_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Nginx would send the length of the app's body without the body, so the shipped file sets `Content-Length ""`."""
    async with running(asked_gateway(tmp_path)) as it:
        answer = await ask(tmp_path, "/ask/v/v/x", KEY, "Content-Length: 3000000")
        assert (answer.status, answer.one("Connection")) == (400, b"close")
        assert "Content-Length" in events(it.log, "question_refused")[0]["reason"]
        assert (await ask(tmp_path, "/ask/v/v/x", KEY, "Content-Length: 0")).status == 200


async def test_paths_without_the_prefix_are_checked_as_the_vendor_gets_them(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path, client(allow=["GET /v/x"]), ask={"prefix": False}, deny=["/denied/**"])
    async with running(config):
        assert (await ask(tmp_path, "/ask/v/x", KEY)).status == 200
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 403
    async with running(asked_gateway(tmp_path, ask={"prefix": False}, deny=["/denied/**"])):
        assert (await ask(tmp_path, "/ask/v/denied/x", KEY)).status == 400


# -------------------------------------------------------------------------------------------------------------- status

REFUSED = {
    "no key": (client(), [], 401, "client_unknown"),
    "a wrong key": (client(), ["X-Gatepass-Key: gp_CANARY-no"], 401, "client_unknown"),
    "another route": (client(routes=["w"]), [KEY], 403, "client_forbidden"),
    "a rule": (client(deny=["* /v/x"]), [KEY], 403, "client_forbidden"),
    "a bearer": (client(deny=["* /v/x"]), [f"Authorization: Bearer {WEB}"], 403, "client_forbidden"),
    "an address that nobody tells": (
        client(addresses=["0.0.0.0/0"]), [KEY, "X-Forwarded-For: 10.0.0.1"], 403, "client_forbidden",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("app", "fields", "status", "word"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_has_the_status_of_the_data_port_and_no_token(
    app: dict[str, Any], fields: list[str], status: int, word: str, tmp_path: Path
) -> None:
    config = asked_gateway(tmp_path, app)
    config["routes"]["w"] = {**config["routes"]["v"]}
    async with running(config) as it:
        answer = await ask(tmp_path, "/ask/v/v/x", *fields)
        assert (answer.status, code(answer)) == (status, word)
        assert answer.one("Cache-Control") == b"no-store"
        assert not answer.all("Authorization")
        assert (answer.all("WWW-Authenticate") != []) == (status == 401)
        assert it.metric("gatepass_plane_questions_total", plane="edge", route="v", outcome=word) == 1


async def test_rate_and_budget_are_counted_when_a_question_is_answered(tmp_path: Path) -> None:
    app = client(budgets=[{"route": "v", "per": "day", "hard": 2}])
    async with running(asked_gateway(tmp_path, app)) as it:
        statuses = [(await ask(tmp_path, "/ask/v/v/x", KEY)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 2
    async with running(asked_gateway(tmp_path, client(limits=[{"rate": 1, "burst": 1}]))):
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200
        answer = await ask(tmp_path, "/ask/v/v/x", KEY)
        assert (answer.status, answer.one("Retry-After")) == (429, b"1")


async def test_a_denied_question_costs_no_call(tmp_path: Path) -> None:
    app = client(deny=["* /v/no"], budgets=[{"route": "v", "per": "day", "hard": 1}])
    async with running(asked_gateway(tmp_path, app)):
        assert (await ask(tmp_path, "/ask/v/v/no", KEY)).status == 403
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200


async def test_an_address_counts_only_if_the_plane_is_configured_to_send_it(tmp_path: Path) -> None:
    """The plane adds the last entry; entries to its left, which the app may have written, do not count."""
    config = asked_gateway(tmp_path, client(addresses=["10.1.0.0/16"]), ask={"addresses": True})
    async with running(config):
        for value, status in {"10.1.2.3": 200, "10.1.2.3, 10.2.0.1": 403, "10.2.0.1, 10.1.2.3": 200, "x": 403}.items():
            assert (await ask(tmp_path, "/ask/v/v/x", KEY, f"X-Forwarded-For: {value}")).status == status, value
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 403
    async with running({**config, "trusted_proxies": ["10.2.0.0/16"]}):
        answer = await ask(tmp_path, "/ask/v/v/x", KEY, "X-Forwarded-For: 10.1.2.3, 10.2.0.1")
        assert answer.status == 200


async def test_a_token_endpoint_of_the_vendor_is_not_reached_through_a_plane(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    request = {"url": "http://127.0.0.1:9/oauth/token", "form": {"client_secret": CANARY}}
    config["credentials"]["key"] = {"grant": {"request": request, "response": {"token": "t"}}, "keep_warm": "never"}
    async with running(config):
        for path in ("/oauth/token", "/oauth/token/", "/OAuth/Token"):
            answer = await ask(tmp_path, f"/ask/v/v{path}", KEY, method="POST")
            assert answer.status in {400, 405}, path


async def test_open_access_needs_no_key(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    del config["clients"]
    async with running({**config, "access": "open"}):
        assert (await ask(tmp_path, "/ask/v/v/x")).status == 200


# ---------------------------------------------------------------------------------------------------------- who may ask


async def test_a_connection_of_another_user_gets_no_token(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path, ask={"uid": os.getuid() + 1})) as it:
        answer = await ask(tmp_path, "/ask/v/v/x", KEY)
        assert (answer.status, code(answer)) == (403, "client_forbidden")
        assert f"uid {os.getuid()}" in events(it.log, "question_refused")[0]["reason"]


async def test_a_plane_gets_tokens_of_its_own_routes_only(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    config["routes"]["w"] = {**config["routes"]["v"], "prefix": "/w"}
    async with running(config):
        for target in ("/ask/w/w/x", "/ask/nothing/x", "/ask/", "/ask/v%2f/v/x"):
            answer = await ask(tmp_path, target, KEY)
            assert answer.status == 403, target


async def test_neither_the_data_port_nor_the_admin_port_answers_questions(tmp_path: Path) -> None:
    from tests.kit.wire import connect, get

    async with running(asked_gateway(tmp_path)) as it:
        app = await connect(it.address)
        await app.send(get("/ask/v/v/x", KEY))
        answer = await app.message()
        assert answer.status == 404
        assert not answer.all("Authorization")


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"GET /ask/v HTTP/2.0\r\n\r\n", b"GET /ask/v/v/x HTTP/1.1\r\n\r\n"])
async def test_malformed_requests_are_refused_and_the_connection_is_closed(data: bytes, tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        plane = await plane_at(tmp_path)
        await plane.send(data)
        assert (await plane.message()).status == 400
        assert await plane.at_end()


# ------------------------------------------------------------------------------------------------------------ shown


async def test_the_status_shows_when_each_plane_last_asked_and_how_many_questions_were_refused(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    push = {"kind": "envoy-sds", "directory": str(tmp_path / "sds"), "credentials": ["key"]}
    config["planes"]["push"] = {"envoy": push}
    (tmp_path / "sds").mkdir(mode=0o750)
    async with running(config) as it:
        it_shows = Overview(metrics=it.gateway.metrics, status=list, state=lambda: "ready", data_address=lambda: None)
        it_shows.use(it.gateway.config)
        assert it_shows.data()["planes"][0]["asked"] is None
        await ask(tmp_path, "/ask/v/v/x", KEY)
        await ask(tmp_path, "/ask/v/v/x")
        await ask(tmp_path, "/ask/v/v/x", KEY, "X-Gatepass-Refused: 1-x")
        asks, gets = it_shows.data()["planes"]
        assert (asks["name"], asks["of"], asks["refusals"], asks["refused_tokens"]) == ("edge", ["v"], 1, 1)
        assert abs(asks["asked"] - time.time()) < 60
        assert (gets["name"], gets["kind"], gets["of"], gets["asked"]) == ("envoy", "push", ["key"], None)
        page = html.page(it_shows.data(), session=None, locked=True)
        assert "asks for v" in page
        assert "gets key" in page
        show(it_shows.data())


async def test_without_planes_the_page_has_no_table_of_them(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    del config["planes"]
    async with running(config) as it:
        it_shows = Overview(metrics=it.gateway.metrics, status=list, state=lambda: "ready", data_address=lambda: None)
        it_shows.use(it.gateway.config)
        assert "Other proxies" not in html.page(it_shows.data(), session=None, locked=True)
