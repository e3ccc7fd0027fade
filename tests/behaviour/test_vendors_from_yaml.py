"""A vendor is data: the files under examples/ work as they stand, but for the addresses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from gateway.sandbox import Sandbox
from tests.kit.configuration import ROOT
from tests.kit.endpoint import Answer, TokenEndpoint, json_answer
from tests.kit.gateway import CANARY, running
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor


def example(name: str) -> dict[str, Any]:
    """An example's configuration."""
    loaded = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def acme(url: str, port: int) -> dict[str, Any]:
    config = example("fifth-vendor")
    config["credentials"]["acme"]["grant"]["request"]["url"] = url
    config["routes"]["acme"]["upstream"] = f"http://127.0.0.1:{port}/v2"
    return config


def session(token: str, *, seconds: float = 3600) -> Answer:
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    return json_answer({"data": {"accessToken": token, "expiresAt": end.isoformat().replace("+00:00", "Z")}}, 201)


async def test_a_fifth_vendor_with_json_a_header_key_and_iso_8601_works_from_yaml_alone() -> None:
    """JSON body with secrets inside, credential in a header, 201, a nested token, an absolute end of life."""
    seen: list[Message] = []
    async with TokenEndpoint() as endpoint, vendor(answering(ok(), seen=seen)) as upstream:
        endpoint.script.append(session("acme-token-1"))
        config = acme(endpoint.url, upstream.port)
        secrets = {"ACME_API_KEY": "k-" + CANARY, "ACME_CLIENT_ID": "id", "ACME_CLIENT_SECRET": f'"{CANARY}\\'}
        async with running(config, environ=secrets) as it:
            app = await connect(it.address)
            await app.send(get("/acme/orders?x=1"))
            assert (await app.message()).status == 200
            (status,) = it.gateway.tokens.status()
            assert status.expiry_source == "at"
            assert status.life == pytest.approx(3600, abs=60)
    assert seen[0].target == b"/v2/orders?x=1"
    assert seen[0].one("Authorization") == b"Bearer acme-token-1"
    (request,) = endpoint.requests
    assert request.header("X-Acme-Key") == "k-" + CANARY
    assert json.loads(request.body) == {
        "grant": "service",
        "client": {"id": "id", "secret": f'"{CANARY}\\'},
        "audience": "orders",
    }


@pytest.mark.parametrize(
    ("status", "body", "fetches"),
    [
        (401, b"{}", 2),
        (419, b"{}", 2),
        (403, b'{"error":{"code":"token_expired"}}', 2),
        (403, b'{"error":{"code":"not_yours"}}', 1),
        (403, b"<html>", 1),
        (400, b'{"error":{"code":"token_expired"}}', 1),
    ],
)
async def test_a_vendors_own_signs_of_an_old_token_are_data_too(status: int, body: bytes, fetches: int) -> None:
    """A status, or a status with a word in a JSON body; anything else passes to the app unchanged."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.one("Authorization") == b"Bearer old":
                head = f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                await peer.send(head.encode() + body)
            else:
                await peer.send(ok(b"fresh"))

    async with TokenEndpoint() as endpoint, vendor(script) as upstream:
        endpoint.script.extend([session("old"), session("new")])
        environ = {"ACME_API_KEY": "k-" + CANARY, "ACME_CLIENT_ID": "id", "ACME_CLIENT_SECRET": CANARY}
        async with running(acme(endpoint.url, upstream.port), environ=environ) as it:
            app = await connect(it.address)
            await app.send(get("/acme/orders"))
            got = await app.message()
            assert (got.status, got.body) == ((200, b"fresh") if fetches == 2 else (status, body))
    assert len(endpoint.requests) == fetches


async def test_a_static_key_goes_into_its_own_header() -> None:
    """No token request at all; the app's own Authorization stays behind."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = example("static-key")
        config["routes"]["ledger"]["upstream"] = f"http://127.0.0.1:{upstream.port}"
        async with running(config, environ={"LEDGER_API_KEY": CANARY}) as it:
            app = await connect(it.address)
            await app.send(get("/ledger/a", "Authorization: Bearer mine", "x-api-key: mine"))
            await app.message()
    assert seen[0].one("X-Api-Key") == CANARY.encode()
    assert not seen[0].all("Authorization")


async def test_two_headers_from_two_credentials_and_the_end_users_authorization_passes() -> None:
    """The emulated vendor demands all three and refuses any one of them alone."""
    async with Sandbox() as sandbox:
        config = example("two-headers")
        hypersign = sandbox.hypersign
        for name in config["credentials"]:
            config["credentials"][name] |= hypersign.overlay()
            config["credentials"][name]["min_interval"] = 0
        config["routes"]["hypersign"]["upstream"] = hypersign.base_url
        config["routes"]["hypersign-kyc"]["upstream"] = hypersign.kyc_url
        kyc = hypersign.credentials.get("kyc_api_secret_key") or hypersign.credentials["api_secret_key"]
        environ = {
            "HYPERSIGN_API_SECRET_KEY": hypersign.credentials["api_secret_key"].reveal(),
            "HYPERSIGN_KYC_API_SECRET_KEY": kyc.reveal(),
        }
        async with running(config, environ=environ) as it:
            app = await connect(it.address)
            for field, status in (("Authorization: Bearer the-end-users", 200), ("X-Nothing: x", 401)):
                request = post("/hypersign-kyc/api/v2/auth/exchange", b"{}", "Content-Type: application/json", field)
                await app.send(request)
                got = await app.message()
                assert got.status == status, got.body
            assert hypersign.counters.token_requests == 2, "an end user's 401 says nothing of our tokens"
