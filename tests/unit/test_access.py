"""Who is let in, as whom, and what the others are told."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import Clients, hash_key, new_key, well_formed
from gateway.errors import ClientForbidden, ClientUnknown
from gateway.model import Address, Client, Config, Route, Upstream

WEB, BATCH, ROTATED = "gp_CANARY-web", "gp_CANARY-batch", "gp_CANARY-web-next"


def route(name: str, authorization: str = "inject") -> Route:
    return Route(name, f"/{name}", Upstream("https", "vendor.example", 443), (), authorization=authorization)


IDFY, UQUDO, PASSING = route("idfy"), route("uqudo"), route("idfy", "pass")


def clients(*entries: Client, access: str = "clients") -> Clients:
    return Clients(Config(Address("127.0.0.1", 0), None, access, entries, {}, (IDFY, UQUDO)))


KNOWN = clients(
    Client("web", (hash_key(WEB), hash_key(ROTATED)), frozenset({"idfy"})),
    Client("batch", (hash_key(BATCH),), None),
)


@pytest.mark.parametrize(
    ("key", "bearer", "where", "client"),
    [
        (WEB, None, IDFY, "web"),
        (ROTATED, None, IDFY, "web"),
        (None, WEB, IDFY, "web"),
        (WEB, BATCH, IDFY, "web"),
        (WEB, "of an end user", PASSING, "web"),
        (BATCH, None, UQUDO, "batch"),
    ],
    ids=["key", "second key", "bearer", "key before bearer", "key beside a bearer that passes", "any route"],
)
def test_a_known_client_is_let_in(key: str | None, bearer: str | None, where: Route, client: str) -> None:
    assert KNOWN.admit(key and key.encode(), bearer and bearer.encode(), where) == client


@pytest.mark.parametrize(
    ("key", "bearer", "where"),
    [
        (None, None, IDFY),
        ("gp_CANARY-nobody", None, IDFY),
        ("", WEB, IDFY),
        ("gp_CANARY-nobody", WEB, IDFY),
        (None, WEB, PASSING),
        (WEB + " ", None, IDFY),
        (WEB.upper(), None, IDFY),
        (hash_key(WEB), None, IDFY),
    ],
    ids=[
        "nothing",
        "unknown key",
        "empty key beside a good bearer",
        "unknown key beside a good bearer",
        "bearer where Authorization is the end user's",
        "space behind",
        "other case",
        "the hash of a key",
    ],
)
def test_anybody_else_is_unknown(key: str | None, bearer: str | None, where: Route) -> None:
    with pytest.raises(ClientUnknown) as refusal:
        KNOWN.admit(None if key is None else key.encode(), None if bearer is None else bearer.encode(), where)
    assert "CANARY" not in f"{refusal.value!r} {refusal.value.detail} {refusal.value.reason}"


def test_a_known_client_on_another_route_is_forbidden_and_told_which_rule() -> None:
    with pytest.raises(ClientForbidden) as refusal:
        KNOWN.admit(WEB.encode(), None, UQUDO)
    assert refusal.value.detail == "The client web may not use the route uqudo"
    assert refusal.value.reason == "clients.web.routes does not name uqudo"


def test_open_access_lets_anybody_in_without_a_name() -> None:
    assert clients(access="open").admit(b"whatever", None, IDFY) == "-"
    assert clients(access="open").admit(None, None, IDFY) == "-"


def test_without_clients_nobody_is_let_in() -> None:
    with pytest.raises(ClientUnknown):
        clients().admit(WEB.encode(), None, IDFY)


def test_two_clients_with_one_key_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="clients a and b have the same key"):
        clients(Client("a", (hash_key(WEB),)), Client("b", (hash_key(WEB),)))


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        (new_key(), "removed, or of another gateway"),
        (new_key()[:-1], "mistyped or cut"),
        ("\xff\xfe", "not one of our keys"),
    ],
    ids=["well-formed", "cut", "garbage"],
)
def test_the_operator_learns_what_kind_of_mistake_it_is_and_the_app_does_not(presented: str, reason: str) -> None:
    with pytest.raises(ClientUnknown) as refusal:
        KNOWN.admit(presented.encode("latin-1"), None, IDFY)
    assert reason in refusal.value.reason
    assert refusal.value.detail == "The gateway key is not known"


# -------------------------------------------------------------------------------------------------------------- keys


def test_a_key_has_its_shape_and_256_bits() -> None:
    key = new_key()
    assert key.startswith("gp_")
    assert len(key) == 52
    assert set(key[3:]) <= set(string.ascii_letters + string.digits)
    assert 62**43 > 2**256


def test_no_two_keys_are_alike() -> None:
    assert len({new_key() for _ in range(1000)}) == 1000


@given(st.integers(3, 51), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_breaks_the_checksum(place: int, character: str) -> None:
    key = new_key()
    wrong = key[:place] + character + key[place + 1 :]
    assert well_formed(key)
    assert well_formed(key.encode())
    assert well_formed(wrong) == (wrong == key)


@given(st.binary())
def test_well_formed_takes_anything(data: bytes) -> None:
    assert not well_formed(data)


def test_a_hash_is_plain_sha_256_of_text_or_bytes() -> None:
    assert hash_key("abc") == hash_key(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
