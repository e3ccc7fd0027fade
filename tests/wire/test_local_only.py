"""A gateway on loopback without clients: programs on this machine may call, pages, other names and proxies may not."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, answering, connect, ok, vendor

LOCAL = "127.0.0.1:8080"


async def ask(*fields: str, host: str = LOCAL, target: str = "/v/a", **config: Any) -> tuple[Message, int]:
    """Send a request with these fields; return the answer and how many requests reached the vendor."""
    async with (
        vendor(answering(ok())) as upstream,
        running({"clients": [], **one_route(upstream.port), **config}) as it,
    ):
        app = await connect(it.address)
        head = "\r\n".join((f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", ""))
        await app.send(head.encode("latin-1"))
        return await app.message(), upstream.connections


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "127.0.0.1", "127.9.9.9:1", "localhost", "LOCALHOST:8080", "localhost.:8080", "app.localhost",
     "[::1]:8080", "[::1]", "[::ffff:127.0.0.1]:80"],
)  # fmt: skip
async def test_a_program_on_this_machine_may_call(host: str) -> None:
    answer, reached = await ask(host=host)
    assert (answer.status, reached) == (200, 1)


@pytest.mark.parametrize(
    "host",
    ["rebind.evil.example", "rebind.evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "evillocalhost",
     "192.168.1.7:8080", "[fe80::1]", "0.0.0.0:8080", "2130706433", "0x7f.1", "gatepass"],
)  # fmt: skip
async def test_another_name_is_refused(host: str) -> None:
    """DNS rebinding: the browser sends what the page asked for, to an address that is ours."""
    answer, reached = await ask(host=host)
    assert (answer.status, reached) == (403, 0)
    problem = json.loads(answer.body)
    assert problem["code"] == "client_forbidden"
    assert "access: open" in problem["detail"]
    assert "clients" in problem["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: https://evil.example",), ("Origin: null",), ("origin: http://localhost.evil.example",),
        ("Sec-Fetch-Site: cross-site",), ("SEC-FETCH-SITE: Cross-Site",), ("Referer: https://evil.example/a?b",),
        ("Origin: http://127.0.0.1@evil.example",), ("Origin: http://localhost:3000", "Sec-Fetch-Site: cross-site"),
        ("Origin: file://",), ("Origin: chrome-extension://abcdef",),
    ],
    ids=str,
)  # fmt: skip
async def test_a_web_page_of_another_site_is_refused(fields: tuple[str, ...]) -> None:
    answer, reached = await ask(*fields)
    assert (answer.status, reached) == (403, 0)


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 203.0.113.7", "x-forwarded-for:203.0.113.7", "X-Forwarded-Proto: https", "Via: 1.1 caddy",
        "Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7", "CF-Connecting-IP: 203.0.113.7",
        "True-Client-IP: 203.0.113.7", "X-Forwarded-Host: gw.example", "Client-IP: 203.0.113.7", "Client-Cert: :AA==:",
    ],
)  # fmt: skip
async def test_what_comes_through_a_proxy_is_refused(field: str) -> None:
    answer, reached = await ask(field)
    assert (answer.status, reached) == (403, 0)


async def test_an_absolute_target_is_judged_as_host_is() -> None:
    assert (await ask(target="http://rebind.evil.example/v/a"))[0].status == 403
    assert (await ask(target="http://localhost:8080/v/a"))[0].status == 200


@pytest.mark.parametrize(
    "fields",
    [
        ("Sec-Fetch-Site: none",), ("Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"),
        ("Origin: http://127.0.0.1:8080", "Sec-Fetch-Site: same-origin"), ("Referer: http://localhost:8080/v/docs",),
    ],
    ids=str,
)  # fmt: skip
async def test_a_page_on_this_machine_may_call(fields: tuple[str, ...]) -> None:
    answer, reached = await ask(*fields)
    assert (answer.status, reached) == (200, 1)


BAD = ("Origin: https://evil.example", "Via: 1.1 caddy")


async def test_who_writes_that_access_is_open_means_everybody() -> None:
    answer, reached = await ask(*BAD, host="gateway.example", access="open")
    assert (answer.status, reached) == (200, 1)


async def test_where_clients_are_known_the_key_decides() -> None:
    key = "gp_CANARY-5f1d2c-do-not-print-web"

    clients = [{"name": "web", "key_sha256": hashlib.sha256(key.encode()).hexdigest()}]
    answer, _ = await ask(*BAD, f"X-Gatepass-Key: {key}", host="gateway.example", clients=clients)
    assert answer.status == 200


async def test_a_configured_name_of_a_route_is_as_good_as_localhost() -> None:
    async with vendor(answering(ok())) as upstream:
        route = one_route(upstream.port, hosts=["orders.gatepass.internal"])
        async with running({"clients": [], **route}) as it:
            app = await connect(it.address)
            await app.send(b"GET /a HTTP/1.1\r\nHost: orders.gatepass.internal:8080\r\n\r\n")
            assert (await app.message()).status == 200
