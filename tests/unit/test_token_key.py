"""Two recipes share a token only if nothing that could change what is issued differs between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Assertion, Basic, ClientCertificate, Credential, Egress, Expires, Grant, Secret
from gateway.tokens.key import cache_key, identity
from tests.kit.recipes import credential, form, grant

URL = "https://auth.acme.example/token"
BASE = grant(URL)


def with_request(**fields: Any) -> Grant:
    return replace(BASE, request=replace(BASE.request, **fields))


ASSERTION = Assertion(Secret("CANARY-key"), "RS256", "me", "them")
OTHERS = {
    "url": with_request(url=URL + "2"),
    "method": with_request(method="PUT"),
    "secret": with_request(form=form(secret="CANARY-other")),
    "client id": with_request(form=form(client_id="client-2")),
    "scope": with_request(form=form(scope="read")),
    "another scope": with_request(form=form(scope="write")),
    "audience": with_request(form=form(audience="a")),
    "header": with_request(headers=(("X-Tenant", "42"),)),
    "another tenant": with_request(headers=(("X-Tenant", "43"),)),
    "query": with_request(query=(("tenant", "42"),)),
    "no form": with_request(form=None),
    "empty form": with_request(form=()),
    "json": with_request(form=None, json={"a": "1"}),
    "json number": with_request(form=None, json={"a": 1}),
    "json flag": with_request(form=None, json={"a": True}),
    "basic": with_request(basic=Basic("u", Secret("p"))),
    "basic raw": with_request(basic=Basic("u", Secret("p"), encode="raw")),
    "basic moved": with_request(basic=Basic("u:", Secret("p"))),
    "assertion": with_request(assertion=ASSERTION),
    "assertion key id": with_request(assertion=replace(ASSERTION, key_id="k")),
    "certificate": with_request(client_certificate=ClientCertificate(Path("/c"), Path("/k"), "aa")),
    "certificate renewed": with_request(client_certificate=ClientCertificate(Path("/c"), Path("/k"), "bb")),
    "authority": with_request(ca_file=Path("/ca")),
    "token path": replace(BASE, response=replace(BASE.response, token="other")),
    "expiry": replace(BASE, response=replace(BASE.response, expires=Expires("after", seconds=60))),
    "pairs joined": with_request(form=(("a", "1&b=2"),)),
    "pairs apart": with_request(form=(("a", "1"), ("b", "2"))),
}


def test_no_two_different_recipes_share_a_key() -> None:
    keys = {name: cache_key(one) for name, one in (OTHERS | {"base": BASE}).items()}
    assert len(set(keys.values())) == len(keys)


def test_equal_recipes_share_a_key() -> None:
    assert cache_key(grant(URL)) == cache_key(BASE)


def test_a_secret_and_the_same_plain_text_are_one_recipe() -> None:
    """What is sent is what counts, not whether it came from the environment."""
    plain = with_request(form=tuple((name, str(getattr(v, "reveal", lambda v=v: v)())) for name, v in form()))
    assert cache_key(plain) == cache_key(BASE)


def test_a_key_shows_nothing() -> None:
    assert cache_key(BASE).isalnum()
    assert len(cache_key(BASE)) == 64


def only(changed: Grant) -> Credential:
    return Credential("acme", (changed,))


@pytest.mark.parametrize("name", ["secret", "certificate renewed"])
def test_a_changed_secret_leaves_the_identity(name: str) -> None:
    before = OTHERS["certificate"] if name.startswith("certificate") else BASE
    assert identity(only(OTHERS[name])) == identity(only(before))


@pytest.mark.parametrize("name", ["url", "client id", "scope", "header", "query", "expiry", "assertion key id"])
def test_anything_else_that_changed_is_another_identity(name: str) -> None:
    assert identity(only(OTHERS[name])) != identity(only(BASE))


@pytest.mark.parametrize("field", ["client_id", "clientId", "Client-Id", "username", "tenant_id"])
def test_who_asks_counts_even_when_it_came_from_the_environment(field: str) -> None:
    """Test and production of one vendor may share an address and differ only in the client id."""
    one, other = (with_request(form=((field, Secret(value)),)) for value in ("a", "b"))
    assert identity(only(one)) != identity(only(other))


def test_the_user_of_basic_counts_as_who_asks() -> None:
    one, other = (with_request(basic=Basic(Secret(user), Secret("p"))) for user in ("a", "b"))
    assert identity(only(one)) != identity(only(other))
    renewed = with_request(basic=Basic(Secret("a"), Secret("q")))
    assert identity(only(one)) == identity(only(renewed))


def test_the_next_secret_is_not_part_of_the_identity() -> None:
    assert identity(credential(URL, next_secret="CANARY-next")) == identity(credential(URL))


def test_another_way_to_the_endpoint_is_another_key_and_the_same_identity() -> None:
    """A changed proxy is used at the next fetch, and the token in hand stays usable until then."""
    proxied = with_request(egress=Egress("http", "proxy.internal", 3128, "user", Secret("CANARY-proxy")))
    assert cache_key(proxied) != cache_key(BASE)
    assert identity(only(proxied)) == identity(only(BASE))


def test_a_value_that_no_grant_can_hold_is_a_defect_and_never_part_of_a_key() -> None:
    with pytest.raises(TypeError, match="a grant cannot hold a object"):
        cache_key(with_request(json={"a": object()}))
