"""Passes: for one client, one route and one key; nobody else can make one, and none outlives what it was given for."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from gateway.access import NOBODY, Clients, hash_key
from gateway.access.keys import PASS_PREFIX, is_pass
from gateway.access.pass_secrets import LEEWAY, LIFE, Former, issuer_holder, remember_replaced
from gateway.access.passes import Passes
from gateway.config import load
from gateway.errors import AppTokenRefused, ClientUnknown, ConfigError
from gateway.model import Client, Secret
from tests.kit.clients import ORDERS, clients_of
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config, Route

KEY, OTHER = "gp_CANARY-one", "gp_CANARY-two"
NOW = 1_000_000_000.25


def holder(key: str = KEY) -> bytes:
    return sha256(key.encode()).digest()


def config(
    tmp_path: Path,
    secret: str = "CANARY-A",
    following: str = "",
    extra: str = "",
    clients: str = "",
    *,
    body: str = 'form: {client_secret: "${SECRET}"}',
) -> Config:
    text = f"""\
clients:
{clients or f"  - {{name: web, key_sha256: {hash_key(KEY)}}}"}
  - {{name: other, key_sha256: {hash_key(OTHER)}}}
credentials:
  v:
    grant:
      request: {{url: "http://127.0.0.1/t", {body}}}
      response: {{expires: {{in: expires_in}}}}
{'    next: {grant: {request: {form: {client_secret: "${NEXT}"}}}}' if following else ""}
routes:
  v: {{credential: v, upstream: "http://127.0.0.1:9"}}
  w: {{credential: v, upstream: "http://127.0.0.1:9"}}
{extra}
"""
    (tmp_path / "c.yaml").write_text(text)
    return load([tmp_path / "c.yaml"], environ={"SECRET": secret, "NEXT": following, "OWN": "CANARY-own" * 4})


class Bench:
    """Two routes, two clients, a clock."""

    def __init__(self, config: Config, former: Former | None = None) -> None:
        self.now = NOW
        self.passes = Passes(config, wall=lambda: self.now, former=former)
        self.v, self.w = config.routes

    def issue(self, key: str = KEY, client: str = "web", **ends: float) -> str:
        return self.passes.issue(client, self.v, holder(key), **ends)[0]

    def verify(self, token: str, route: Route | None = None) -> Any:
        return self.passes.verify(token.encode(), sha256(token.encode()).digest(), route or self.v)


def proves(bench: Bench, token: str) -> bool:
    """Whether the token is taken for a pass that holds."""
    try:
        return bench.verify(token) is not None
    except ClientUnknown:
        return False


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(config(tmp_path))


def test_a_pass_proves_its_client_until_it_ends(bench: Bench) -> None:
    token = bench.issue()
    assert bench.verify(token).client == "web"
    assert bench.verify(token) is bench.verify(token)  # verified once
    bench.now += LIFE + LEEWAY - 1
    assert bench.verify(token).client == "web"
    bench.now += 1
    with pytest.raises(ClientUnknown):
        bench.verify(token)


def test_a_pass_holds_the_claims_of_an_access_token_and_no_secret(bench: Bench) -> None:
    token = bench.issue()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("gatepass", "web", "v")
    assert claims["exp"] - claims["iat"] == LIFE
    for part in token.split(".")[:2]:
        text = urlsafe_b64decode(part + "==").decode()
        assert KEY not in text
        assert hash_key(KEY)[:12] not in text
        assert "CANARY-A" not in text


def test_it_opens_no_other_route(bench: Bench) -> None:
    with pytest.raises(ClientUnknown):
        bench.verify(bench.issue(), bench.w)


def test_an_instance_with_the_same_configuration_knows_it_and_one_with_another_secret_does_not(tmp_path: Path) -> None:
    token = Bench(config(tmp_path)).issue()
    assert Bench(config(tmp_path)).verify(token).client == "web"
    with pytest.raises(ClientUnknown):
        Bench(config(tmp_path, secret="CANARY-B")).verify(token)


def test_it_dies_with_its_key_and_with_its_client(tmp_path: Path) -> None:
    token = Bench(config(tmp_path)).issue()
    other_key = f"  - {{name: web, key_sha256: {hash_key('gp_CANARY-three')}}}"
    with pytest.raises(ClientUnknown):
        Bench(config(tmp_path, clients=other_key)).verify(token)
    renamed = f"  - {{name: web2, key_sha256: {hash_key(KEY)}}}"
    with pytest.raises(ClientUnknown):
        Bench(config(tmp_path, clients=renamed)).verify(token)


def test_a_vendor_that_knows_its_secret_cannot_make_one(bench: Bench) -> None:
    """The head, the claims and the vendor's own secret are not enough; nor is another client's pass."""
    token = bench.issue()
    head, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    for key in (sha256(b"CANARY-A").digest(), holder(), holder(OTHER)):
        for algorithm in ("HS256", "HS384"):
            forged = jwt.encode(claims, key * 2, algorithm, headers=head)
            with pytest.raises(ClientUnknown):
                bench.verify(forged)
    with pytest.raises(ClientUnknown):
        bench.verify(jwt.encode(claims | {"sub": "other"}, holder(), "HS256", headers=head))
    unsigned = urlsafe_b64encode(json.dumps(head | {"alg": "none"}).encode()).decode().rstrip("=")
    none = f"{unsigned}.{token.split('.')[1]}."
    assert not proves(bench, none)


def test_a_changed_signature_or_claim_is_refused(bench: Bench) -> None:
    head, claims, signature = bench.issue().split(".")
    for changed in (
        f"{head}.{claims}.{signature[:-2]}AA",
        f"{head}.{claims}.{signature}==",
        f"{head}.{claims[:-2]}A.{signature}",
    ):
        assert not proves(bench, changed)


def test_a_pass_is_accepted_a_little_longer_but_never_longer_than_its_key(tmp_path: Path) -> None:
    ends = "2001-09-09T01:46:50Z"  # ten seconds from now
    key = f"  - {{name: web, keys: [{{sha256: {hash_key(KEY)}, expires: {ends}}}]}}"
    bench = Bench(config(tmp_path, clients=key))
    token = bench.issue()
    bench.now = NOW + 9
    assert bench.verify(token).client == "web"
    bench.now = NOW + 10
    assert not proves(bench, token)


@pytest.mark.parametrize(("left", "life"), [(100.0, 100), (1.9, 1), (1e9, LIFE)])
def test_a_pass_ends_with_its_key_in_whole_seconds(bench: Bench, left: float, life: int) -> None:
    assert bench.passes.issue("web", bench.v, holder(), NOW + left)[1] == life


def test_a_key_with_less_than_a_second_left_gets_none(bench: Bench) -> None:
    with pytest.raises(ClientUnknown):
        bench.passes.issue("web", bench.v, holder(), NOW + 0.9)


def test_what_is_no_pass_is_left_to_others(bench: Bench) -> None:
    for token in ("a.b.c", jwt.encode({"iss": "https://idp"}, "x" * 32), jwt.encode({"iss": "gatepass"}, "x" * 32)):
        assert bench.verify(token) is None
        assert not is_pass(token.encode())
    assert is_pass(bench.issue().encode())
    assert not is_pass(b"\xff.\xff.\xff")


def test_a_rotation_that_both_sides_know_ends_no_pass(tmp_path: Path) -> None:
    """`next_…` makes both secrets known: passes of instances before, within and after it."""
    before, during = Bench(config(tmp_path)), Bench(config(tmp_path, following="CANARY-B"))
    assert during.verify(before.issue()).client == "web"
    assert before.verify(during.issue()).client == "web"


def test_a_reload_that_replaces_a_secret_ends_no_pass(tmp_path: Path) -> None:
    old, new, former = config(tmp_path), config(tmp_path, secret="CANARY-B"), Former()
    token = Bench(old).issue()
    remember_replaced(old, new, former, NOW)
    bench = Bench(new, former)
    assert bench.verify(token).client == "web"
    bench.now = NOW + LIFE
    late = Bench(old)
    late.now = NOW + 1800
    with pytest.raises(ClientUnknown):  # signed after the reload, by somebody who has the old secret: for an hour only
        bench.verify(late.issue())


@pytest.mark.parametrize("body", ['json: {auth: {client_secret: "${SECRET}"}}', 'json: {secrets: ["${SECRET}"]}'])
def test_a_secret_anywhere_in_a_json_body_signs_passes(tmp_path: Path, body: str) -> None:
    token = Bench(config(tmp_path, body=body)).issue()
    assert Bench(config(tmp_path, body=body)).verify(token).client == "web"
    with pytest.raises(ClientUnknown):
        Bench(config(tmp_path, secret="CANARY-B", body=body)).verify(token)


def test_a_client_known_by_jwt_needs_a_key_of_the_gateways_own(tmp_path: Path) -> None:
    clients = "  - {name: web, jwt: [{issuer: idp, claims: {sub: web}}]}"
    issuers = "issuers: {idp: {issuer: 'https://idp', audience: [gatepass], jwks_url: 'https://idp.example/jwks'}}"
    without = Bench(config(tmp_path, clients=clients, extra=issuers))
    with pytest.raises(AppTokenRefused, match="app_token_key"):
        without.passes.issue("web", without.v, issuer_holder("idp"))
    own = Bench(config(tmp_path, clients=clients, extra=f'{issuers}\napp_token_key: "${{OWN}}"'))
    token, life = own.passes.issue("web", own.v, issuer_holder("idp"), NOW + 30)
    assert life == 30
    assert own.verify(token).client == "web"
    gone = Bench(config(tmp_path, extra='app_token_key: "${OWN}"'))
    with pytest.raises(ClientUnknown):
        gone.verify(token)


def test_no_pass_prints_what_signs_it(bench: Bench) -> None:
    token = bench.issue()
    for text in (repr(bench.passes), repr(bench.verify(token)), json.dumps(jwt.get_unverified_header(token))):
        assert "CANARY" not in text


def test_a_short_key_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"app_token_key.*at least 32"):
        config(tmp_path, extra='app_token_key: "${SECRET}"')


# --------------------------------------------------------------------------------------------- who gets and uses one

OWN = Secret("CANARY-own" * 4)
NAME, OTHERS_NAME = "dns:web.internal", "dns:batch.internal"


def clients(clock: FakeClock | None = None, **web: Any) -> Clients:
    """Two clients with certificates; `web` changes the first one."""
    first = Client("web", (hash_key(KEY),), certificates=(NAME,), **web)
    other = Client("batch", (hash_key(OTHER),), certificates=(OTHERS_NAME,))
    return clients_of(first, other, clock=clock, app_token_key=OWN)


async def issued(them: Clients, certificate: frozenset[str] = NOBODY) -> bytes:
    token, _ = await them.issue(them.holder((KEY.encode(),), ORDERS, certificate), ORDERS)
    return token.encode()


async def test_a_pass_authenticates_its_client_only_while_the_route_gives_passes() -> None:
    them = clients()
    token = await issued(them)
    assert them.identify(None, token, ORDERS).name == "web"
    with pytest.raises(ClientUnknown) as refusal:
        them.identify(None, token, replace(ORDERS, app_tokens=False))
    assert refusal.value.reason == "a pass on a route that takes none"


async def test_a_token_of_another_issuer_that_begins_like_a_pass_is_an_unknown_key() -> None:
    them = clients()
    await issued(them)  # else the first look asks for `passes.py` to be loaded
    token = jwt.encode({"iss": "https://idp.example"}, "x" * 32, "HS256", headers={"kid": "1", "typ": "JWT"}).encode()
    assert token.startswith(PASS_PREFIX)
    with pytest.raises(ClientUnknown) as refusal:
        them.identify(None, token, ORDERS)
    assert refusal.value.reason == "not a key of this gateway"


async def test_a_key_gets_no_pass_from_the_instant_at_which_it_ends() -> None:
    clock = FakeClock()
    them = clients(clock, key_ends=((hash_key(KEY), clock.wall() + 60),))
    assert await issued(them)
    await clock.advance(60)
    with pytest.raises(ClientUnknown) as refusal:
        them.holder((KEY.encode(),), ORDERS, NOBODY)
    assert refusal.value.reason == "an expired key of web"


async def test_a_key_with_the_certificate_of_another_client_gets_no_pass() -> None:
    them = clients()
    assert await issued(them, frozenset({NAME}))
    for names in ({OTHERS_NAME}, {NAME, OTHERS_NAME}):
        with pytest.raises(ClientUnknown) as refusal:
            them.holder((KEY.encode(),), ORDERS, frozenset(names))
        assert refusal.value.reason.startswith("the key of web with a certificate of batch")
