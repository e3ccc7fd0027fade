"""The shipped profiles say what the vendors' documents say, and give way to whatever the user writes.

What a request looks like on the wire is pinned next door; here it is the recipe as data.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import yaml

from gateway.config import load, profiles
from gateway.model import MIB, Basic, Config, Credential, Expires, Grant, Injection, Route, Secret
from tests.kit.configuration import problems

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARAMS: Mapping[str, Mapping[str, str]] = {
    "hypersign": {"api_secret_key": "CANARY-key"},
    "akiba": {"client_id": "me", "client_secret": "CANARY-s", "client_credential": "CANARY-c"},
    "uqudo": {"client_id": "me", "client_secret": "CANARY-s"},
    "idfy": {"client_id": "me", "client_secret": "CANARY-s", "scope": "document_read event"},
    "idfy-signicat": {"client_id": "me", "client_secret": "CANARY-s", "scope": "document_read event"},
}
S, C = Secret("CANARY-s"), Secret("CANARY-c")


def load_vendor(folder: Path, name: str, credential: object = None, route: object = None) -> Config:
    """One vendor with its required parameters, and the user's own keys on top."""
    own = {"profile": name, **PARAMS[name], **(credential if isinstance(credential, dict) else {})}
    way = {"credential": "v", **(route if isinstance(route, dict) else {})}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"credentials": {"v": own}, "routes": {"v": way}}))
    return load([path], environ={})


def credential_of(folder: Path, name: str, own: object = None) -> Credential:
    return load_vendor(folder, name, own).credentials["v"]


def grant_of(folder: Path, name: str, own: object = None) -> Grant:
    (grant,) = credential_of(folder, name, own).grants
    return grant


def route_of(folder: Path, name: str, own: object = None) -> Route:
    (route,) = load_vendor(folder, name, route=own).routes
    return route


def test_every_shipped_profile_is_tested_here() -> None:
    assert set(profiles()) == set(PARAMS)


# --------------------------------------------------------------------------------------------------- the four requests


def test_hypersign_is_asked_with_a_key_in_a_header_and_no_body(tmp_path: Path) -> None:
    request = grant_of(tmp_path, "hypersign").request
    assert (request.method, request.url) == ("POST", "https://api.entity.dashboard.hypersign.id/api/v1/app/oauth")
    assert request.headers == (("X-Api-Secret-Key", Secret("CANARY-key")), ("Accept", "application/json"))
    assert (request.query, request.form, request.json, request.basic) == ((), None, None, None)


def test_hypersign_s_optional_parameters_appear_when_they_are_given(tmp_path: Path) -> None:
    own = {"origin": "https://app.example", "grant_type": "access_service_kyb", "business_id": "b1", "token_hours": 8}
    request = grant_of(tmp_path, "hypersign", own).request
    assert request.query == (("grant_type", "access_service_kyb"), ("businessId", "b1"))
    assert request.headers[2:] == (("Origin", "https://app.example"), ("ExpiresIn", "8"))


def test_akiba_is_asked_with_basic_and_with_the_form_of_its_document(tmp_path: Path) -> None:
    request = grant_of(tmp_path, "akiba").request
    assert (request.method, request.url) == ("POST", "https://api.akibaone.com/authorization/token")
    assert request.basic == Basic("me", S, "raw")
    assert request.form == (
        ("grant_type", "client_credentials"),
        ("client_id", "me"),
        ("client_secret", S),
        ("client_credential", C),
    )


def test_uqudo_is_asked_with_a_form(tmp_path: Path) -> None:
    request = grant_of(tmp_path, "uqudo").request
    assert (request.method, request.url) == ("POST", "https://auth.uqudo.io/api/oauth/token")
    assert request.form == (("grant_type", "client_credentials"), ("client_id", "me"), ("client_secret", S))
    assert (request.basic, request.query, request.headers) == (None, (), ())


