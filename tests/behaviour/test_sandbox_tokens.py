"""The emulated token endpoints are strict: the documented request earns a token, any other the vendor's own no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest

from gateway.sandbox import Sandbox
from tests.kit.asking import TokenRequest, ask, basic, documented

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

VENDORS = ["hypersign", "akiba", "uqudo", "idfy"]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.mark.parametrize(
    ("vendor", "life", "token_type", "others"),
    [
        ("hypersign", ("expiresIn", 14_400), ("tokenType", "Bearer"), set()),
        ("akiba", ("expires_in", 172_800), ("token_type", "bearer"), {"refresh_token", "scope"}),
        ("uqudo", ("expires_in", 1859), ("token_type", "bearer"), {"scope", "jti"}),
        ("idfy", ("expires_in", 3600), ("token_type", "Bearer"), set()),
    ],
    ids=VENDORS,
)
async def test_the_documented_request_earns_the_documented_answer(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    *,
    vendor: str,
    life: tuple[str, int],
    token_type: tuple[str, str],
    others: set[str],
) -> None:
    status, answer = await ask(session, documented(sandbox, vendor))
    assert status == 200
    assert set(answer) == {"access_token", life[0], token_type[0], *others}
    assert (answer[life[0]], answer[token_type[0]]) == (life[1], token_type[1])


@pytest.mark.parametrize("vendor", ["hypersign", "uqudo", "idfy"])
async def test_a_signed_token_names_the_end_of_its_life(
    sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str
) -> None:
    _, answer = await ask(session, documented(sandbox, vendor))
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == answer.get("expires_in", answer.get("expiresIn"))


def json_instead_of_form(request: TokenRequest) -> TokenRequest:
    return request.but(json=request.arguments.get("data", {"grant_type": "client_credentials"}), data=None)


def no_content_type(request: TokenRequest) -> TokenRequest:
    return request.but(data=b"grant_type=client_credentials&scope=document_read", skip_auto_headers=["Content-Type"])


def by_get(request: TokenRequest) -> TokenRequest:
    return request.but(method="GET")


def no_proof(request: TokenRequest) -> TokenRequest:
    data = request.arguments.get("data")
    return request.but(
        headers=None, data={"grant_type": "client_credentials", "scope": "document_read"} if data else None
    )


def wrong_proof(request: TokenRequest) -> TokenRequest:
    headers = {"Authorization": basic("CANARY-id", "CANARY-secret")} if "headers" in request.arguments else None
    wrong = {"client_id": "CANARY-id", "client_secret": "CANARY-secret"}
    data = request.arguments["data"] | ({} if headers else wrong)
    return request.but(headers=headers, data=data)


def form_with(**fields: str | None) -> Callable[[TokenRequest], TokenRequest]:
    def change(request: TokenRequest) -> TokenRequest:
        form = {**request.arguments["data"], **fields}
        return request.but(data={name: value for name, value in form.items() if value is not None})

    change.__name__ = "form_with_" + "_".join(f"{name}_{value}" for name, value in fields.items())
    return change


def repeated_parameter(request: TokenRequest) -> TokenRequest:
    return request.but(data=[*request.arguments["data"].items(), ("grant_type", "client_credentials")])


def both_methods(request: TokenRequest) -> TokenRequest:
    form = {"client_id": "CANARY-id", "client_secret": "CANARY-secret", **request.arguments["data"]}
    return request.but(data=form, headers=request.arguments.get("headers", {"Authorization": basic("a", "b")}))


def with_a_body(request: TokenRequest) -> TokenRequest:
    return request.but(data=b"{}")


def with_headers(**headers: str) -> Callable[[TokenRequest], TokenRequest]:
    def change(request: TokenRequest) -> TokenRequest:
        return request.but(headers={**request.arguments.get("headers", {}), **headers})

    change.__name__ = "with_" + "_".join(headers)
    return change


wrong_key = with_headers(**{"X-Api-Secret-Key": "CANARY.key"})


def nest(status: int, reason: str, *messages: str) -> dict[str, Any]:
    return {"statusCode": status, "message": list(messages), "error": reason}


REFUSED: list[tuple[str, Callable[[TokenRequest], TokenRequest], int, Any]] = [
    ("hypersign", by_get, 404, "Cannot GET /api/v1/app/oauth"),
    ("hypersign", no_proof, 401, nest(401, "Unauthorized", "x-api-secret-key header is missing")),
    ("hypersign", wrong_key, 401, nest(401, "Unauthorized", "Access denied.")),
    ("hypersign", with_a_body, 400, nest(400, "Bad Request", "the request body must be empty")),
    ("hypersign", with_headers(ExpiresIn="0"), 400, "whole number"),
    ("akiba", by_get, 405, "method"),
    ("akiba", json_instead_of_form, 400, "invalid_request"),
    ("akiba", no_content_type, 400, "invalid_request"),
    ("akiba", no_proof, 400, {"error": "invalid_request", "error_description": "Credentials not available"}),
    ("akiba", wrong_proof, 401, {"error": "invalid_client", "error_description": "Unknown credentials"}),
    ("akiba", form_with(grant_type=None), 400, "unsupported_grant_type"),
    ("akiba", form_with(scope="nothing"), 400, "invalid_scope"),
    ("uqudo", by_get, 405, "not supported"),
    ("uqudo", json_instead_of_form, 415, FORM),
    ("uqudo", no_content_type, 415, FORM),
    ("uqudo", wrong_proof, 401, {"error": "invalid_client", "error_description": "Bad client credentials"}),
    ("uqudo", form_with(grant_type=None), 400, "invalid_request"),
    ("uqudo", form_with(grant_type="password"), 400, "unsupported_grant_type"),
    ("uqudo", repeated_parameter, 400, "repeated"),
    ("uqudo", both_methods, 400, "invalid_request"),
    ("idfy", by_get, 400, {"error": "invalid_request"}),
    ("idfy", json_instead_of_form, 400, {"error": "invalid_request"}),
    ("idfy", no_proof, 400, {"error": "invalid_client"}),
    ("idfy", wrong_proof, 400, {"error": "invalid_client"}),
    ("idfy", form_with(scope=None), 400, {"error": "invalid_scope"}),
    ("idfy", form_with(scope="document_read nothing"), 400, {"error": "invalid_scope"}),
    ("idfy", form_with(grant_type="password"), 400, {"error": "unsupported_grant_type"}),
    ("idfy", both_methods, 400, {"error": "invalid_request"}),
]


@pytest.mark.parametrize(
    ("vendor", "change", "status", "says"), REFUSED, ids=[f"{row[0]}-{row[1].__name__}" for row in REFUSED]
)
async def test_a_wrong_shape_gets_the_vendors_own_no(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    *,
    vendor: str,
    change: Callable[[TokenRequest], TokenRequest],
    status: int,
    says: Any,
) -> None:
    got, answer = await ask(session, change(documented(sandbox, vendor)))
    assert got == status
    assert answer == says if isinstance(says, dict) else says in str(answer)
    assert sandbox.vendors[vendor].counters.tokens_issued == 0


async def test_the_eleventh_token_request_of_a_minute_gets_a_bare_json_string(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    """Hypersign's limit; no Retry-After, no object."""
    request = documented(sandbox, "hypersign")
    assert [(await ask(session, request))[0] for _ in range(10)] == [200] * 10
    assert await ask(session, request) == (429, "Too many requests. Try again later.")
    await sandbox.hypersign.set(rate_limit=False)
    assert (await ask(session, request))[0] == 200


