"""Clients, issuers and networks in the configuration: what they become, and what every mistake in them is told as."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load
from gateway.errors import ConfigError
from gateway.model import ClientBudget, ClientClaims, ClientLimit, Config

HASH = "ab" * 32
BASE = """\
listen: 127.0.0.1:0
credentials: {key: {static: {token: gp_CANARY-token}}}
routes:
  orders: {credential: key, upstream: "https://orders.example"}
  ledger: {credential: key, upstream: "https://ledger.example"}
"""
ISSUER = '{issuer: x, audience: [gatepass], jwks_url: "https://login.example/keys"}'


def read(text: str, folder: Path) -> Config:
    path = folder / "config.yaml"
    path.write_text(BASE + text)
    return load([path], environ={})


def test_a_client_becomes_what_was_written(tmp_path: Path) -> None:
    found = read(
        f"""
issuers: {{corp: {ISSUER}}}
trusted_proxies: [10.0.0.0/8]
allow_addresses: [127.0.0.1]
admin_keys_sha256: [{HASH.upper()}]
state_file: {tmp_path}/state.json
clients:
  - name: web
    keys_sha256: [{"cd" * 32}]
    keys: [{{sha256: {HASH}, expires: 2027-01-31}}, {{sha256: {"ef" * 32}}}]
    jwt: [{{issuer: corp, claims: {{azp: web, team: 7, email_verified: true, level: 4.5, old: "true"}}}}]
    addresses: [10.1.0.0/16, "::1"]
    routes: [orders]
    allow: ["POST /orders/scan"]
    deny: ["/orders/admin/**"]
    limits: [{{rate: 0.5, burst: 3}}, {{routes: [orders], in_flight: 2}}]
    budgets: [{{route: orders, per: month, soft: 8, hard: 10}}]
