"""The emulated APIs accept only their own live tokens and move every kind of body; the control port changes them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from yarl import URL

from gateway.sandbox import Sandbox
from gateway.sandbox.idfy import PDF_SHA256
from gateway.sandbox.ledger import Counters
from gateway.sandbox.switches import API_FAULTS, TOKEN_FAULTS, Switches
from gateway.sandbox.uqudo import IMAGE_SHA256
from tests.kit.asking import ask, bearer, documented
from tests.kit.rest import until
from tests.kit.stall import unless_stalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VENDORS = ["hypersign", "akiba", "uqudo", "idfy"]
MIB = 1024 * 1024


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


def upload(**parts: tuple[bytes, str]) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, (content, kind) in parts.items():
        form.add_field(name, io.BytesIO(content), filename=f"{name}.bin", content_type=kind)
    return form


async def call(session: aiohttp.ClientSession, method: str, url: str, **arguments: Any) -> tuple[int, Any]:
    async with session.request(method, url, **arguments) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else await response.read()


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "header",
    [None, "Bearer CANARY-not-a-token", "bearer {token}", "Bearer  {token}", "{token}"],
    ids=["none", "unknown", "lower-case", "two-spaces", "no-scheme"],
)
async def test_an_api_refuses_what_is_not_its_own_live_token(
    sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str, header: str | None
) -> None:
    good = await bearer(session, sandbox, vendor)
    token = good["Authorization"].removeprefix("Bearer ")
    headers = {"Authorization": header.format(token=token)} if header else {}
    url = sandbox.vendors[vendor].base_url + "/sandbox/echo"
    assert (await call(session, "GET", url, headers=headers))[0] == 401
    assert (await call(session, "GET", url, headers=good))[0] == 200


async def test_no_vendor_takes_anothers_token(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    tokens = {name: await bearer(session, sandbox, name) for name in VENDORS}
    for name, vendor in sandbox.vendors.items():
        answers = {
            other: (await call(session, "GET", vendor.base_url + "/sandbox/echo", headers=headers))[0]
            for other, headers in tokens.items()
        }
        assert answers == {other: 200 if other == name else 401 for other in VENDORS}


@pytest.mark.parametrize(
    ("vendor", "body", "challenge"),
    [
        ("hypersign", {"statusCode": 401, "message": ["Invalid or expired token"], "error": "Unauthorized"}, None),
        (
            "akiba",
            {"success": False, "title": "Internal Server Error", "message": "Invalid access token"},
            'Bearer realm="Fusio"',
        ),
        ("idfy", {"code": "error_401", "message": "Unauthorized", "errors": []}, 'Bearer error="invalid_token"'),
    ],
    ids=["hypersign", "akiba", "idfy"],
)
async def test_a_401_has_the_vendors_own_shape(
    sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str, body: Any, challenge: str | None
) -> None:
    url = sandbox.vendors[vendor].base_url + "/sandbox/echo"
    async with session.get(url, headers={"Authorization": "Bearer CANARY"}) as response:
        assert await response.json() == body
        assert response.headers.get("WWW-Authenticate") == challenge


async def test_the_echo_shows_which_token_arrived_and_never_the_token(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    headers = await bearer(session, sandbox, "akiba")
    token = headers["Authorization"].removeprefix("Bearer ")
    url = sandbox.akiba.base_url + "/sandbox/echo/%7Ea?b=%20c"
    async with session.get(URL(url, encoded=True), headers={**headers, "Cookie": "CANARY"}) as response:
        text = await response.text()
        seen = await response.json()
    fingerprint = hashlib.sha256(token.encode()).hexdigest()[:8]
    assert token not in text
    assert "CANARY" not in text
    assert ["Authorization", f"Bearer {fingerprint}"] in seen["headers"]
    assert seen["target"] == "/sandbox/echo/%7Ea?b=%20c"
    assert response.headers["X-Sandbox-Token"] == fingerprint


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_upload_is_parsed_and_measured(sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str) -> None:
    content = bytes(range(256)) * (5 * MIB // 256)
    headers = await bearer(session, sandbox, vendor)
    url = sandbox.vendors[vendor].base_url + "/sandbox/upload"
    status, answer = await call(session, "POST", url, headers=headers, data=upload(file=(content, "image/png")))
    assert status == 200
    assert answer["parts"] == [
        {
            "name": "file",
            "filename": "file.bin",
            "contentType": "image/png",
            "bytes": 5 * MIB,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (lambda: upload(front=(b"x", "image/jpeg")), 200),
        (lambda: upload(front=(b"x" * 5 * MIB, "image/png"), back=(b"y" * 5 * MIB, "application/pdf")), 200),
        (lambda: upload(front=(b"x" * (5 * MIB + 1), "image/jpeg")), 413),
        (lambda: upload(front=(b"x", "image/gif")), 415),
        (lambda: upload(back=(b"x", "image/jpeg")), 400),
        (lambda: upload(front=(b"x", "image/jpeg"), side=(b"x", "image/jpeg")), 400),
        (lambda: upload(front=(b"", "image/jpeg")), 400),
        (lambda: b"front=x", 415),
    ],
    ids=["one", "two-of-5-MiB", "too-large", "wrong-type", "front-missing", "unexpected", "empty", "no-multipart"],
)
async def test_a_scan_is_as_strict_as_its_document(
    sandbox: Sandbox, session: aiohttp.ClientSession, data: Any, status: int
) -> None:
    headers = await bearer(session, sandbox, "uqudo")
    assert (await call(session, "POST", sandbox.uqudo.base_url + "/api/v1/scan", headers=headers, data=data()))[
        0
    ] == status


async def test_a_broken_multipart_body_is_refused(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    headers = {**await bearer(session, sandbox, "uqudo"), "Content-Type": "multipart/form-data; boundary=b"}
    body = b'--b\r\nContent-Disposition: form-data; name="front"; filename="a"\r\nContent-Type: image/png\r\n\r\nxx'
    url = sandbox.uqudo.base_url + "/api/v1/scan"
    assert (await call(session, "POST", url, headers=headers, data=body))[0] == 400


MILLION_SHA256 = hashlib.sha256((bytes(range(256)) * 3_907)[:1_000_000]).hexdigest()


@pytest.mark.parametrize(
    ("vendor", "path", "digest"),
    [
        ("uqudo", "/api/v1/info/img/1", IMAGE_SHA256),
        ("idfy", "/signature/documents/1/files?fileFormat=pades", PDF_SHA256),
        ("akiba", "/sandbox/bytes/1000000", MILLION_SHA256),
        ("hypersign", "/sandbox/bytes/1000000?chunked=1", MILLION_SHA256),
    ],
    ids=["jpeg", "pdf", "sized", "chunked"],
)
async def test_a_download_has_a_known_hash(
    sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str, path: str, digest: str
) -> None:
    headers = await bearer(session, sandbox, vendor)
    status, body = await call(session, "GET", sandbox.vendors[vendor].base_url + path, headers=headers)
    assert (status, hashlib.sha256(body).hexdigest()) == (200, digest)


async def test_a_sink_counts_and_hashes_what_it_gets(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    headers = await bearer(session, sandbox, "idfy")
    body = b"z" * 3_000_001
    url = sandbox.idfy.base_url + "/sandbox/sink"
    _, answer = await call(session, "POST", url, headers=headers, data=io.BytesIO(body))
    assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert await call(session, "PUT", url + "?sha256=0", headers=headers, data=b"abc") == (200, {"bytes": 3})


@unless_stalled
async def test_the_first_event_comes_at_once_and_the_next_spaced(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    headers = await bearer(session, sandbox, "hypersign")
    url = sandbox.hypersign.base_url + "/api/v1/e-kyc/verification/doc-ocr/status/1?count=2&interval=0.3"
    began = time.monotonic()
    async with session.get(url, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        arrived = [time.monotonic() - began async for line in response.content if line.startswith(b"data:")]
    assert len(arrived) == 2
    assert arrived[0] < 0.25
    assert arrived[1] - arrived[0] >= 0.25


async def test_a_websocket_echoes_text_and_bytes(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    headers = await bearer(session, sandbox, "akiba")
    url = sandbox.akiba.base_url + "/sandbox/ws"
    async with session.ws_connect(url, headers=headers, protocols=("echo",)) as socket:
        await socket.send_str("hello")
        await socket.send_bytes(b"\x00\xff" * 70_000)
        assert (await socket.receive_str(), await socket.receive_bytes()) == ("hello", b"\x00\xff" * 70_000)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(url)


async def test_an_unlisted_origin_is_a_401_that_looks_like_a_bad_token(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    headers = {**await bearer(session, sandbox, "hypersign"), "Origin": "https://app.example"}
    url = sandbox.hypersign.base_url + "/api/v1/did"
    status, answer = await call(session, "GET", url, headers=headers)
    assert (status, answer["message"]) == (401, ["Origin mismatch"])
    sandbox.hypersign.allowed_origins.add("https://app.example")
    assert (await call(session, "GET", url, headers=headers))[0] == 200


async def test_a_did_arrives_as_it_was_written(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    headers, did = await bearer(session, sandbox, "hypersign"), "did:hid:testnet:z6Mk%23key-1"
    url = URL(f"{sandbox.hypersign.base_url}/api/v1/did/resolve/{did}", encoded=True)
    async with session.get(url, headers=headers) as response:
        assert (await response.json())["didDocument"]["id"] == did


async def kyc_headers(sandbox: Sandbox, session: aiohttp.ClientSession) -> dict[str, str]:
    key = sandbox.hypersign.credentials["kyc_api_secret_key"].reveal()
    _, kyc = await ask(session, documented(sandbox, "hypersign").but(headers={"X-Api-Secret-Key": key}))
    _, ssi = await ask(session, documented(sandbox, "hypersign"))
    return {
        "x-kyc-access-token": kyc["access_token"],
        "x-ssi-access-token": ssi["access_token"],
        "Authorization": "Bearer CANARY-end-user",
    }


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"x-kyc-access-token": None}, 401),
        ({"x-ssi-access-token": None}, 401),
        ({"Authorization": None}, 401),
        ({"x-kyc-access-token": "Bearer {x-kyc-access-token}"}, 401),
        ({"x-kyc-access-token": "{x-ssi-access-token}"}, 400),
        ({"x-ssi-access-token": "{x-kyc-access-token}"}, 400),
        ({"Authorization": "Bearer {x-kyc-access-token}"}, 401),
    ],
    ids=["right", "no-kyc", "no-ssi", "no-user", "bearer-in-kyc", "swapped", "twice", "user-overwritten"],
)
async def test_kyc_wants_two_tokens_in_their_own_headers_beside_the_users(
    sandbox: Sandbox, session: aiohttp.ClientSession, change: dict[str, str | None], status: int
) -> None:
    right = await kyc_headers(sandbox, session)
    headers = {**right, **{name: value and value.format(**right) for name, value in change.items()}}
    sent = {name: value for name, value in headers.items() if value}
    url = sandbox.hypersign.kyc_url + "/api/v2/auth/exchange"
    assert (await call(session, "POST", url, headers=sent, json={"provider": "client_auth"}))[0] == status


async def test_a_kyc_token_is_a_400_at_the_ssi_api(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    token = (await kyc_headers(sandbox, session))["x-kyc-access-token"]
    headers = {"Authorization": f"Bearer {token}"}
    status, answer = await call(session, "GET", sandbox.hypersign.base_url + "/api/v1/did", headers=headers)
    assert (status, answer["message"]) == (400, ["Invalid grant type"])


async def test_idfy_says_403_where_the_scope_is_missing_and_akiba_401(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    idfy, akiba = await bearer(session, sandbox, "idfy"), await bearer(session, sandbox, "akiba")
    share = sandbox.idfy.base_url + "/share/buckets/1/upload/1"
    outside = sandbox.akiba.base_url + "/api/out-of-scope"
    assert (await call(session, "POST", share, headers=idfy, data=upload(f=(b"x", "text/plain"))))[0] == 403
    assert (await call(session, "POST", outside, headers=akiba, json={}))[0] == 401


async def test_idfys_links_are_absolute_and_its_answers_signed_as_test(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    headers = await bearer(session, sandbox, "idfy")
    async with session.get(sandbox.idfy.base_url + "/signature/documents/summary", headers=headers) as response:
        following = (await response.json())["links"]["next"]
        assert response.headers["X-Idfy-Environment"] == "test"
        assert len(response.headers["RequestId"]) == 36
    assert following == sandbox.idfy.base_url + "/signature/documents/summary?limit=2&offset=2"


async def test_reading_events_locks_them_and_peeking_does_not(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    headers, url = await bearer(session, sandbox, "idfy"), sandbox.idfy.base_url + "/notification/events"
    counts = [len((await call(session, "GET", url + tail, headers=headers))[1]) for tail in ("/peek", "", "", "/peek")]
    assert counts == [3, 3, 0, 3]


async def test_akiba_counts_down_its_limit_and_bans_whoever_errs_too_often(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    await sandbox.akiba.set(ip_ban=True)
    headers, url = await bearer(session, sandbox, "akiba"), sandbox.akiba.base_url + "/sandbox/echo"
    async with session.get(url, headers=headers) as response:
        assert (response.headers["RateLimit-Limit"], response.headers["RateLimit-Remaining"]) == ("3600", "3599")
    statuses = [(await call(session, "GET", url))[0] for _ in range(34)]
    assert statuses == [401] * 33 + [403]
    assert (await call(session, "GET", url, headers=headers))[0] == 403


# ------------------------------------------------------------------------------------------------ the control port


async def test_the_control_port_switches_revokes_counts_and_resets(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    url = sandbox.vendors["uqudo"].control_url
    _, state = await call(session, "PATCH", url, json={"life": 30, "latency": 0.01})
    assert (state["switches"]["life"], sandbox.uqudo.switches.latency) == (30, 0.01)
    await bearer(session, sandbox, "uqudo")
    _, state = await call(session, "GET", url)
    assert (state["counters"]["token_requests"], len(state["counters"]["token_request_times"])) == (1, 1)
    fingerprint = state["live_tokens"][0]["fingerprint"]
    assert await call(session, "POST", url + "/revoke", json={"which": "newest"}) == (200, {"revoked": [fingerprint]})
    _, state = await call(session, "DELETE", url + "/counters")
    assert state["counters"]["token_requests"] == 0
    _, state = await call(session, "DELETE", url + "/switches")
    assert state["switches"]["life"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("PATCH", "/vendors/uqudo", '{"lief": 3}', 400, "lief"),
        ("PATCH", "/vendors/uqudo", '{"token_fault": "explode"}', 400, "invalid_client_400"),
        ("PATCH", "/vendors/uqudo", "[]", 400, "the body is not a JSON object"),
        ("PATCH", "/vendors/uqudo", "{", 400, "the body is not JSON"),
        ("POST", "/vendors/uqudo/revoke", '{"which": "some"}', 400, "newest"),
        ("GET", "/vendors/acme", None, 404, "hypersign, akiba, uqudo, idfy"),
    ],
    ids=["unknown-switch", "wrong-value", "list", "broken", "which", "no-such-vendor"],
)
async def test_the_control_port_says_what_is_wrong(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    *,
    method: str,
    path: str,
    body: str | None,
    status: int,
    says: str,
) -> None:
    got, answer = await call(session, method, sandbox.control_url + path, data=body)
    assert got == status
    assert says in answer["errors"][0]


async def test_one_patch_changes_every_vendor(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    _, states = await call(session, "PATCH", sandbox.control_url + "/vendors", json={"life": 7})
    assert [state["switches"]["life"] for state in states.values()] == [7] * 4


async def test_the_control_port_never_shows_a_secret(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    tokens = [(await bearer(session, sandbox, name))["Authorization"][7:] for name in VENDORS]
    shown = ""
    for path in ("/", "/vendors", *(f"/vendors/{name}" for name in VENDORS)):
        async with session.get(sandbox.control_url + path) as response:
            shown += await response.text()
    secrets = [value.reveal() for vendor in sandbox.vendors.values() for value in vendor.credentials.values()]
    assert not [secret for secret in (*tokens, *secrets) if secret in shown]


async def test_two_sandboxes_share_no_secret_and_no_port() -> None:
    async with Sandbox() as one, Sandbox() as other:
        assert not set(one.environ().values()) & set(other.environ().values())
        assert not {p.port for p in one.listeners()} & {p.port for p in other.listeners()}


async def test_the_overlay_holds_addresses_and_no_secret(sandbox: Sandbox) -> None:
    text = sandbox.overlay(listen="127.0.0.1:0")
    overlay = yaml.safe_load(text)
    assert overlay["listen"] == "127.0.0.1:0"
    assert {name: route["upstream"] for name, route in overlay["routes"].items()} == {
        name: vendor.base_url for name, vendor in sandbox.vendors.items()
    }
    assert not [value for value in sandbox.environ().values() if value in text]


async def test_lives_run_on_the_clock_that_was_given(session: aiohttp.ClientSession) -> None:
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

        def wall(self) -> float:
            return self.now

        def call_later(self, delay: float, callback: Any) -> Any:
            raise NotImplementedError

        async def sleep(self, delay: float) -> None:
            raise NotImplementedError

    clock = Clock()
    async with Sandbox(clock=clock) as sandbox:
        headers, url = await bearer(session, sandbox, "uqudo"), sandbox.uqudo.base_url + "/sandbox/echo"
        assert (await call(session, "GET", url, headers=headers))[0] == 200
        clock.now += 1858
        assert (await call(session, "GET", url, headers=headers))[0] == 200
        clock.now += 1
        assert (await call(session, "GET", url, headers=headers))[0] == 401


@unless_stalled
async def test_stopping_breaks_off_what_hangs(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox()
    await sandbox.start()
    await sandbox.uqudo.set(token_fault="hang")
    waiting = asyncio.create_task(ask(session, documented(sandbox, "uqudo")))
    await until(lambda: sandbox.uqudo.counters.token_requests)
    began = time.monotonic()
    await sandbox.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", [*Switches.model_fields, *TOKEN_FAULTS, *API_FAULTS, *Counters.__slots__])
def test_the_page_about_the_sandbox_knows_every_switch_fault_and_counter(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
    assert f"`{name}`" in page
