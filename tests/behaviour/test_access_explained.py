"""`gatepass routes --client NAME METHOD PATH`: the decision and the rule behind it, without asking anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from gateway.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
credentials: {key: {static: {token: gp_CANARY-token}}}
state_file: /nowhere/state.json
issuers: {corp: {issuer: x, audience: [gatepass], jwks_url: "https://login.invalid/keys"}}
clients:
  - name: web
    jwt: [{issuer: corp, claims: {azp: web}}]
    routes: [orders]
    allow: ["POST /orders/api/v1/scan", "GET /orders/**"]
    deny: ["/orders/admin/**"]
    addresses: [10.0.0.0/8]
    limits: [{rate: 5, burst: 10, in_flight: 2}]
    budgets: [{route: orders, per: day, soft: 8, hard: 10}]
routes:
  orders: {credential: key, upstream: "https://orders.example", deny: [/oauth/**]}
  ledger: {credential: key, upstream: "https://ledger.example", hosts: [ledger.internal]}
  scans: {credential: key, upstream: "https://orders.example", prefix: /orders/scans, hosts: [scans.internal]}
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["web", "POST", "/orders/api/v1/scan"], 0, "rule of web: allow[0] (POST /orders/api/v1/scan)"),
        (["web", "GET", "/orders/x?q=1"], 0, "allowed: goes to orders.example"),
        (
            ["web", "GET", "/orders/x"],
            0,
            "limits of web: 5 requests per second, burst 10; 2 requests in flight; calls per",
        ),
        (["web", "GET", "/orders/x"], 0, "addresses of web: 10.0.0.0/8"),
        (["web", "PUT", "/orders/x"], 1, "refused: 403 client_forbidden"),
        (["web", "GET", "/orders/admin/x"], 1, "clients.web.deny[0] (/orders/admin/**)"),
        (["web", "GET", "/ledger/x"], 1, "clients.web.routes does not name ledger"),
        (["web", "GET", "/orders/oauth/token"], 1, "refused: 400 path_refused: The route denies this path"),
        (["web", "GET", "/orders/../ledger"], 1, "refused: 400 path_refused"),
        (["web", "GET", "/nowhere"], 1, "refused: 404 route_not_found"),
        (["web", "get", "/orders/x"], 1, "refused: 400 bad_request"),
        (["web", "GTE", "/orders/x"], 1, "refused: 400 bad_request"),
        (["web", "G ET", "/orders/x"], 1, "refused: 400 bad_request"),
        (["web", "GET", "/orders/a b"], 1, "refused: 400 bad_request"),
        (["web", "GET", "/orders/ä"], 1, "refused: 400 bad_request"),
        (["web", "GET", "/orders/" + "x" * 17000], 1, "refused: 431 headers_too_large"),
        (["web", "TRACE", "/orders/x"], 1, "refused: 403 client_forbidden"),
        (["web", "GET", "/orders/x", "--host", "elsewhere.internal"], 0, "route orders: /orders"),
        (["web", "GET", "/x", "--host", "Ledger.Internal.:8080"], 1, "route ledger: ledger.internal, /ledger"),
        (["web", "GET", "/ledger", "--host", "ledger.internal"], 1, "clients.web.routes does not name ledger"),
        (
            ["web", "GET", "/orders/scans/x", "--host", "scans.internal"],
            1,
            "route scans: scans.internal, /orders/scans",
        ),
        (["web", "GET", "/x", "--host", "elsewhere.internal"], 1, "refused: 404 route_not_found"),
        (["nobody", "GET", "/orders"], 2, "there is no client 'nobody'; there are: web"),
        (["web", "GET"], 2, "go together"),
    ],
)
def test_a_decision_is_explained_with_its_rule(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    result = CliRunner().invoke(main, ["routes", "-c", str(path), "--client", *words])
    assert said in result.output
    assert result.exit_code == status
    assert "CANARY" not in result.output


def test_without_a_client_the_routes_are_listed_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    result = CliRunner().invoke(main, ["routes", "-c", str(path)])
    assert result.exit_code == 0
    assert "orders.example" in result.output
    assert "ledger.internal" in result.output


def test_a_host_name_alone_explains_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    result = CliRunner().invoke(main, ["routes", "-c", str(path), "--host", "ledger.internal"])
    assert (result.exit_code, "--host needs --client" in result.output) == (2, True)
