"""An answer becomes a token, or an error whose words hold nothing of the answer."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.model import Expires, GrantResponse
from gateway.tokens.failures import TokenEndpointRejected, TokenEndpointThrottled
from gateway.tokens.grant import MAX_ANSWER, Parsed, parse

RESPONSE = GrantResponse(expires=Expires("in", "expires_in"))
WALL = 1_800_000_000.0


def read(body: bytes | object, status: int = 200, response: GrantResponse = RESPONSE, **headers: str) -> Parsed:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return parse(response, status, fields, raw, wall=WALL)


def failure(body: bytes | object, status: int = 200, response: GrantResponse = RESPONSE, **headers: str) -> TokenError:
    with pytest.raises(TokenError) as caught:
        read(body, status, response, **headers)
    assert "CANARY" not in f"{caught.value} {caught.value.reason} {caught.value.detail}"
    return caught.value


def answer(**fields: Any) -> dict[str, Any]:
    return {"access_token": "CANARY-token", "token_type": "Bearer", "expires_in": 3600} | fields


def test_a_plain_answer_is_read() -> None:
    parsed = read(answer())
    assert (parsed.value.reveal(), parsed.life, parsed.expiry_source) == ("CANARY-token", 3600.0, "in")


def test_a_parsed_token_does_not_print_itself() -> None:
    assert "CANARY" not in repr(read(answer()))


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", None])
def test_bearer_is_understood_in_any_case(kind: str | None) -> None:
    assert read(answer(token_type=kind)).value.reveal() == "CANARY-token"


def test_a_missing_token_type_is_bearer() -> None:
    assert read({"access_token": "CANARY-token"}).value.reveal() == "CANARY-token"


def test_the_token_type_is_not_looked_at_when_the_recipe_says_so() -> None:
    assert read(answer(token_type="MAC"), response=dataclasses.replace(RESPONSE, token_type=None)).life == 3600.0


def test_a_nested_token_is_found_by_its_path() -> None:
    response = GrantResponse(expires=Expires("in", "data.ttl"), token="data.accessToken", success=frozenset({201}))
    parsed = read({"data": {"accessToken": "CANARY-n", "ttl": "60"}}, 201, response)
    assert (parsed.value.reveal(), parsed.life) == ("CANARY-n", 60.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"<html>CANARY</html>", "not JSON", id="HTML"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b" \r\n", "empty", id="blank"),
        pytest.param(b'{"access_token": "CANARY', "not valid JSON", id="cut off"),
        pytest.param(b'{"access_token": "CANARY",}', "not valid JSON", id="trailing comma"),
        pytest.param(b'["CANARY"]', "not an object", id="list"),
        pytest.param(b'"CANARY"', "not an object", id="string"),
        pytest.param(b"null", "not", id="null"),
        pytest.param(b"[" * 60_000, "not", id="deeply nested"),
        pytest.param(b"\xff\xfe\xfd", "not", id="no text at all"),
        pytest.param(b" " * MAX_ANSWER + b"{", "longer than 65536", id="64 KiB and one"),
        pytest.param({"error": "CANARY"}, "error", id="error with success"),
        pytest.param(answer(error="CANARY"), "error", id="token and error"),
        pytest.param({}, "no access_token", id="no token"),
        pytest.param(answer(access_token=None), "no access_token", id="token null"),
        pytest.param(answer(access_token=""), "is empty", id="token empty"),
        pytest.param(answer(access_token=12), "not a string", id="token number"),
        pytest.param(answer(access_token=["CANARY"]), "not a string", id="token list"),
        pytest.param(answer(access_token={"CANARY": 1}), "not a string", id="token object"),
        pytest.param(answer(access_token="CANARY\r\nX: y"), "not allowed in a header", id="token with CR LF"),
        pytest.param(answer(access_token="CANARY\n"), "not allowed in a header", id="token with LF at its end"),
        pytest.param(answer(access_token="CANARY é"), "not allowed in a header", id="token beyond ASCII"),
        pytest.param(answer(access_token="Bearer CANARY"), "not allowed in a header", id="token with a space"),
        pytest.param(answer(token_type="MAC"), "not bearer", id="type MAC"),
        pytest.param(answer(token_type=["Bearer"]), "not bearer", id="type a list"),
    ],
)
def test_an_unusable_answer_is_malformed(body: bytes | object, words: str) -> None:
    error = failure(body)
    assert isinstance(error, TokenMalformed)
    assert words in error.reason


@pytest.mark.parametrize(
    ("code", "refused"),
    [(4011, "4011"), (4011.0, "4011"), ("4011", "4011"), (True, "true"), ("bad_key", "bad_key")],
    ids=repr,
)
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_refused_error_may_be_a_number_or_a_boolean_in_any_encoding(
    code: object, refused: str, status: int, encoding: str
) -> None:
    response = dataclasses.replace(RESPONSE, refused_errors=frozenset({refused}))
    error = failure(json.dumps({"error": code, "why": "CANARY"}).encode(encoding), status, response)
    assert isinstance(error, CredentialRefused)
    assert refused in error.reason


@pytest.mark.parametrize("code", [4012, 4011.5, False, None, [4011], {"4011": 1}], ids=repr)
def test_another_error_does_not_refuse_the_credential(code: object) -> None:
    response = dataclasses.replace(RESPONSE, refused_errors=frozenset({"4011", "true"}))
    assert not isinstance(failure({"error": code}, 400, response), CredentialRefused)


@pytest.mark.parametrize("error", [None, "", 0, False, []])
def test_an_empty_error_beside_a_token_is_no_error(error: object) -> None:
    assert read(answer(error=error)).value.reveal() == "CANARY-token"


def test_an_answer_of_exactly_64_kib_is_read() -> None:
    body = json.dumps(answer()).encode()
    assert read(body + b" " * (MAX_ANSWER - len(body))).life == 3600.0


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
def test_a_refused_client_is_refused_with_any_status(status: int, code: str) -> None:
    error = failure({"error": code, "error_description": "CANARY"}, status)
    assert isinstance(error, CredentialRefused)
    assert error.reason == f"HTTP {status} {code}"


def test_a_refused_client_in_a_success_is_refused() -> None:
    assert isinstance(failure({"error": "invalid_client"}, 200), CredentialRefused)


def test_a_401_without_a_word_is_a_refusal() -> None:
    assert isinstance(failure(b"", 401), CredentialRefused)


def test_a_status_of_the_recipe_is_a_refusal() -> None:
    assert isinstance(
        failure(b"", 418, dataclasses.replace(RESPONSE, refused_statuses=frozenset({418}))), CredentialRefused
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, TokenUnavailable), (502, TokenUnavailable), (503, TokenUnavailable), (408, TokenUnavailable),
        (425, TokenUnavailable), (204, TokenUnavailable), (400, TokenEndpointRejected), (403, TokenEndpointRejected),
        (404, TokenEndpointRejected), (302, TokenEndpointRejected), (307, TokenEndpointRejected),
        (429, TokenEndpointThrottled),
    ],
)  # fmt: skip
def test_each_status_has_its_kind(status: int, kind: type[TokenError]) -> None:
    error = failure(b"CANARY", status)
    assert type(error) is kind
    assert error.code == "token_unavailable"
    assert f"HTTP {status}" in error.reason


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("CANARY Too many requests. Try again later.", id="a bare JSON string"),
        pytest.param({"message": ["CANARY", "x"], "error": "Too Many CANARY"}, id="an array of messages"),
        pytest.param({"error": {"code": "CANARY"}}, id="an error object"),
        pytest.param({"error": ["CANARY"]}, id="an error list"),
        pytest.param(b"\xff", id="bytes"),
    ],
)
def test_an_error_body_of_any_shape_is_coped_with_and_not_shown(body: object) -> None:
    assert failure(body, 429).reason == "HTTP 429"


def test_only_known_error_codes_are_shown() -> None:
    assert failure({"error": "invalid_scope"}, 400).reason == "HTTP 400 invalid_scope"
    assert failure({"error": "CANARY_scope"}, 400).reason == "HTTP 400"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("99999", 300.0), ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0), ("Fri, 15 Jan 2029 08:00:00 GMT", 300.0), ("soon", None), ("-5", None),
        ("²", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [401, 429, 503])
def test_retry_after_is_read_in_both_forms_and_capped(value: str, seconds: float | None, status: int) -> None:
    assert failure(b"", status, Retry_After=value).retry_after == seconds