@pytest.mark.parametrize(
    ("grant_type", "status", "service"),
    [
        (None, 200, "access_service_kyc"),
        ("access_service_kyb", 200, "access_service_kyb"),
        ("access_service_ssi", 400, None),
    ],
    ids=["default", "kyb", "ssi-refused"],
)
async def test_a_kyc_secret_earns_only_kyc_and_kyb_tokens(
    sandbox: Sandbox, session: aiohttp.ClientSession, grant_type: str | None, status: int, service: str | None
) -> None:
    key = sandbox.hypersign.credentials["kyc_api_secret_key"].reveal()
    request = documented(sandbox, "hypersign").but(
        headers={"X-Api-Secret-Key": key}, params={"grant_type": grant_type} if grant_type else None
    )
    got, answer = await ask(session, request)
    assert got == status
    if service:
        assert jwt.decode(answer["access_token"], options={"verify_signature": False})["grantType"] == service


async def test_akibas_refresh_kills_the_old_token_at_once(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    request = documented(sandbox, "akiba")
    _, first = await ask(session, request)
    refresh = request.but(data={"grant_type": "refresh_token", "refresh_token": first["refresh_token"]})
    status, second = await ask(session, refresh)
    assert status == 200
    assert [await whoami(session, sandbox, answer) for answer in (first, second)] == [401, 200]
    assert (await ask(session, refresh))[0] == 400


async def test_akibas_revoke_kills_the_token_that_it_carries(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    _, answer = await ask(session, documented(sandbox, "akiba"))
    url = sandbox.akiba.base_url + "/authorization/revoke"
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    async with session.post(url, headers=headers) as response:
        assert await response.json() == {"success": True}
    assert await whoami(session, sandbox, answer) == 401


async def whoami(session: aiohttp.ClientSession, sandbox: Sandbox, answer: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    async with session.get(sandbox.akiba.base_url + "/authorization/whoami", headers=headers) as response:
        return response.status


async def test_akiba_bans_whoever_errs_too_often_at_its_token_endpoint(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    """The reason why a gateway must not go on asking with a wrong secret."""
    await sandbox.akiba.set(ip_ban=True)
    good = documented(sandbox, "akiba")
    assert {(await ask(session, wrong_proof(good)))[0] for _ in range(33)} == {401}
    status, answer = await ask(session, good)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "try again later" in answer["error_description"]


async def test_akiba_read_literally_wants_its_three_fields_and_no_basic(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    await sandbox.akiba.set(literal=True)
    fields = {name: value.reveal() for name, value in sandbox.akiba.credentials.items()}
    request = documented(sandbox, "akiba")
    assert (await ask(session, request))[1] == {
        "error": "invalid_request",
        "error_description": "missing: client_id, client_secret, client_credential",
    }
    assert (await ask(session, request.but(headers=None, data=fields)))[0] == 200


async def test_idfy_also_takes_its_credentials_in_the_form(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    fields = {name: value.reveal() for name, value in sandbox.idfy.credentials.items()}
    request = documented(sandbox, "idfy")
    assert (await ask(session, request.but(headers=None, data={**request.arguments["data"], **fields})))[0] == 200


@pytest.mark.parametrize(("vendor", "served"), [("akiba", 200), ("idfy", 200), ("uqudo", 401), ("hypersign", 401)])
async def test_an_api_host_serves_the_token_endpoint_only_where_the_vendors_does(
    sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str, served: int
) -> None:
    """So that a mix-up of the two hosts is seen."""
    emulated, request = sandbox.vendors[vendor], documented(sandbox, vendor)
    there = TokenRequest(emulated.base_url + emulated.token_path, request.arguments)
    assert (await ask(session, there))[0] == served
