"""Who is let in, as whom, and what the others are told."""

from __future__ import annotations

import base64
import hashlib
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import Clients, LastKey, hash_key, new_key, well_formed
from gateway.errors import ClientForbidden, ClientUnknown
from gateway.model import Client, Route
from tests.kit.clients import LEDGER, ORDERS, PASSING, clients_of
from tests.kit.clock import FakeClock

WEB, BATCH, ROTATED = "gp_CANARY-web", "gp_CANARY-batch", "gp_CANARY-web-next"
KNOWN = clients_of(
    Client("web", (hash_key(WEB), hash_key(ROTATED)), frozenset({"orders"}), certificates=("dns:web.internal",)),
    Client("batch", (hash_key(BATCH),), None, certificates=("subject:CN=batch,O=Acme", "uri:spiffe://acme/batch")),
)
WEB_CERTIFICATE, BATCH_CERTIFICATE = (
    frozenset({"dns:web.internal", "subject:CN=x"}),
    frozenset({"uri:spiffe://acme/batch"}),
)


def who(
    clients: Clients, key: str | None, bearer: str | None, where: Route, names: frozenset[str] = frozenset()
) -> str:
    first, second = (None if text is None else text.encode("latin-1") for text in (key, bearer))
    return clients.identify(first, second, where, names).name


@pytest.mark.parametrize(
    ("key", "bearer", "where", "client"),
    [
        (WEB, None, ORDERS, "web"),
        (ROTATED, None, ORDERS, "web"),
        (None, WEB, ORDERS, "web"),
        (WEB, BATCH, ORDERS, "web"),
        (WEB, "of an end user", PASSING, "web"),
        (BATCH, None, LEDGER, "batch"),
    ],
    ids=["key", "second key", "bearer", "key before bearer", "key beside a bearer that passes", "any route"],
)
def test_a_known_client_is_let_in(key: str | None, bearer: str | None, where: Route, client: str) -> None:
    assert who(KNOWN, key, bearer, where) == client


UNKNOWN = {
    "nothing": (None, None, ORDERS),
    "unknown key": ("gp_CANARY-nobody", None, ORDERS),
    "empty key beside a good bearer": ("", WEB, ORDERS),
    "unknown key beside a good bearer": ("gp_CANARY-nobody", WEB, ORDERS),
    "space behind": (WEB + " ", None, ORDERS),
    "other case": (WEB.upper(), None, ORDERS),
    "the hash of a key": (hash_key(WEB), None, ORDERS),
    "a JWT where nobody signs any": ("a.b.c", None, ORDERS),
}


@pytest.mark.parametrize(("key", "bearer", "where"), UNKNOWN.values(), ids=UNKNOWN)
def test_anybody_else_is_unknown(key: str | None, bearer: str | None, where: Route) -> None:
    with pytest.raises(ClientUnknown) as refusal:
        who(KNOWN, key, bearer, where)
    assert "CANARY" not in f"{refusal.value!r} {refusal.value.detail} {refusal.value.reason}"


@pytest.mark.parametrize(("key", "bearer"), [("", None), (None, ""), ("", WEB)], ids=["key", "bearer", "beside a key"])
def test_several_keys_or_an_unreadable_one_are_nobody_s_key(key: str | None, bearer: str | None) -> None:
    """Such a request is represented by an empty key, which must not match, even if its hash were a client's."""
    clients = clients_of(Client("empty", (hash_key(""),), None), Client("web", (hash_key(WEB),), None))
    with pytest.raises(ClientUnknown) as refusal:
        who(clients, key, bearer, ORDERS)
    assert refusal.value.reason == "several keys, or none that can be read"


def test_all_who_are_unknown_are_told_the_same() -> None:
    """Whatever was wrong; only the route decides which fields are named."""
    details = set()
    for key, bearer, where in UNKNOWN.values():
        if where is ORDERS:
            with pytest.raises(ClientUnknown) as refusal:
                who(KNOWN, key, bearer, where)
            details.add(refusal.value.detail)
    assert len(details) == 1


