"""The recipe read backwards: what an app presents in a token request, and the answer in the vendor's own shape."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    AppTokenRefused,
    BadRequest,
    ClientForbidden,
    ClientUnknown,
    ExchangeError,
    IdentityUnavailable,
    InternalError,
    RateLimited,
)
from gateway.model import Basic, Expires, Grant, GrantRequest, GrantResponse, Secret, Upstream
from gateway.observe import redact_text
from gateway.proxy.app_tokens import _oauth
from gateway.tokens import expiry
from gateway.tokens.endpoint import GrantEndpoint, token_paths
from gateway.tokens.grant import parse
from tests.kit.recipes import grant

if TYPE_CHECKING:
    from gateway.model import Presented

KEY = "gp_CANARY+key/="
ENCODED = "".join(f"%{ord(each):02x}" for each in KEY)
VENDOR = Secret("CANARY-vendor")
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
IN_JSON = json.dumps({"client_secret": KEY, "auth": {"pass": KEY}}).encode()

RECIPES = {
    "form": GrantRequest(
        "https://v/t", form=(("grant_type", "client_credentials"), ("client_id", "id"), ("client_secret", VENDOR))
    ),
    "basic": GrantRequest("https://v/t", basic=Basic("id", VENDOR), form=(("grant_type", "client_credentials"),)),
    "header": GrantRequest("https://v/t", headers=(("X-Api-Secret-Key", VENDOR),)),
    "json": GrantRequest("https://v/t", json={"grant_type": "client_credentials", "auth": {"pass": VENDOR}}),
    "query": GrantRequest("https://v/t", query=(("secret", VENDOR),)),
    "secret user name": GrantRequest("https://v/t", basic=Basic(VENDOR, "x"), form=()),
}


def endpoint(request: GrantRequest = RECIPES["form"], **response: Any) -> GrantEndpoint:
    answer = GrantResponse(**{"expires": Expires("in", "expires_in"), **response})
    return GrantEndpoint.of(Grant(request, answer), ["/t"])


def read(to: GrantEndpoint, body: bytes = b"", query: str = "", **fields: Any) -> Presented:
    """Read a request whose header fields are keyword arguments, `_` for `-`."""
    found = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in fields.items()}
    return to.read(lambda name: found.get(name.decode(), []), query, body)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def form(**values: str) -> bytes:
    return "&".join(f"{name}={quote_plus(value)}" for name, value in values.items()).encode()


@pytest.mark.parametrize(
    ("recipe", "body", "query", "fields"),
    [
        pytest.param("form", form(client_id="any", client_secret=KEY), "", {}, id="the recipe's form field"),
        pytest.param("basic", form(client_secret=KEY), "", {}, id="client_secret where the recipe has only Basic"),
        *(
            pytest.param(name, b"", "", {"authorization": basic("any", KEY)}, id=f"Basic, raw, for the recipe {name}")
            for name in RECIPES
        ),
        pytest.param("form", b"", "", {"authorization": basic("a%5F", quote_plus(KEY))}, id="Basic, form-encoded"),
        pytest.param("form", b"", "", {"authorization": basic("a", ENCODED)}, id="all encoded"),
        pytest.param("form", b"", "", {"authorization": f"Bearer {KEY}"}, id="Bearer"),
        pytest.param("form", b"", "", {"x_gatepass_key": KEY}, id="X-Gatepass-Key"),
        pytest.param("header", b"", "", {"x_api_secret_key": KEY}, id="the recipe's header"),
        pytest.param("header", b"", "", {"x_api_secret_key": f"Token {KEY}"}, id="the recipe's header with a scheme"),
        pytest.param("json", IN_JSON, "", {}, id="a nested JSON member"),
                pytest.param("form", IN_JSON, "", {"content_type": JSON}, id="JSON to a form"),
        pytest.param("json", form(client_secret=KEY), "", {"content_type": FORM + ";charset=UTF-8"}, id="a form"),
        pytest.param("query", b"", f"secret={quote_plus(KEY)}", {}, id="the recipe's query"),
        pytest.param("form", form(client_assertion=KEY), "", {}, id="client_assertion"),
        pytest.param("secret user name", b"", "", {"authorization": basic(KEY, "")}, id="a secret user name"),
    ],
)  # fmt: skip
def test_the_key_is_found_where_the_recipe_or_a_library_puts_the_secret(
    recipe: str, body: bytes, query: str, fields: dict[str, str]
) -> None:
    assert KEY.encode() in read(endpoint(RECIPES[recipe]), body, query, **fields).secrets


def test_nothing_presented_is_no_error_and_no_secret() -> None:
    assert read(endpoint()).secrets == ()
    assert read(endpoint(), form(client_id="id", client_secret="")).secrets == ()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(b"\xff=1", {}, id="not UTF-8"),
        pytest.param(b"a=%ff", {}, id="escapes that are not UTF-8"),
        pytest.param(b"client_secret=a&client_secret=b", {}, id="a parameter twice"),
        pytest.param(b"&".join(b"a%d=1" % i for i in range(101)), {}, id="too many parameters"),
        pytest.param(b"{", {"content_type": JSON}, id="broken JSON"),
        pytest.param(b"[1]", {"content_type": JSON}, id="no object"),
        pytest.param(b'{"a":1,"a":2}', {"content_type": JSON}, id="a member twice"),
        pytest.param(b"[" * 60_000, {"content_type": JSON}, id="deeply nested"),
        pytest.param(b"\xff\xfe{\x00}\x00", {"content_type": JSON}, id="UTF-16"),
        pytest.param(b'{"client_secret": "\\ud800"}', {"content_type": JSON}, id="half a surrogate pair as secret"),
        pytest.param(b'{"scope": "a\\udfff"}', {"content_type": JSON}, id="half a surrogate pair as scope"),
        pytest.param(b'{"a": {"b": ["\\uDBFF"]}}', {"content_type": JSON}, id="half a surrogate pair anywhere"),
        pytest.param(b'{"\\ud800": 1}', {"content_type": JSON}, id="half a surrogate pair as a name"),
        pytest.param(b"a=b", {"content_type": f"{FORM}; charset=klingon"}, id="odd charset"),
        pytest.param(b"a=b", {"content_type": f"{FORM};charset=utf-16"}, id="UTF-16 charset"),
        pytest.param(b"a=b", {"content_type": "text/plain"}, id="neither form nor JSON"),
        pytest.param(b"--x", {"content_type": "multipart/form-data; boundary=x"}, id="multipart"),
        pytest.param(b"a=b", {"content_type": [FORM, "application/json"]}, id="two types"),
        pytest.param(b"a=b", {"content_encoding": "gzip"}, id="compressed"),
        pytest.param(b"", {"authorization": "Basic !!!"}, id="no base64"),
        pytest.param(b"", {"authorization": "Basic"}, id="Basic without anything"),
        pytest.param(b"", {"authorization": "Basic " + base64.b64encode(b"nocolon").decode()}, id="no colon"),
        pytest.param(b"", {"authorization": ["Basic YTpi", "Bearer x"]}, id="two fields"),
    ],
)
def test_what_cannot_be_read_is_invalid_request(body: bytes, fields: dict[str, Any]) -> None:
    with pytest.raises(AppTokenRefused) as caught:
        read(endpoint(), body, **fields)
    assert (caught.value.error, caught.value.status) == ("invalid_request", 400)
    assert redact_text(caught.value.detail) == caught.value.detail, "the log would hide what is wrong"


@given(
    st.dictionaries(
        st.sampled_from(["client_secret", "scope", "grant_type", "client_assertion", "a"]),
        st.text(st.characters(categories=["Cs", "Cc", "L", "N", "P"]), max_size=5)
        | st.none()
        | st.floats()
        | st.lists(st.integers()),
    )
)
def test_any_json_is_answered_or_refused(document: dict[str, Any]) -> None:
    for recipe in RECIPES.values():
        with contextlib.suppress(AppTokenRefused):
            presented = read(endpoint(recipe), json.dumps(document).encode(), content_type=JSON)
            endpoint(recipe).answer("t", 60, wall=0.0, scope=presented.scope)


@given(
    st.binary(max_size=300),
    st.sampled_from([FORM, "application/json", "a/b+json", "", ";", "x;charset"]),
    st.text(max_size=40),
)
def test_any_bytes_are_read_or_refused(body: bytes, kind: str, query: str) -> None:
    for recipe in RECIPES.values():
        with contextlib.suppress(AppTokenRefused):
            read(endpoint(recipe), body, query, content_type=kind)


def test_another_grant_type_is_refused_where_the_recipe_has_one() -> None:
    with pytest.raises(AppTokenRefused) as caught:
        read(endpoint(), form(grant_type="password", client_secret=KEY))
    assert caught.value.error == "unsupported_grant_type"
    assert read(endpoint(RECIPES["header"]), form(grant_type="password", client_secret=KEY)).secrets
    assert read(endpoint(), form(client_secret=KEY)).secrets  # none is none


def test_the_scheme_that_was_tried_is_remembered() -> None:
    assert read(endpoint(), authorization=f"bearer {KEY}").scheme == "Bearer"
    assert read(endpoint(), authorization=basic("a", "b")).scheme == "Basic"
    assert read(endpoint(), form(client_secret=KEY)).scheme == "Basic"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param({}, {"access_token": "T", "token_type": "Bearer", "expires_in": 3600}, id="RFC 6749"),
        pytest.param(
            {"token_type": "tokenType", "expires": Expires("in", "expiresIn")},
            {"access_token": "T", "tokenType": "Bearer", "expiresIn": 3600},
            id="camel case",
        ),
        pytest.param(
            {"token": "data.accessToken", "token_type": None, "expires": Expires("in_ms", "data.life.ms")},
            {"data": {"accessToken": "T", "life": {"ms": 3_600_000}}},
            id="nested, milliseconds, no type",
        ),
        pytest.param(
            {"expires": Expires("at", "expires_at")},
            {"access_token": "T", "token_type": "Bearer", "expires_at": 1_000_003_600},
            id="an instant",
        ),
        pytest.param({"expires": Expires("jwt")}, {"access_token": "T", "token_type": "Bearer"}, id="in the token"),
        pytest.param(
            {"token": "data.token", "token_type": None, "expires": Expires("after", seconds=60.0)},
            {"data": {"token": "T", "expires_in": 3600}},
            id="nowhere in the vendor's answer",
        ),
    ],
)  # fmt: skip
def test_the_answer_has_the_shape_that_the_recipe_reads(response: dict[str, Any], expected: dict[str, object]) -> None:
    status, body = endpoint(**response).answer("T", 3600, wall=1_000_000_000.7)
    assert (status, json.loads(body)) == (200, expected)


def test_the_token_is_never_replaced_by_a_member_that_the_recipe_puts_inside_it() -> None:
    """Such a recipe reads no answer of its vendor; its answer to an app has the token without that member."""
    odd = endpoint(expires=Expires("in", "access_token.expires_in"))
    assert json.loads(odd.answer("T", 3600, wall=0.0)[1]) == {"access_token": "T", "token_type": "Bearer"}


@pytest.mark.parametrize("success", [frozenset({201}), frozenset({200, 201})], ids=str)
def test_the_answer_has_a_status_of_success(success: frozenset[int]) -> None:
    assert endpoint(success=success).answer("T", 1, wall=0.0)[0] == min(success)


def test_a_scope_is_echoed_only_if_asked_for() -> None:
    asked = read(endpoint(), form(scope="read write", client_secret=KEY))
    assert json.loads(endpoint().answer("T", 1, wall=0.0, scope=asked.scope)[1])["scope"] == "read write"
    assert "scope" not in json.loads(endpoint().answer("T", 1, wall=0.0)[1])


@pytest.mark.parametrize("kind", ["in", "in_ms", "at"])
def test_the_engine_reads_what_the_endpoint_writes(kind: str) -> None:
    """Forwards and backwards are one recipe: the grant engine understands our own answer."""
    response = GrantResponse(Expires(kind, "a.life"), token="a.token", token_type="a.kind")  # type: ignore[arg-type]
    status, body = GrantEndpoint.of(Grant(RECIPES["form"], response), []).answer("T", 900, wall=5e8)
    parsed = parse(response, status, {}, body, wall=5e8)
    assert (parsed.value.reveal(), parsed.life) == ("T", 900)
    assert expiry.at_path(json.loads(body), "a.kind") == "Bearer"


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ClientUnknown(), "invalid_client", 401),
        (ClientForbidden(), "unauthorized_client", 400),
        (AppTokenRefused("no", error="unsupported_grant_type"), "unsupported_grant_type", 400),
        (RateLimited(retry_after=1.0), "slow_down", 429),
        (IdentityUnavailable(retry_after=1.0), "temporarily_unavailable", 503),
        (BadRequest("a body without an end"), "invalid_request", 400),
        (InternalError(), "server_error", 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_the_code_that_oauth_libraries_know(error: ExchangeError, code: str, status: int) -> None:
    """RFC 6749 §5.2, and RFC 8628 §3.5 for `slow_down`."""
    assert _oauth(error) == (code, status)


def test_a_token_url_that_is_a_bare_host_stands_for_no_path_of_the_route() -> None:
    assert token_paths(Upstream("https", "auth.acme.example", 443), grant("https://auth.acme.example/")) == ()


@pytest.mark.parametrize(
    ("upstream", "url", "paths"),
    [
        ("https://api.v/", "https://auth.v/oauth/token", {"/oauth/token"}),
        ("https://api.v/", "https://api.v/oauth/token", {"/oauth/token"}),
        ("https://api.v/v2", "https://api.v/v2/oauth/token", {"/v2/oauth/token", "/oauth/token"}),
        ("https://api.v:443/v2", "https://api.v/v2/oauth/token", {"/v2/oauth/token", "/oauth/token"}),
        ("https://api.v/v2", "https://auth.v/v2/oauth/token", {"/v2/oauth/token"}),
        ("https://api.v/v2", "https://api.v/v22/token", {"/v22/token"}),
        ("https://api.v/v2", "https://api.v/v2", {"/v2"}),
        ("https://api.v/", "https://auth.v/", set()),
        ("https://api.v/", "https://auth.v", set()),
    ],
)
def test_a_token_url_is_served_as_it_is_and_relative_to_the_upstream_on_its_host(
    upstream: str, url: str, paths: set[str]
) -> None:
    split = urlsplit(upstream)
    base = Upstream("https", split.hostname or "", split.port or 443, split.path.rstrip("/"))
    grant = Grant(GrantRequest(url), GrantResponse(Expires("in", "expires_in")))
    assert set(token_paths(base, grant)) == paths