""",
        tmp_path,
    )
    (client,) = found.clients
    assert client.keys_sha256 == ("cd" * 32, HASH, "ef" * 32)
    assert client.key_ends == ((HASH, datetime(2027, 1, 31, tzinfo=UTC).timestamp()),)
    wanted = (("azp", "web"), ("team", "7"), ("email_verified", "true"), ("level", "4.5"), ("old", "true"))
    assert client.jwt == (ClientClaims("corp", wanted),)
    assert client.addresses == ("10.1.0.0/16", "::1/128")
    assert client.limits == (ClientLimit(None, 0.5, 3), ClientLimit(frozenset({"orders"}), in_flight=2))
    assert client.budgets == (ClientBudget("orders", "month", hard=10, soft=8),)
    assert found.issuers[0].audience == ("gatepass",)
    assert (found.trusted_proxies, found.allow_addresses) == (("10.0.0.0/8",), ("127.0.0.1/32",))
    assert found.admin_keys_sha256 == (HASH,)
    assert found.state_file == Path(f"{tmp_path}/state.json")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
        ("2027-01-31T18:00:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
    ],
)
def test_an_end_without_an_offset_is_in_utc(written: str, meant: datetime, tmp_path: Path) -> None:
    found = read(f"clients: [{{name: web, keys: [{{sha256: {HASH}, expires: '{written}'}}]}}]\n", tmp_path)
    assert found.clients[0].key_ends == ((HASH, meant.timestamp()),)


def web(**more: Any) -> str:
    return json.dumps({"clients": [{"name": "web", "key_sha256": HASH, **more}]})[1:-1]


MISTAKES = {
    "a rule without a slash": (web(allow=["POST scan"]), "clients[0].allow: must be a rule as"),
    "a rule with a query": (web(deny=["/a?x=1"]), "clients[0].deny: must be a rule as"),
    "a rule in small letters": (web(allow=["post /a"]), "clients[0].allow: must be a rule as"),
    "a rule with an empty segment": (web(deny=["/orders//x"]), "clients[0].deny: holds an empty segment"),
    "a rule with a dot segment": (web(allow=["GET /orders/%2e%2e/x"]), "clients[0].allow: holds a dot segment"),
    "a rule with a double encoding": (web(deny=["/orders/a%2541"]), "clients[0].deny: holds a double encoding"),
    "a rule with a broken escape": (web(deny=["/orders/100%"]), "a percent sign that starts no encoded byte"),
    "a rule that is read as an empty segment": (web(deny=["/orders/;x/y"]), "is always refused"),
    "no network": (web(addresses=["10.0.0.1/8"]), "clients[0].addresses: must be a network as"),
    "a host for a network": (web(addresses=["host.example"]), "clients[0].addresses: must be a network as"),
    "no rate": (web(limits=[{"rate": 0}]), "clients[0].limits[0].rate: must be a number of requests per second"),
    "a limit of nothing": (web(limits=[{}]), "clients[0].limits[0]: limits nothing"),
    "a budget of nothing": (web(budgets=[{"route": "orders", "per": "day"}]), "needs `soft` or `hard`"),
    "a soft limit above the hard": (
        web(budgets=[{"route": "orders", "per": "day", "soft": 9, "hard": 8}]),
        "`soft` is above `hard`",
    ),
    "an hour": (web(budgets=[{"route": "orders", "per": "hour", "hard": 8}]), "per: must be day or month"),
    "two budgets alike": (
        web(budgets=[{"route": "orders", "per": "day", "hard": 8}, {"route": "orders", "per": "day", "hard": 9}]),
        "names one route twice for the same period",
    ),
    "a budget for a route that is not there": (
        web(budgets=[{"route": "order", "per": "day", "hard": 8}]),
        "clients[0].budgets[0].route: there is no route 'order'; did you mean orders?",
    ),
    "a limit for another's route": (
        web(routes=["orders"], limits=[{"routes": ["ledger"], "rate": 1}]),
        "clients[0].limits[0].routes[0]: the client may not use the route 'ledger'",
    ),
    "a date that is none": (
        web(keys=[{"sha256": "cd" * 32, "expires": "tomorrow"}]),
        "clients[0].keys[0].expires: must be a date or a time",
    ),
    "one key twice": (web(keys=[{"sha256": HASH}]), "clients[0].keys: contains a key of clients[0]"),
    "an issuer that is not there": (
        web(jwt=[{"issuer": "corp", "claims": {"azp": "web"}}]),
        "clients[0].jwt[0].issuer: there is no issuer 'corp'; there are none",
    ),
    "no claims": (web(jwt=[{"issuer": "corp", "claims": {}}]), "must be a mapping with at least one claim"),
    "a certificate nobody asks for": (
        web(certificates=["dns:web.internal"]),
        "clients[0].certificates: the data port does not request certificates: set `tls.client_ca`",
    ),
    "a certificate without a kind": (web(certificates=["web.internal"]), "clients[0].certificates: must be `subject:"),
    "a shared secret's algorithm": (
        f"issuers: {{corp: {ISSUER[:-1]}, algorithms: [HS256]}}}}",
        "issuers.corp.algorithms: must be one of RS256",
    ),
    "no algorithm at all": (f"issuers: {{corp: {ISSUER[:-1]}, algorithms: [none]}}}}", "must be one of RS256"),
    "one issuer twice": (
        f"issuers: {{corp: {ISSUER}, other: {ISSUER}}}",
        "issuers.other.issuer: is already the issuer of issuers.corp",
    ),
    "keys from nowhere": ("issuers: {corp: {issuer: x, audience: [a]}}", "exactly one of `jwks_url` and `jwks_file`"),
    "keys over the open Internet": (
        'issuers: {corp: {issuer: x, audience: [a], jwks_url: "http://login.example/keys"}}',
        "issuers.corp.jwks_url: must be https://",
    ),
    "no audience": (
        'issuers: {corp: {issuer: x, audience: [], jwks_url: "https://login.example/keys"}}',
        "`audience` and `algorithms` cannot be empty",
    ),
    "keys that grow old in between": (
        f"issuers: {{corp: {ISSUER[:-1]}, refresh: 1h, max_age: 5m}}}}",
        "`refresh` is longer than `max_age`",
    ),
    "a file of keys that is not there": (
        "issuers: {corp: {issuer: x, audience: [a], jwks_file: /nowhere/keys.json}}",
        "issuers.corp.jwks_file: the file cannot be read",
    ),
    "trust in nothing": ("trusted_proxies: [all]", "trusted_proxies: must be a network"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_line_and_in_words(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(text, tmp_path)
    (problem,) = [str(each) for each in refusal.value.problems if said in str(each)]
    assert ":6: " in problem
    assert "CANARY" not in str(refusal.value)


def test_a_file_of_keys_is_watched_and_must_hold_some(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    text = f"issuers: {{corp: {{issuer: x, audience: [a], jwks_file: {keys}}}}}"
    for content, said in (("<html>", "is not JSON"), ('{"keys": []}', "holds no keys")):
        keys.write_text(content)
        with pytest.raises(ConfigError, match=said):
            read(text, tmp_path)
    keys.write_text('{"keys": [{"kty": "RSA"}]}')
    assert keys in read(text, tmp_path).watched_files


@pytest.mark.parametrize("paths", [["/a/{id}/b"], ["/a", "/a/{sessionId}/"]])
def test_templates_of_a_route_are_taken_as_they_stand(paths: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BASE.replace('"https://orders.example"', f'"https://orders.example", paths: {json.dumps(paths)}'))
    assert load([path], environ={}).routes[0].paths == tuple(paths)


@pytest.mark.parametrize("template", ["a", "/a/{id", "/a/{}", "/a/{i d}", "/a?b", "/a//b", "/*"])
def test_a_template_that_is_none_is_a_mistake(template: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    more = f'"https://orders.example", paths: {json.dumps([template])}'
    path.write_text(BASE.replace('"https://orders.example"', more))
    with pytest.raises(ConfigError, match="must be a path template"):
        load([path], environ={})