def test_a_known_client_on_another_route_is_forbidden_and_told_which_rule() -> None:
    with pytest.raises(ClientForbidden) as refusal:
        who(KNOWN, WEB, None, LEDGER)
    assert refusal.value.detail == "The client web may not use the route ledger"
    assert refusal.value.reason == "clients.web.routes does not name ledger"


def test_open_access_lets_anybody_in_without_a_name() -> None:
    assert who(clients_of(access="open"), "whatever", None, ORDERS) == "-"
    assert who(clients_of(access="open"), None, None, ORDERS) == "-"


def test_without_clients_nobody_is_let_in() -> None:
    with pytest.raises(ClientUnknown):
        who(clients_of(), WEB, None, ORDERS)


def test_two_clients_with_one_key_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="clients a and b have the same key"):
        clients_of(Client("a", (hash_key(WEB),)), Client("b", (hash_key(WEB),)))


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        (new_key(), "removed, or of another gateway"),
        (new_key()[:-1], "mistyped or truncated"),
        ("\xff\xfe", "not a key of this gateway"),
    ],
    ids=["well-formed", "cut", "garbage"],
)
def test_the_operator_learns_what_kind_of_mistake_it_is(presented: str, reason: str) -> None:
    with pytest.raises(ClientUnknown) as refusal:
        who(KNOWN, presented, None, ORDERS)
    assert reason in refusal.value.reason


async def test_a_key_is_unknown_from_its_last_instant_on() -> None:
    """The other key of the client goes on."""
    clock = FakeClock(wall=1_800_000_000.0)
    known = clients_of(
        Client("web", (hash_key(WEB), hash_key(ROTATED)), key_ends=((hash_key(WEB), 1_800_000_010.0),)), clock=clock
    )
    await clock.advance(9.9)
    assert who(known, WEB, None, ORDERS) == "web"
    await clock.advance(0.1)
    with pytest.raises(ClientUnknown) as refusal:
        who(known, WEB, None, ORDERS)
    assert refusal.value.reason == "an expired key of web"
    assert who(known, ROTATED, None, ORDERS) == "web"


async def test_a_connection_remembers_whose_its_last_key_is_and_nothing_else() -> None:
    """The same key is not hashed again; another key, another configuration or the key's end is judged as ever."""
    clock, last = FakeClock(wall=1_800_000_000.0), LastKey()
    known = clients_of(
        Client("web", (hash_key(WEB),), frozenset({"orders"}), key_ends=((hash_key(WEB), 1_800_000_010.0),)),
        Client("batch", (hash_key(BATCH),)),
        clock=clock,
    )

    def again(key: str, clients: Clients = known, where: Route = ORDERS) -> str:
        return clients.identify(key.encode(), None, where, last=last).name

    assert [again(key) for key in (WEB, WEB, BATCH, WEB)] == ["web", "web", "batch", "web"]
    with pytest.raises(ClientUnknown):
        again("gp_CANARY-nobody")
    with pytest.raises(ClientForbidden):
        again(WEB, where=LEDGER)
    with pytest.raises(ClientUnknown):
        again(WEB, clients_of(Client("batch", (hash_key(BATCH),))))
    assert again(WEB) == "web"
    await clock.advance(10)
    with pytest.raises(ClientUnknown) as refusal:
        again(WEB)
    assert refusal.value.reason == "an expired key of web"
    assert "CANARY" not in repr(last)


def test_a_key_that_comes_again_on_its_connection_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    last, hashed = LastKey(), []

    def counting(data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr("gateway.access.clients.sha256", counting)
    for key in (WEB, WEB, WEB, BATCH, BATCH, WEB):
        KNOWN.identify(key.encode(), None, ORDERS, last=last)
    assert hashed == [WEB.encode(), BATCH.encode(), WEB.encode()]


# ------------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("key", "names", "client"),
    [
        (None, WEB_CERTIFICATE, "web"),
        (None, BATCH_CERTIFICATE, "batch"),
        (WEB, WEB_CERTIFICATE, "web"),
        (WEB, frozenset({"dns:elsewhere"}), "web"),
    ],
    ids=["by its host name", "by its URI", "key and certificate agree", "a certificate that says nothing"],
)
def test_a_client_is_known_by_its_certificate(key: str | None, names: frozenset[str], client: str) -> None:
    assert who(KNOWN, key, None, ORDERS, names) == client


