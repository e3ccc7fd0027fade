"""The bytes of each vendor's token request, and what is made of each answer that its documents show.

The profiles are the shipped ones; only the address of the token endpoint is another. Requests are recorded by a raw
socket. `Connection: close` is ours: a token request is too rare to keep a connection for.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING

import pytest

from gateway import __version__
from gateway.clock import SystemClock
from gateway.config import load
from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.tokens import fetch_once, probe_once
from tests.kit.configuration import loaded
from tests.kit.endpoint import Answer, TokenEndpoint, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.model import Credential, Token

SECRET = "CANARY+s%e&c=r:e~t/"
IN_A_FORM = "CANARY%2Bs%25e%26c%3Dr%3Ae~t%2F"
AGENT = f"gatepass/{__version__}"


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


def from_profile(folder: Path, endpoint: TokenEndpoint, profile: str, **params: str) -> Credential:
    lines = "\n".join(f'    {name}: "{value}"' for name, value in params.items())
    text = f"""\
listen: 127.0.0.1:0
credentials:
  it:
    profile: {profile}
{lines}
    grant:
      request:
        url: {endpoint.url}
routes:
  it: {{credential: it}}
"""
    path = folder / "config.yaml"
    path.write_text(text)
    return load([path], environ={"SECRET": SECRET}).credentials["it"]


def hypersign(folder: Path, endpoint: TokenEndpoint, **params: str) -> Credential:
    return from_profile(folder, endpoint, "hypersign", api_secret_key="${SECRET}", **params)


def akiba(folder: Path, endpoint: TokenEndpoint) -> Credential:
    return from_profile(
        folder, endpoint, "akiba", client_id="id-1", client_secret="${SECRET}", client_credential="CANARY-cc"
    )


def uqudo(folder: Path, endpoint: TokenEndpoint) -> Credential:
    return from_profile(folder, endpoint, "uqudo", client_id="id-1", client_secret="${SECRET}")


def idfy(folder: Path, endpoint: TokenEndpoint, profile: str = "idfy") -> Credential:
    return from_profile(
        folder, endpoint, profile, client_id="id-1", client_secret="${SECRET}", scope="document_read document_write"
    )


VENDORS = {"hypersign": hypersign, "akiba": akiba, "uqudo": uqudo, "idfy": idfy}


async def sent(credential: Credential, endpoint: TokenEndpoint) -> list[str]:
    """The lines of the one request that was sent: head, empty line, body."""
    await fetch_once(credential, clock=SystemClock())
    assert endpoint.count == 1
    return endpoint.requests[0].raw.decode().split("\r\n")


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# ------------------------------------------------------------------------------------------------------ what is sent


async def test_hypersign_gets_an_empty_post_with_its_key_in_a_header(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    assert await sent(hypersign(tmp_path, endpoint), endpoint) == [
        "POST /token HTTP/1.1",
        f"Host: 127.0.0.1:{endpoint.port}",
        f"X-Api-Secret-Key: {SECRET}",
        "Accept: application/json",
        f"User-Agent: {AGENT}",
        "Content-Length: 0",
        "Connection: close",
        "",
        "",
    ]


async def test_hypersign_gets_grant_type_business_origin_and_life_where_they_are_set(
    tmp_path: Path, endpoint: TokenEndpoint
) -> None:
    lines = await sent(
        hypersign(
            tmp_path,
            endpoint,
            grant_type="access_service_kyb",
            business_id="b 1",
            origin="https://app.example",
            token_hours="8",
        ),
        endpoint,
    )
    assert lines[0] == "POST /token?grant_type=access_service_kyb&businessId=b%201 HTTP/1.1"
    assert {"Origin: https://app.example", "ExpiresIn: 8"} <= set(lines)


async def test_akiba_gets_what_its_document_lists_and_what_its_platform_reads(
    tmp_path: Path, endpoint: TokenEndpoint
) -> None:
    body = f"grant_type=client_credentials&client_id=id-1&client_secret={IN_A_FORM}&client_credential=CANARY-cc"
    assert await sent(akiba(tmp_path, endpoint), endpoint) == [
        "POST /token HTTP/1.1",
        f"Host: 127.0.0.1:{endpoint.port}",
        basic("id-1", SECRET),
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: application/json",
        f"User-Agent: {AGENT}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        body,
    ]


async def test_uqudo_gets_a_form(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    body = f"grant_type=client_credentials&client_id=id-1&client_secret={IN_A_FORM}"
    assert await sent(uqudo(tmp_path, endpoint), endpoint) == [
        "POST /token HTTP/1.1",
        f"Host: 127.0.0.1:{endpoint.port}",
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: application/json",
        f"User-Agent: {AGENT}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        body,
    ]


@pytest.mark.parametrize("profile", ["idfy", "idfy-signicat"])
async def test_idfy_gets_raw_basic_and_its_scopes(tmp_path: Path, endpoint: TokenEndpoint, profile: str) -> None:
    body = "grant_type=client_credentials&scope=document_read+document_write"
    assert await sent(idfy(tmp_path, endpoint, profile), endpoint) == [
        "POST /token HTTP/1.1",
        f"Host: 127.0.0.1:{endpoint.port}",
        basic("id-1", SECRET),
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: application/json",
        f"User-Agent: {AGENT}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        body,
    ]


async def test_idfys_own_example_of_basic_comes_out_as_printed(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    one = from_profile(
        tmp_path, endpoint, "idfy", client_id="clientId", client_secret="clientSecret", scope="document_read"
    )
    lines = await sent(one, endpoint)
    assert "Authorization: Basic Y2xpZW50SWQ6Y2xpZW50U2VjcmV0" in lines
    assert lines[-1] == "grant_type=client_credentials&scope=document_read"


# --------------------------------------------------------------------------------------------- what is made of answers


GOOD = {
    "hypersign": (b'{"access_token":"CANARY.j.wt","expiresIn":14400,"tokenType":"Bearer"}', 14_400),
    "akiba": (
        (
            b'{"access_token":"CANARYMTQ0NjJk","token_type":"bearer","expires_in":172800,'
            b'"refresh_token":"CANARY-refresh","scope":"a,b"}'
        ),
        86_400,
    ),
    "uqudo": (
        (
            b'{"access_token":"CANARY.j.ws","token_type":"bearer","expires_in":1859,"scope":"scopes",'
            b'"jti":"30a622fd-11aa-464a-8eaf-6fa868540cb0"}'
        ),
        1859,
    ),
    "idfy": (b'{"access_token":"CANARY.yyyyy.zzzzz","expires_in":3600,"token_type":"Bearer"}', 3600),
}


@pytest.mark.parametrize("vendor", GOOD)
async def test_each_documented_answer_gives_a_token_with_its_life(
    tmp_path: Path, endpoint: TokenEndpoint, vendor: str
) -> None:
    body, life = GOOD[vendor]
    endpoint.always = Answer(body=body)
    token, facts = await fetch_once(VENDORS[vendor](tmp_path, endpoint), clock=SystemClock())
    assert token.value.reveal().startswith("CANARY")
    assert (round(token.life), facts.expiry_source) == (life, "in")
    assert "CANARY" not in repr((token, facts))


AKIBA_SAMPLE = b"""{
  "access_token":"MTQ0NjJkZmQ5OTM2NDE1ZTZjNGZmZjI3",
  "token_type":"bearer",
  "expires_in":3600,
  "refresh_token":"IwOGYzYTlmM2YxOTQ5MGE3YmNmMDFkNTVk",
}
"""
NEST = {"statusCode": 401, "message": ["CANARY Access denied."], "error": "Unauthorized"}
CHOOSE = {"statusCode": 400, "message": ["CANARY Choose access_service_kyc or"], "error": "Bad Request"}
BAD = [
    pytest.param("akiba", Answer(body=AKIBA_SAMPLE), (TokenMalformed, "not valid JSON"), id="akiba's printed sample"),
    pytest.param(
        "uqudo", Answer(body=b"{ // Response }"), (TokenMalformed, "not valid JSON"), id="uqudo's placeholder"
    ),
    pytest.param(
        "hypersign",
        json_answer("CANARY Too many requests. Try again later.", 429),
        (TokenUnavailable, "HTTP 429"),
        id="hypersign's 429, a bare JSON string",
    ),
    pytest.param("hypersign", json_answer(NEST, 401), (CredentialRefused, "HTTP 401"), id="hypersign's message array"),
    pytest.param("hypersign", json_answer(CHOOSE, 400), (CredentialRefused, "HTTP 400"), id="hypersign's wrong grant"),
    pytest.param(
        "idfy",
        json_answer({"error": "invalid_client"}, 400),
        (CredentialRefused, "HTTP 400 invalid_client"),
        id="IdentityServer's 400 invalid_client",
    ),
    pytest.param(
        "idfy",
        json_answer({"error": "invalid_scope"}, 400),
        (CredentialRefused, "HTTP 400 invalid_scope"),
        id="IdentityServer's 400 invalid_scope",
    ),
    pytest.param(
        "akiba",
        json_answer({"error": "invalid_client", "error_description": "CANARY Unknown credentials"}, 401),
        (CredentialRefused, "HTTP 401 invalid_client"),
        id="Fusio's 401 invalid_client",
    ),
    pytest.param(
        "akiba",
        json_answer({"error": "invalid_request", "error_description": "CANARY sent to many requests"}, 400),
        (TokenUnavailable, "HTTP 400 invalid_request"),
        id="Fusio's ban, which passes",
    ),
    pytest.param(
        "uqudo",
        json_answer({"error": "invalid_client", "error_description": "CANARY Bad client credentials"}, 401),
        (CredentialRefused, "HTTP 401 invalid_client"),
        id="uqudo's 401",
    ),
    pytest.param("uqudo", Answer(401, b""), (CredentialRefused, "HTTP 401"), id="uqudo's 401 without a body"),
]


@pytest.mark.parametrize(("vendor", "answer", "expected"), BAD)
async def test_each_documented_error_is_understood_and_not_shown(
    tmp_path: Path, endpoint: TokenEndpoint, vendor: str, answer: Answer, expected: tuple[type[TokenError], str]
) -> None:
    endpoint.always = answer
    kind, reason = expected
    with pytest.raises(TokenError) as caught:
        await fetch_once(VENDORS[vendor](tmp_path, endpoint), clock=SystemClock())
    assert isinstance(caught.value, kind)
    assert reason in caught.value.reason
    assert "CANARY" not in f"{caught.value!r}{caught.value.reason}"
    assert "MTQ0" not in f"{caught.value!r}{caught.value.reason}"


async def test_akibas_identity_endpoint_is_shown_the_token(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    one = akiba(tmp_path, endpoint)
    assert one.probe is not None
    assert one.probe.url == "https://api.akibaone.com/authorization/whoami"
    here = dataclasses.replace(one, probe=dataclasses.replace(one.probe, url=endpoint.url))
    token, _ = await fetch_once(here, clock=SystemClock())
    await probe_once(here, token)
    assert endpoint.requests[1].header("Authorization") == f"Bearer {token.value.reveal()}"


# ------------------------------------------------------------------------------------------------------ a fifth vendor


async def fifth(folder: Path, endpoint: TokenEndpoint) -> tuple[Token, TokenEndpoint]:
    text = f"""
        listen: 127.0.0.1:0
        credentials:
          fifth:
            grant:
              request:
                url: {endpoint.url}
                headers: {{X-Tenant: "42", X-Api-Key: "${{SECRET}}"}}
                json: {{grant: machine, user: {{id: "me", hours: 8, secret: "${{SECRET}}"}}}}
              response:
                success: [201]
                token: data.accessToken
                token_type: null
                expires: {{at: data.expiresAt}}
        routes:
          fifth: {{upstream: "http://127.0.0.1:9", credential: fifth}}
        """
    one = loaded(folder, text, SECRET=SECRET).credentials["fifth"]
    token, _ = await fetch_once(one, clock=SystemClock())
    return token, endpoint


async def test_a_made_up_fifth_vendor_works_from_yaml_alone(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    """JSON body, header credential, nested token, ISO 8601 instant, 201: no line of code knows it."""
    endpoint.always = json_answer({"data": {"accessToken": "CANARY-5", "expiresAt": "2999-01-01T00:00:00Z"}}, 201)
    token, _ = await fifth(tmp_path, endpoint)
    request = endpoint.requests[0]
    body = f'{{"grant":"machine","user":{{"id":"me","hours":8,"secret":"{SECRET}"}}}}'
    assert request.body.decode() == body
    assert (request.header("X-Tenant"), request.header("X-Api-Key")) == ("42", SECRET)
    assert request.header("Content-Type") == "application/json"
    assert (token.value.reveal(), token.expiry_source) == ("CANARY-5", "at")


async def test_the_fifth_vendors_200_is_no_success(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    endpoint.always = json_answer({"data": {"accessToken": "CANARY-5"}}, 200)
    with pytest.raises(TokenUnavailable):
        await fifth(tmp_path, endpoint)
