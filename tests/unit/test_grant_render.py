"""A recipe becomes exactly the request that was meant, whatever its secrets are made of."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

import pytest

from gateway.errors import CredentialRefused
from gateway.model import Basic, GrantRequest, Secret
from gateway.tokens.grant import render

URL = "https://auth.acme.example/token"
AWKWARD = [
    pytest.param("a+b", id="plus"),
    pytest.param("100%", id="percent"),
    pytest.param("a&b=c", id="ampersand and equals"),
    pytest.param("a:b", id="colon"),
    pytest.param("~/a/b", id="tilde and slash"),
    pytest.param("two words ", id="spaces"),
    pytest.param("naïve-✓", id="beyond ASCII"),
    pytest.param('"quoted\\', id="quote and backslash"),
]


def fields(request: GrantRequest) -> dict[str, str]:
    return dict(render(request).headers)


@pytest.mark.parametrize("secret", AWKWARD)
def test_a_secret_arrives_as_it_is_in_a_form(secret: str) -> None:
    body = render(GrantRequest(URL, form=(("s", Secret(secret)),))).body
    assert parse_qsl(body.decode(), strict_parsing=True) == [("s", secret)]


@pytest.mark.parametrize("secret", AWKWARD)
def test_a_secret_arrives_as_it_is_in_json(secret: str) -> None:
    body = render(GrantRequest(URL, json={"deep": [{"s": Secret(secret)}]})).body
    assert json.loads(body) == {"deep": [{"s": secret}]}


@pytest.mark.parametrize("secret", AWKWARD)
def test_a_secret_arrives_as_it_is_in_a_header(secret: str) -> None:
    assert fields(GrantRequest(URL, headers=(("X-Key", Secret(secret)),)))["X-Key"] == secret


@pytest.mark.parametrize("secret", AWKWARD)
def test_a_secret_arrives_as_it_is_in_a_query(secret: str) -> None:
    url = render(GrantRequest(URL + "?fixed=1", query=(("s", Secret(secret)),))).url
    assert parse_qs(urlsplit(url).query) == {"fixed": ["1"], "s": [secret]}


@pytest.mark.parametrize("secret", AWKWARD)
def test_raw_basic_joins_id_and_secret_as_they_are(secret: str) -> None:
    header = fields(GrantRequest(URL, basic=Basic("id", Secret(secret), encode="raw")))["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == f"id:{secret}".encode()


@pytest.mark.parametrize("secret", AWKWARD)
def test_form_basic_encodes_id_and_secret_before_it_joins_them(secret: str) -> None:
    """RFC 6749 §2.3.1: a colon in the id cannot be taken for the separator."""
    header = fields(GrantRequest(URL, basic=Basic("i:d", Secret(secret))))["Authorization"]
    user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    assert (unquote_plus(user), unquote_plus(password)) == ("i:d", secret)


def test_form_fields_keep_their_order_and_may_repeat() -> None:
    body = render(GrantRequest(URL, form=(("b", "1"), ("a", "2"), ("b", "3")))).body
    assert body == b"b=1&a=2&b=3"


def test_a_space_in_a_scope_is_a_plus_in_a_form_and_percent_20_in_a_query() -> None:
    """A form's reader decodes both; many a query's reader only the latter."""
    pairs = (("scope", "read write"),)
    assert render(GrantRequest(URL, form=pairs)).body == b"scope=read+write"
    assert render(GrantRequest(URL, query=pairs)).url.endswith("?scope=read%20write")


def test_without_form_and_json_there_is_no_body_and_no_content_type() -> None:
    request = render(GrantRequest(URL))
    assert request.body == b""
    assert "content-type" not in {name.lower() for name, _ in request.headers}


def test_json_numbers_flags_and_nulls_stay_what_they_are() -> None:
    body = render(GrantRequest(URL, json={"n": 4, "f": True, "z": None})).body
    assert body == b'{"n":4,"f":true,"z":null}'


@pytest.mark.parametrize("name", ["Accept", "accept", "USER-AGENT", "Content-Type"])
def test_a_header_of_the_recipe_wins_over_the_default(name: str) -> None:
    headers = render(GrantRequest(URL, headers=((name, "mine"),), form=(("a", "b"),))).headers
    assert [value for key, value in headers if key.lower() == name.lower()] == ["mine"]


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "a\x00", "trailing\n", "\udcff"])
def test_a_header_value_with_control_characters_is_never_sent(bad: str) -> None:
    """A key file with a line break at its end must be named as the mistake it is."""
    with pytest.raises(CredentialRefused) as caught:
        render(GrantRequest(URL, headers=(("X-Key", Secret("CANARY" + bad)),)))
    assert "X-Key" in caught.value.reason
    assert "CANARY" not in caught.value.reason


def test_an_assertion_joins_the_form() -> None:
    body = render(GrantRequest(URL, form=(("grant_type", "client_credentials"),)), assertion=Secret("a.b.c")).body
    assert dict(parse_qsl(body.decode())) == {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "a.b.c",
    }


def test_an_assertion_joins_a_json_body() -> None:
    body = render(GrantRequest(URL, json={"g": "x"}), assertion=Secret("a.b.c")).body
    assert json.loads(body)["client_assertion"] == "a.b.c"


def test_the_token_takes_its_place_in_plain_values_only() -> None:
    """A secret that happens to hold `{token}` is sent as it is."""
    request = GrantRequest(URL, headers=(("Authorization", "Bearer {token}"),), form=(("s", Secret("{token}")),))
    rendered = render(request, token=Secret("CANARY-t"))
    assert dict(rendered.headers)["Authorization"] == "Bearer CANARY-t"
    assert rendered.body == b"s=%7Btoken%7D"


def test_a_rendered_request_does_not_print_its_secrets() -> None:
    secret = Secret("CANARY-s")
    request = GrantRequest(URL, query=(("k", secret),), headers=(("X-K", secret),), form=(("s", secret),))
    assert repr(render(request)) == f"<TokenRequest POST {URL}>"
