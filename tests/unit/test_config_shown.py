"""`check --show` hides every literal of a token request that is not known to be harmless, whatever its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from gateway.config import load, merged
from tests.kit.configuration import written

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config

ROUTE = "routes: {a: {credential: a, upstream: 'https://h.example'}}\n"
NAMES = [
    "Authorization", "authorization", "Cookie", "X-Auth", "X-Tenant", "pwd", "sig", "signature", "pin", "user", "code",
    "hmac", "nonsense", "X-Amz-Signature", "license", "device", "apikey",
]  # fmt: skip
PLACES = ["headers", "query", "form", "json"]
URL = "url: 'https://auth.example/token'"
REQUESTS = {
    "grant": f"grant: {{{{request: {{{{{URL}, {{fields}}}}}}}}}}",
    "revoke": f"grant: {{{{request: {{{{{URL}}}}}}}}}, revoke: {{{{{URL}, {{fields}}}}}}",
    "probe": f"grant: {{{{request: {{{{{URL}}}}}}}}}, probe: {{{{{URL}, {{fields}}}}}}",
    "next": f"grant: {{{{request: {{{{{URL}, {{fields}}}}}}}}}}, "
    "next: {{grant: {{request: {{{fields}}}}}}}",
}


def shown(folder: Path, credential: str, route: str = ROUTE) -> str:
    return merged([written(folder, f"credentials: {{a: {{{credential}}}}}\n{route}")], environ={})


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_a_literal_of_a_token_request_is_hidden_under_any_name(
    name: str, place: str, request_: str, tmp_path: Path
) -> None:
    fields = f"{place}: {{{name}: 'Basic CANARY-value'}}"
    printed = shown(tmp_path, request_.format(fields=fields))
    assert "CANARY" not in printed
    assert f"{name}: <secret " in printed


@pytest.mark.parametrize(
    "fields",
    [
        "json: {deep: [{er: [CANARY-1, CANARY-2]}]}",
        "form: {resource_id: [CANARY-1]}",
        "basic: {username: CANARY-user, password: CANARY-password}",
        "headers: {X-Half: 'CANARY-1 {token}'}",
        "query: {pin: 'CANARY-{token}-CANARY'}",
    ],
)
def test_nested_and_partial_literals_are_hidden_too(fields: str, tmp_path: Path) -> None:
    assert "CANARY" not in shown(tmp_path, REQUESTS["probe"].format(fields=fields))


def test_a_number_may_be_a_secret(tmp_path: Path) -> None:
    assert "4711" not in shown(tmp_path, REQUESTS["grant"].format(fields="json: {pin: 4711, other: [4711]}"))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ("form: {grant_type: client_credentials}", "grant_type: client_credentials"),
        ("form: {scope: orders read}", "scope: orders read"),
        ("json: {audience: billing}", "audience: billing"),
        ("headers: {Accept: application/json}", "Accept: application/json"),
        ("headers: {Authorization: 'Bearer {token}'}", "Authorization: Bearer {token}"),
        ("form: {token: '{token}', token_type_hint: access_token}", "token_type_hint: access_token"),
        ("json: {nested: {flag: true, none: null}}", "flag: true"),
    ],
)
def test_what_is_harmless_is_shown(fields: str, line: str, tmp_path: Path) -> None:
    assert line in shown(tmp_path, REQUESTS["probe"].format(fields=fields))


@pytest.mark.parametrize(
    ("route", "hidden"),
    [("header: X-Key, format: 'CANARY-prefix {token}'", True), ("header: X-Key, format: 'Token token={token}'", False)],
)
def test_a_format_is_shown_only_as_a_scheme(route: str, hidden: bool, tmp_path: Path) -> None:
    text = f"routes: {{a: {{credential: a, upstream: 'https://h.example', {route}}}}}\n"
    printed = shown(tmp_path, "static: {token: CANARY-t}", text)
    assert "CANARY" not in printed
    assert ("format: <secret" in printed) is hidden


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "pwd", "sig", "X-Auth", "session_id", "pass", "pin"])
def test_a_literal_under_a_telling_name_is_a_secret_in_the_model_too(name: str, tmp_path: Path) -> None:
    fields = f"headers: {{{name}: CANARY-value}}, form: {{{name}: CANARY-value}}"
    path = written(tmp_path, f"credentials: {{a: {{{REQUESTS['grant'].format(fields=fields)}}}}}\n{ROUTE}")
    config: Config = load([path], environ={})
    assert "CANARY" not in repr(config)


def test_what_is_printed_is_still_yaml_with_every_key(tmp_path: Path) -> None:
    printed = yaml.safe_load(shown(tmp_path, REQUESTS["grant"].format(fields="headers: {X-Tenant: '42'}")))
    assert set(printed["credentials"]["a"]["grant"]["request"]) == {"url", "headers"}
