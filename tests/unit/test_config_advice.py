"""`check` warns of what is valid but can never have an effect; what has one is not mentioned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.kit.configuration import loaded, written

if TYPE_CHECKING:
    from pathlib import Path

HASH = "ab" * 32
BASE = """\
credentials: {key: {static: {token: CANARY-t}}}
routes:
  orders: {credential: key, upstream: 'https://orders.example', methods: [GET, POST]}
  ledger: {credential: key, upstream: 'https://ledger.example'}
"""


def client(keys: str) -> str:
    return BASE + f"clients: [{{name: fraud-desk, key_sha256: {HASH}, {keys}}}]\n"


def by_jwt(keys: str = "", route_keys: str = "", top: str = "") -> str:
    """A client that has a JWT, and a route whose vendor has a token endpoint."""
    return (
        BASE.replace(
            "{key: {static", "{idfy: {profile: idfy, client_id: i, client_secret: CANARY-s, scope: x}, key: {static"
        )
        + f"  idfy: {{credential: idfy{route_keys}}}\n"
        + "issuers: {corp: {issuer: x, audience: [a], jwks_url: 'https://l.example/k'}}\n"
        + f"clients: [{{name: fraud-desk, jwt: [{{issuer: corp, claims: {{azp: x}}}}]{keys}}}]\n"
        + top
    )


def route(keys: str) -> str:
    return BASE + f"  more: {{credential: key, upstream: 'https://more.example', {keys}}}\n"


WARNED = {
    "burst without rate": (client("limits: [{burst: 3}]"), "clients[0].limits[0].burst: has no effect without `rate`"),
    "burst of another route": (
        client("limits: [{routes: [orders], rate: 1}, {routes: [ledger], burst: 3}]"),
        "clients[0].limits[1].burst: has no effect without `rate`",
    ),
    "limit that a later one replaces": (
        client("limits: [{routes: [orders], in_flight: 3}, {in_flight: 5}]"),
        "clients[0].limits[0].in_flight: never applies, because later entries set it",
    ),
    "deny without a prefix": (
        client("deny: ['/admin/**']"),
        "clients[0].deny[0]: matches no path of the client's routes",
    ),
    "allow without a prefix": (client("allow: ['GET /v1/*']"), "clients[0].allow[0]: matches no path"),
    "shorter than any prefix": (client("deny: ['/']"), "clients[0].deny[0]: matches no path"),
    "like a prefix only": (client("deny: ['/orders-old/**']"), "clients[0].deny[0]: matches no path"),
    "a route that is not the client's": (
        client("routes: [orders], deny: ['/ledger/**']"),
        "clients[0].deny[0]: matches no path of the client's routes; the client may not use ledger",
    ),
    "method that does not exist": (
        client("deny: ['DELTE /orders/**']"),
        "there is no method DELTE; such a request gets 400",
    ),
    "one of several methods": (client("allow: ['GET,POTS /orders/**']"), "there is no method POTS"),
    "method that nobody takes": (client("deny: ['TRACE /orders/**']"), "no route takes TRACE"),
    "method that the route does not take": (
        client("deny: ['DELETE /orders/**']"),
        "clients[0].deny[0]: no request gets so far: orders takes other methods",
    ),
    "the same rule twice": (
        client("deny: ['/orders/x', '/ledger/x', '/orders/x']"),
        "clients[0].deny[2]: is the same as deny[0]",
    ),
    "allowed and denied": (client("allow: ['/orders/x'], deny: ['/orders/x']"), "clients[0].allow[0]: never applies"),
    "expired key": (
        BASE + f"clients: [{{name: fraud-desk, keys: [{{sha256: {HASH}, expires: 2020-01-01}}]}}]\n",
        "clients[0].keys[0].expires: the key has expired",
    ),
    "prefix inside a route's pattern": (
        route("deny: [/more/admin/**]"),
        "routes.more.deny[0]: begins with the route's prefix /more",
    ),
    "a route's own pattern twice": (route("allow: [/a, /b, /a]"), "routes.more.allow[2]: is the same as allow[0]"),
    "a route's pattern allowed and denied": (route("allow: [/a], deny: [/a]"), "routes.more.allow[0]: never applies"),
    "a route's method": (route("methods: [GET, GTE]"), "routes.more.methods[1]: there is no method GTE"),
    "clients that nobody asks": (client("routes: [orders]") + "access: open\n", "clients: no client is authenticated"),
    "issuer that nobody has": (
        BASE + "issuers: {corp: {issuer: x, audience: [a], jwks_url: 'https://l.example/k'}}\n",
        "issuers.corp: no client has a JWT of this issuer",
    ),
    "credential that nobody uses": (
        BASE.replace("credentials: {", "credentials: {spare: {static: {token: CANARY-s}}, "),
        "credentials.spare: no route uses this credential",
    ),
    "an outage of no store": (
        BASE.replace("CANARY-t}", "CANARY-t}, store_outage: closed"),
        "credentials.key.store_outage: has no effect without `store`",
    ),
    "admin keys without an admin port": (
        BASE + f"admin: null\nadmin_keys_sha256: [{HASH}]\n",
        "admin_keys_sha256: there is no admin port",
    ),
    "sampling of nothing": (
        BASE + "logs: {access: false, sample: 0.1}\n",
        "logs.sample: requests are not logged at all",
    ),
    "variable without braces": (
        BASE + "state_file: $STATE_FILE\n",
        "state_file: `$` and a name are used as they are written",
    ),
    "variable inside": (route("origin: 'https://$TENANT.example'"), "routes.more.origin: `$` and a name are used"),
    "a JWT, and nothing to sign passes with": (
        by_jwt(),
        "clients[0].jwt: an SDK that fetches its own token gets none with a JWT on idfy: set `app_token_key`",
    ),
    "secret variable": (BASE.replace("CANARY-t", "$CANARY_SECRET"), "credentials.key.static.token: `$` and a name"),
}


@pytest.mark.parametrize(("text", "said"), WARNED.values(), ids=WARNED)
def test_what_can_never_have_an_effect_is_warned_of_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    [warning] = loaded(tmp_path, text).warnings
    assert said in warning
    assert warning.startswith(f"{tmp_path}/config.yaml:")
    assert "CANARY" not in warning


SILENT = {
    "plain": BASE,
    "burst with rate": client("limits: [{rate: 1, burst: 3}]"),
    "rate for all, burst for one": client("limits: [{rate: 1}, {routes: [ledger], burst: 3}]"),
    "overlap": client("limits: [{in_flight: 3}, {routes: [ledger], in_flight: 5}]"),
    "rules": client("allow: ['GET /orders/v1/*', '/ledger/**'], deny: ['/orders/admin/**', 'POST /*/secret', '/**/x']"),
    "other case": client("deny: ['/ORDERS/admin']"),
    "the prefix itself": client("deny: ['/orders']"),
    "part of a segment": client("deny: ['/ord*/x', '/le**']"),
    "method": client("deny: ['DELETE /ledger/**', 'GET,DELETE /orders/x', '* /orders/y']"),
    "WebDAV": client("deny: ['PROPFIND /ledger/**']"),
    "pattern below the prefix": route("deny: [/moreover, /x/more], methods: [GET, REPORT]"),
    "dollars": BASE + "state_file: /srv/$$/1$a\n",
    "a JWT and a key to sign passes with": by_jwt(top=f"app_token_key: CANARY-{HASH}\n"),
    "a JWT and a key of its own": by_jwt(f", key_sha256: {HASH}"),
    "a JWT, and routes without passes": by_jwt(route_keys=", app_tokens: false"),
    "a JWT for routes whose vendor has no token endpoint": by_jwt(", routes: [orders]"),
    "open": BASE + "access: open\n",
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT)
def test_what_has_an_effect_is_not_warned_of(text: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, text).warnings == ()


def test_check_prints_warnings_and_succeeds(tmp_path: Path) -> None:
    path = written(tmp_path, client("deny: ['/admin/**'], limits: [{burst: 3}]"))
    shown = CliRunner().invoke(main, ["check", "--offline", "-c", str(path)])
    assert shown.exit_code == 0
    assert shown.stderr.count("warning: ") == 2
    assert "the configuration is valid" in shown.stderr
