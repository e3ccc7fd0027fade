"""The ops port over a real socket: what it says, what it refuses, and that it says nothing secret."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.admin import AdminServer
from gateway.commands import look
from gateway.model import Address, CredentialStatus, Secret
from gateway.observe import Metrics, register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

CANARY = "CANARY-admin-token-5b1e"
register(Secret(CANARY))

VALID = CredentialStatus("idfy", "valid", tried=True, fingerprint="3f1c0a2b", life=3600.0, expires_in=3599.1234567)
PENDING = CredentialStatus("uqudo", "pending", tried=False)
IDLE = CredentialStatus("akiba", "idle", tried=False)
DOWN = CredentialStatus("hypersign", "unavailable", tried=True, reason=f"connect failed, Bearer {CANARY}")
STATIC = CredentialStatus("ledger", "static", tried=True, life=float("inf"), expires_in=float("inf"))


class Stage:
    """What the port is told; tests change it while the port is open."""

    def __init__(self) -> None:
        self.state = "ready"
        self.credentials: list[CredentialStatus] = [VALID]
        self.data: tuple[str, int] | None = None
        self.metrics = Metrics()


@asynccontextmanager
async def admin(stage: Stage) -> AsyncIterator[str]:
    server = AdminServer(
        Address("127.0.0.1", 0),
        metrics=stage.metrics,
        status=lambda: stage.credentials,
        state=lambda: stage.state,
        data_address=lambda: stage.data,
    )
    await server.start()
    try:
        yield "http://{}:{}".format(*server.address)
    finally:
        await server.stop()


async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, Any, Mapping[str, str]]:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        body = await answer.text()
        is_json = answer.content_type == "application/json" and body
        return answer.status, json.loads(body) if is_json else body, answer.headers


@pytest.mark.parametrize("state", ["starting", "ready", "draining"])
async def test_the_process_is_alive_whatever_it_is_doing(state: str) -> None:
    stage = Stage()
    stage.state = state
    async with admin(stage) as url:
        status, body, _ = await get(f"{url}/healthz")
    assert (status, body["state"]) == (200, state)


@pytest.mark.parametrize(
    ("state", "credentials", "status", "shown"),
    [
        ("starting", [VALID], 503, "starting"),
        ("ready", [VALID, PENDING], 503, "starting"),
        ("ready", [VALID, IDLE, STATIC], 200, "ready"),
        ("ready", [VALID, DOWN], 200, "ready"),
        ("ready", [DOWN], 200, "ready"),
        ("ready", [], 200, "ready"),
        ("draining", [VALID], 503, "draining"),
    ],
    ids=["starting", "one not tried", "one on demand", "one vendor down", "all down", "no credential", "draining"],
)
async def test_ready_means_every_credential_was_tried_and_the_gateway_stays(
    state: str, credentials: list[CredentialStatus], status: int, shown: str
) -> None:
    stage = Stage()
    stage.state, stage.credentials = state, credentials
    async with admin(stage) as url:
        answered, body, _ = await get(f"{url}/readyz")
    assert (answered, body["state"]) == (status, shown)
    assert [entry["name"] for entry in body["credentials"]] == [entry.name for entry in credentials]


async def test_readiness_is_asked_anew_every_time() -> None:
    stage = Stage()
    stage.credentials = [PENDING]
    async with admin(stage) as url:
        before = (await get(f"{url}/readyz"))[0]
        stage.credentials = [VALID]
        assert (before, (await get(f"{url}/readyz"))[0]) == (503, 200)


async def test_status_shows_how_each_credential_stands_in_numbers_that_json_has() -> None:
    stage = Stage()
    stage.credentials = [VALID, STATIC]
    async with admin(stage) as url:
        _, body, _ = await get(f"{url}/status.json")
    valid, static = body["credentials"]
    assert (valid["fingerprint"], valid["expires_in"], valid["secret"]) == ("3f1c0a2b", 3599.123, "current")
    assert (static["state"], static["expires_in"]) == ("static", None)
    assert body["uptime"] >= 0


@pytest.mark.parametrize("page", ["healthz", "readyz", "status.json", "metrics"])
async def test_no_page_shows_a_secret_and_none_is_stored(page: str) -> None:
    stage = Stage()
    stage.credentials = [DOWN]
    async with admin(stage) as url:
        _, body, headers = await get(f"{url}/{page}")
    assert "CANARY" not in str(body)
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


async def test_a_secret_that_is_a_word_of_ours_does_not_break_the_page() -> None:
    """Only values are searched: the names of fields are the page's own."""
    register(Secret("generation"))
    async with admin(Stage()) as url:
        (credential,) = (await get(f"{url}/status.json"))[1]["credentials"]
        assert credential["generation"] == 0
        assert (await get(f"{url}/status"))[0] == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("*/*", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
    ids=["text", "openmetrics"],
)
async def test_metrics_come_in_the_format_that_is_asked_for(accept: str, content_type: str) -> None:
    stage = Stage()
    stage.metrics.route("idfy").request("GET", 200, "", 0.1, 0.1, 0, 0)
    async with admin(stage) as url:
        status, body, headers = await get(f"{url}/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith(content_type)
    assert 'gatepass_requests_total{route="idfy",method="GET",status="200",code=""} 1\n' in body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/x", 404), ("GET", "/metrics/x", 404), ("POST", "/healthz", 405), ("DELETE", "/metrics", 405)],
)
async def test_anything_else_is_refused_in_json(method: str, path: str, status: int) -> None:
    async with admin(Stage()) as url:
        answered, body, headers = await get(url + path, method)
    assert (answered, body["status"]) == (status, status)
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers
    assert ("Allow" in headers) == (status == 405)