@pytest.mark.parametrize(("name", "host"), [("idfy", "api.idfy.io"), ("idfy-signicat", "api.signicat.io")])
def test_idfy_is_asked_with_raw_basic_and_a_scope(name: str, host: str, tmp_path: Path) -> None:
    request = grant_of(tmp_path, name).request
    assert (request.method, request.url) == ("POST", f"https://{host}/oauth/connect/token")
    assert request.basic == Basic("me", S, "raw")
    assert request.form == (("grant_type", "client_credentials"), ("scope", "document_read event"))


# ---------------------------------------------------------------------------------------------------- the four answers


@pytest.mark.parametrize(
    ("name", "expires", "token_type"),
    [
        ("hypersign", "expiresIn", "tokenType"),
        ("akiba", "expires_in", "token_type"),
        ("uqudo", "expires_in", "token_type"),
        ("idfy", "expires_in", "token_type"),
        ("idfy-signicat", "expires_in", "token_type"),
    ],
)
def test_an_answer_is_read_at_the_names_of_its_document(
    name: str, expires: str, token_type: str, tmp_path: Path
) -> None:
    response = grant_of(tmp_path, name).response
    assert (response.token, response.expires) == ("access_token", Expires("in", expires))
    assert (response.token_type, response.success) == (token_type, frozenset({200}))


@pytest.mark.parametrize("name", PARAMS)
def test_a_wrong_secret_is_permanent_by_status_or_by_word(name: str, tmp_path: Path) -> None:
    response = grant_of(tmp_path, name).response
    assert 401 in response.refused_statuses
    assert "invalid_client" in response.refused_errors


def test_a_banned_address_is_no_permanent_refusal_at_akiba(tmp_path: Path) -> None:
    assert "invalid_request" not in grant_of(tmp_path, "akiba").response.refused_errors


def test_hypersign_is_asked_at_most_ten_times_a_minute(tmp_path: Path) -> None:
    assert credential_of(tmp_path, "hypersign").min_interval >= 60 / 10


# --------------------------------------------------------------------------------------------- what may be undone


@pytest.mark.parametrize("field", ["grant_type", "client_id", "client_secret", "client_credential"])
def test_each_form_field_of_akiba_can_be_taken_back(field: str, tmp_path: Path) -> None:
    own: dict[str, object] = {"grant": {"request": {"form": {field: None}}}}
    if field == "client_credential":
        own["client_credential"] = None
    form = grant_of(tmp_path, "akiba", own).request.form
    assert form is not None
    assert len(form) == 3
    assert field not in dict(form)


def test_basic_can_be_taken_back_at_akiba(tmp_path: Path) -> None:
    request = grant_of(tmp_path, "akiba", {"grant": {"request": {"basic": None}}}).request
    assert request.basic is None
    assert request.form is not None
    assert len(request.form) == 4


def test_akiba_without_a_client_credential_says_how_to_do_without(tmp_path: Path) -> None:
    text = "credentials: {v: {profile: akiba, client_id: i, client_secret: s}}\nroutes: {v: {credential: v}}"
    (line,) = problems(tmp_path, text)
    assert "client_credential: null" in line


def test_what_the_user_writes_wins_over_the_profile(tmp_path: Path) -> None:
    own = {"grant": {"request": {"url": "https://auth.other.example/t"}, "response": {"success": [200, 201]}}}
    grant = grant_of(tmp_path, "uqudo", own)
    assert grant.request.url == "https://auth.other.example/t"
    assert grant.request.form is not None
    assert grant.response.success == {200, 201}
    route = route_of(tmp_path, "uqudo", {"upstream": "https://id.other.example", "timeouts": {"total": "2m"}})
    assert (route.upstream.host, route.timeouts.first_byte, route.timeouts.total) == ("id.other.example", 60.0, 120.0)


# ---------------------------------------------------------------------------------------------------------- the routes


