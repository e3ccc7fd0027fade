"""What a client may call: rules by method and path, deny before allow; and path templates for the log."""

from __future__ import annotations

import pytest

from gateway.access import Allowance
from gateway.access.rules import Rules
from gateway.addresses import Networks
from gateway.errors import ClientForbidden
from gateway.observe import Metrics
from gateway.patterns import Templates

SCAN = Rules("web", ["POST /uqudo/api/v1/scan"], [])
MIXED = Rules("web", ["GET,HEAD /ledger/**", "* /open/*", "/free/**"], ["DELETE /**", "/ledger/admin/**", "/free/x"])


@pytest.mark.parametrize(
    ("rules", "method", "path"),
    [
        (SCAN, "POST", "/uqudo/api/v1/scan"),
        (SCAN, "POST", "/uqudo/api/v1/scan/"),
        (MIXED, "GET", "/ledger/a/b"),
        (MIXED, "HEAD", "/ledger"),
        (MIXED, "PURGE", "/open/a"),
        (MIXED, "GET", "/free"),
        (MIXED, "POST", "/free/x/y"),
        (Rules("web", [], ["POST /a"]), "GET", "/a"),
        (Rules("web", [], ["POST /a"]), "POST", "/b"),
    ],
)
def test_what_a_rule_allows_passes(rules: Rules, method: str, path: str) -> None:
    rules.check(method, path)


@pytest.mark.parametrize(
    ("rules", "method", "path", "rule"),
    [
        (SCAN, "GET", "/uqudo/api/v1/scan", "allow"),
        (SCAN, "post", "/uqudo/api/v1/scan", "allow"),
        (SCAN, "POST", "/uqudo/api/v1/scans", "allow"),
        (SCAN, "POST", "/uqudo/api/v1/scan/x", "allow"),
        (SCAN, "POST", "/uqudo/api/v1/SCAN", "allow"),
        (SCAN, "POST", "/uqudo/api/v1/sc%61n", "allow"),
        (MIXED, "POST", "/ledger/a", "allow"),
        (MIXED, "GET", "/open/a/b", "allow"),
        (MIXED, "DELETE", "/open/a", "deny[0]"),
        (MIXED, "GET", "/ledger/admin", "deny[1]"),
        (MIXED, "GET", "/ledger/admin/x", "deny[1]"),
        (MIXED, "GET", "/ledger/ADMIN/x", "deny[1]"),
        (MIXED, "GET", "/ledger/%61dmin", "deny[1]"),
        (MIXED, "GET", "/ledger/admin;x=y/z", "deny[1]"),
        (MIXED, "PUT", "/free/x", "deny[2]"),
        (Rules("web", [], ["POST /a"]), "POST", "/a", "deny[0]"),
    ],
)
def test_what_no_rule_allows_or_one_forbids_is_refused_and_the_rule_named(
    rules: Rules, method: str, path: str, rule: str
) -> None:
    with pytest.raises(ClientForbidden) as refusal:
        rules.check(method, path)
    assert f"clients.web.{rule}" in refusal.value.reason
    assert "web" in refusal.value.detail
    assert "%61" not in refusal.value.detail


def test_no_rules_are_no_rules() -> None:
    assert not Rules("web", [], [])


def test_people_are_told_which_rule_lets_a_call_pass() -> None:
    assert MIXED.allowing("GET", "/ledger/a") == "allow[0] (GET,HEAD /ledger/**)"
    assert MIXED.allowing("POST", "/free/a") == "allow[2] (/free/**)"
    assert Rules("web", [], []).allowing("GET", "/a") == "no `allow`: everything on its routes"


def test_a_client_from_another_network_is_forbidden_whatever_its_rules() -> None:
    metrics = Metrics().client("web", "orders")
    allowance = Allowance("web", "orders", metrics=metrics, networks=Networks(["10.1.0.0/16", "fd00::/8"]))
    for remote in ("10.1.2.3", "fd00::1", "::ffff:10.1.2.3"):
        allowance.check("GET", "/orders", remote)
    for remote in ("10.2.0.1", "fe80::1", "local", ""):
        with pytest.raises(ClientForbidden, match="may not call from this address"):
            allowance.check("GET", "/orders", remote)
    assert allowance.in_flight.value == 0


# ---------------------------------------------------------------------------------------------------------- templates

TEMPLATES = Templates(["/api/v1/info/{sessionId}", "/api/v1/{kind}/items/{id}", "/files/a.b", "/api/v1/info/self"])


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/api/v1/info/3f1c-secret", "/api/v1/info/{sessionId}"),
        ("/api/v1/info/3f1c-secret/", "/api/v1/info/{sessionId}"),
        ("/api/v1/info/self", "/api/v1/info/self"),
        ("/api/v1/person/items/4711", "/api/v1/{kind}/items/{id}"),
        ("/files/a.b", "/files/a.b"),
        ("/files/axb", None),
        ("/api/v1/info/", None),
        ("/api/v1/info/a/b", None),
        ("/x/api/v1/info/a", None),
        ("", None),
    ],
)
def test_a_path_is_known_by_the_most_literal_template_that_fits_or_not_at_all(path: str, template: str | None) -> None:
    assert TEMPLATES.match(path) == template


def test_without_templates_no_path_is_known() -> None:
    assert Templates([]).match("/api") is None