@pytest.mark.parametrize(
    ("key", "bearer", "names"),
    [
        (WEB, None, BATCH_CERTIFICATE),
        (None, WEB, BATCH_CERTIFICATE),
        ("gp_CANARY-nobody", None, WEB_CERTIFICATE),
        ("", None, WEB_CERTIFICATE),
        (None, None, frozenset({"dns:elsewhere"})),
        (None, None, WEB_CERTIFICATE | BATCH_CERTIFICATE),
    ],
    ids=["disagree", "bearer disagrees", "unknown key", "two keys", "nobody's certificate", "fits two clients"],
)
def test_a_certificate_does_not_mend_what_else_is_wrong(
    key: str | None, bearer: str | None, names: frozenset[str]
) -> None:
    with pytest.raises(ClientUnknown):
        who(KNOWN, key, bearer, ORDERS, names)


def test_a_certificate_opens_only_its_client_s_routes() -> None:
    with pytest.raises(ClientForbidden) as refusal:
        who(KNOWN, None, None, LEDGER, WEB_CERTIFICATE)
    assert refusal.value.client == "web", "so that the log and the counts name it"


# ------------------------------------------------------------------------------------- what never travels to a vendor


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


FIELDS = {
    **{f"{form} {name}": form.replace("KEY", key) for name, key in (("web", WEB), ("batch", BATCH)) for form in (
        "Bearer KEY", "KEY", "bearer  KEY", "Basic KEY", "Bearer\tKEY", "Bearer\t \tKEY\t", "Bearer KEY, x=y",
        "Bearer x=y,KEY", 'Token token="KEY"', "Token token=KEY", "Token token='KEY', nonce=1", "Token <KEY>",
        "Bearer KEY;x", "Bearer:KEY", "ApiKey user:KEY", 'Digest username="x", response="KEY"', "Bearer (KEY)",
        "KEY Bearer", "Bearer end-user KEY", "Bearer a&key=KEY", "Bearer {KEY}", 'Bearer "KEY',
    )},
    "password": f"Basic {basic('user', WEB)}",
    "user": f"Basic {basic(WEB, '')}",
    "both": f"Basic {basic('', WEB)}, realm=x",
    "without padding": f"Basic {basic('u', WEB).rstrip('=')}",
    "base64 alone": "Bearer " + base64.urlsafe_b64encode(WEB.encode()).decode(),
    "percent-encoded": "Bearer " + "".join(f"%{ord(char):02x}" for char in WEB),
    "percent-encoded in base64": f"Basic {basic('u', WEB.replace('-', '%2D').replace('_', '%5F'))}",
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_a_gateway_key_in_an_authorization_that_is_passed_on_is_stopped(field: str) -> None:
    with pytest.raises(ClientForbidden) as refusal:
        KNOWN.reject_our_keys([field])
    assert "CANARY" not in f"{refusal.value.detail} {refusal.value.reason}"


def test_an_end_user_s_authorization_goes_on() -> None:
    KNOWN.reject_our_keys(["Bearer of-an-end-user", "", "\udcff", f"Basic {basic('end', 'user')}", 'Digest a="b", c=d'])
    ticket = base64.b64encode(bytes(range(256)) * 30).decode()
    KNOWN.reject_our_keys([f"Negotiate {ticket}", f"Bearer {'a' * 8000}", f"Bearer {'a.' * 4000}"])


def test_an_authorization_of_countless_parts_is_stopped_unread() -> None:
    with pytest.raises(ClientForbidden, match="too many parts"):
        KNOWN.reject_our_keys(["Bearer " + "a," * 1000])


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