@pytest.mark.parametrize(
    ("name", "host", "largest"),
    [
        ("hypersign", "api.entity.hypersign.id", 10 * MIB),
        ("akiba", "api.akibaone.com", 10 * MIB),
        ("uqudo", "id.uqudo.io", 14 * MIB),
        ("idfy", "api.idfy.io", 30 * MIB),
        ("idfy-signicat", "api.signicat.io", 30 * MIB),
    ],
)
def test_a_route_knows_its_host_and_takes_the_documented_sizes(
    name: str, host: str, largest: int, tmp_path: Path
) -> None:
    route = route_of(tmp_path, name)
    assert (route.upstream.scheme, route.upstream.authority) == ("https", host)
    assert route.max_body is not None
    assert route.max_body >= largest
    assert route.injections == (Injection("Authorization", "v", "Bearer {token}"),)


def test_uqudo_s_slow_look_ups_are_waited_for(tmp_path: Path) -> None:
    assert route_of(tmp_path, "uqudo").timeouts.first_byte >= 45


DENIED = {
    "hypersign": "/api/v1/app/oauth",
    "akiba": "/authorization/**",
    "uqudo": "/api/oauth/**",
    "idfy": "/oauth/**",
    "idfy-signicat": "/oauth/**",
}


@pytest.mark.parametrize(("name", "pattern"), DENIED.items(), ids=DENIED)
def test_no_app_reaches_a_token_endpoint_through_its_route(name: str, pattern: str, tmp_path: Path) -> None:
    assert pattern in route_of(tmp_path, name).deny
    assert pattern in route_of(tmp_path, name, {"deny": ["/admin/**"]}).deny, "a deny of one's own comes on top"
    open_route: dict[str, object] = {"deny": None, "app_tokens": False}
    assert pattern not in route_of(tmp_path, name, open_route).deny, "an explicit null removes it"


def test_a_token_endpoint_on_the_host_of_the_api_is_denied_without_being_named(tmp_path: Path) -> None:
    assert "/oauth/connect/token" in route_of(tmp_path, "idfy", {"deny": None}).deny


@pytest.mark.parametrize("name", PARAMS)
def test_no_profile_passes_an_origin_on(name: str, tmp_path: Path) -> None:
    route = route_of(tmp_path, name)
    assert (route.origin, route.pass_headers) == (None, frozenset())


# --------------------------------------------------------------------------------------------- revoke, probe, files


def test_akiba_is_probed_by_whoami_and_revoked_only_when_asked_to(tmp_path: Path) -> None:
    plain = credential_of(tmp_path, "akiba")
    revoking = credential_of(tmp_path, "akiba", {"revoke_on_shutdown": True})
    assert plain.probe is not None
    assert (plain.probe.method, plain.probe.url) == ("GET", "https://api.akibaone.com/authorization/whoami")
    assert plain.probe.headers == (("Authorization", "Bearer {token}"),)
    assert plain.revoke is None
    assert revoking.revoke is not None
    assert revoking.revoke.url == "https://api.akibaone.com/authorization/revoke"


def test_a_route_whose_tokens_share_a_profile_keeps_its_denied_paths(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        """\
credentials:
  ssi: {profile: hypersign, api_secret_key: CANARY-1}
  kyc: {profile: hypersign, api_secret_key: CANARY-2, grant_type: access_service_kyc}
routes:
  kyc:
    upstream: https://api.cavach.hypersign.id
    authorization: pass
    inject: [{header: x-kyc-access-token, credential: kyc}, {header: x-ssi-access-token, credential: ssi}]
"""
    )
    (route,) = load([path], environ={}).routes
    assert route.upstream.host == "api.cavach.hypersign.id"
    assert "/api/v1/app/oauth" in route.deny
    assert [each.format for each in route.injections] == ["{token}", "{token}"]


@pytest.mark.parametrize("name", PARAMS)
def test_each_line_of_a_recipe_names_its_source(name: str) -> None:
    text = (files("gateway.config") / "profiles" / f"{name}.yaml").read_text("utf-8")
    recipe = [line for line in text[text.index("\ncredential:") :].splitlines() if line.strip()]
    bare = [line for line in recipe if "# " not in line and not line.rstrip().endswith(":")]
    assert bare == []