async def test_head_is_get_without_a_body() -> None:
    async with admin(Stage()) as url:
        assert (await get(f"{url}/healthz", "HEAD"))[:2] == (200, "")


async def test_a_taken_address_is_an_error_at_start() -> None:
    async with admin(Stage()) as url:
        port = int(url.rsplit(":", 1)[1])
        second = AdminServer(Address("127.0.0.1", port), metrics=Metrics(), status=list, state=lambda: "ready")
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()


# ------------------------------------------------------------------------------------------------------ check_health


async def check_health(url: str) -> tuple[bool, str]:
    return await asyncio.to_thread(look.check_health, url)


@asynccontextmanager
async def data_port() -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


async def test_a_gateway_with_both_ports_open_is_well() -> None:
    stage = Stage()
    async with data_port() as stage.data, admin(stage) as url:
        assert await check_health(url) == (True, f"{url}/healthz answers 200: ready")


async def test_a_data_port_on_all_addresses_is_tried_on_the_admin_ports_host() -> None:
    stage = Stage()
    async with data_port() as (_, port), admin(stage) as url:
        stage.data = ("0.0.0.0", port)
        assert (await check_health(url))[0]


async def test_a_closed_data_port_is_not_well() -> None:
    stage = Stage()
    async with data_port() as stage.data:
        pass
    async with admin(stage) as url:
        well, words = await check_health(url)
    assert not well
    assert words == "the data port {}:{} accepts no connection".format(*stage.data)


async def test_readiness_can_be_asked_for_by_its_path() -> None:
    stage = Stage()
    stage.state = "draining"
    async with admin(stage) as url:
        assert (await check_health(url))[0]
        assert await check_health(f"{url}/readyz") == (False, f"{url}/readyz answers 503: draining")


async def test_nobody_listening_is_not_well() -> None:
    async with data_port() as (_, port):
        pass
    well, words = await check_health(f"http://127.0.0.1:{port}")
    assert not well
    assert "no gateway answers at" in words


async def test_another_server_is_not_taken_for_a_gateway() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        well, words = await check_health(url)
    assert not well
    assert words == f"{url}/healthz is not the admin port of a gateway"


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with admin(Stage()) as url:
        assert (await check_health(url))[0]


async def test_silence_ends_after_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.look.TIMEOUT", 0.2)
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        well, words = await check_health(url)
        await asyncio.wait_for(gone.wait(), 30)
    assert not well
    assert words == f"{url}/healthz does not answer within 0.2 s"
