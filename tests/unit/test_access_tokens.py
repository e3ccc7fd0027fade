"""Clients by JWT: which tokens prove something, which never do, and what happens while keys change or are missing."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest
from structlog.testing import capture_logs

from gateway.access import Access, Clients, SigningKeysNeeded
from gateway.access.jwt import JwtVerifier, _matches
from gateway.access.keysets import MOST_BYTES, MOST_WAITING, JwksFetcher, KeySet, read_keys
from gateway.access.pass_loader import PassLoader
from gateway.addresses import Networks
from gateway.errors import ClientForbidden, ClientUnknown, IdentityUnavailable
from gateway.model import Client, ClientClaims, Issuer
from gateway.observe import Metrics
from tests.kit.clients import LEDGER, ORDERS, config_of
from tests.kit.clock import FakeClock
from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.metrics import sample
from tests.kit.signing import AUDIENCE, ISSUER, WALL, claims, forged, jwk, jwks, key, public_pem, token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.model import Route

CLIENTS = (
    Client("web", (), frozenset({"orders"}), jwt=(ClientClaims("corp", (("azp", "web"),)),)),
    Client("batch", (), None, jwt=(ClientClaims("corp", (("azp", "batch"), ("team", "4711"))),)),
    Client("twin", (), None, jwt=(ClientClaims("corp", (("azp", "batch"), ("twin", "yes"))),)),
)


def _with_other_last_bits(text: str) -> str:
    """Return the token with another last character that decodes to the same bytes (256 bytes leave 4 bits unused)."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + digits[digits.index(text[-1]) ^ 1]


class Stage:
    """An issuer whose JWKS endpoint does as it is told."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.clock = FakeClock(wall=WALL)
        self.metrics = Metrics()
        self.answer: bytes | Exception = jwks(*map(jwk, names or ("rsa-1",)))
        self.asked = 0
        self.hold: asyncio.Event | None = None
        self.issuer = Issuer("corp", ISSUER, (AUDIENCE,), **{"jwks_url": "https://login.example/keys", **more})
        self.keys = KeySet(self.issuer, clock=self.clock, metrics=self.metrics, fetch=self._fetch)
        self.verifier = JwtVerifier([self.keys], CLIENTS, clock=self.clock)
        self.clients: Clients | None = None

    async def _fetch(self, issuer: Issuer) -> bytes:
        assert issuer is self.issuer
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def __aenter__(self) -> Self:
        self.keys.start()
        await self.clock.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keys.stop()

    def who(self, text: str, route: Route = ORDERS) -> str:
        from gateway.access import MemoryCounters

        if self.clients is None:
            config = config_of(*CLIENTS)
            self.clients = Clients(
                config,
                store=MemoryCounters(),
                metrics=self.metrics,
                clock=self.clock,
                loader=PassLoader(config, wall=self.clock.wall, former={}),
                verifier=self.verifier,
            )
        return self.clients.identify(None, text.encode(), route).name

    async def who_later(self, text: str) -> str:
        """As the handler does it: look once where a key is wanted."""
        try:
            return self.who(text)
        except SigningKeysNeeded as wanted:
            await wanted.keys.refetch()
            return self.who(text)


# ------------------------------------------------------------------------------------------------------- good and bad


@pytest.mark.parametrize(
    ("text", "client"),
    [
        (token, "web"),
        (lambda: token("ec-1", "ES256"), "web"),
        (lambda: token(aud=[AUDIENCE, "other"]), "web"),
        (lambda: token(azp="batch", team=4711), "batch"),
        (lambda: token(azp=["x", "web"]), "web"),
        (lambda: token(exp=WALL - 29), "web"),
        (lambda: token(nbf=WALL + 29, iat=WALL + 29), "web"),
    ],
    ids=["RS256", "ES256", "several audiences", "two claims", "a claim that is a list", "just expired", "just not yet"],
)
async def test_a_token_that_holds_proves_its_client(text: Callable[[], str], client: str) -> None:
    async with Stage("rsa-1", "ec-1") as stage:
        assert stage.who(text()) == client


@pytest.mark.parametrize(
    ("claim", "value", "same"),
    [
        (True, "true", True),
        ("true", "true", True),
        (True, "True", False),
        (True, "1", False),
        (1, "true", False),
        (False, "false", True),
        (None, "null", False),
        (None, "None", False),
        (42, "42", True),
        (42.0, "42", True),
        (4.5, "4.5", True),
        ("42", "42", True),
        ("42.0", "42", False),
        (-1, "-1", True),
        (10**30, str(10**30), True),
        ([True, "x"], "true", True),
        ([["true"]], "true", False),
        ({"true": "true"}, "true", False),
        ([], "", False),
    ],
)
def test_a_claim_is_compared_as_text(claim: object, value: str, same: bool) -> None:
    assert _matches(claim, value) is same


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"exp": WALL - 30}, "that has expired"),
        ({"exp": 0}, "that has expired"),
        ({"exp": WALL * 1000}, "whose exp is not a time in seconds since 1970"),
        ({"exp": str(WALL)}, "whose exp is not a time in seconds since 1970"),
        ({"exp": True}, "whose exp is not a time in seconds since 1970"),
        ({"nbf": WALL + 31}, "whose nbf is in the future"),
        ({"nbf": WALL * 1000}, "whose nbf is not a time in seconds since 1970"),
        ({"iat": WALL + 31}, "whose iat is in the future"),
        ({"iat": "2027-01-15"}, "whose iat is not a time in seconds since 1970"),
    ],
)
async def test_the_log_says_what_is_wrong_with_the_times_of_a_token(more: dict[str, Any], reason: str) -> None:
    async with Stage("rsa-1") as stage:
        with pytest.raises(ClientUnknown) as refusal:
            await stage.who_later(token(**more))
    assert refusal.value.reason == f"a JWT of corp {reason}"


BAD: dict[str, Callable[[], str]] = {
    "alg none": lambda: forged({"alg": "none", "kid": "rsa-1"}, claims()),
    "alg None with a signature": lambda: forged({"alg": "None", "kid": "rsa-1"}, claims(), b"x"),
    "HS256 with the RSA key": lambda: forged({"alg": "HS256", "kid": "rsa-1"}, claims(), public_pem("rsa-1")),
    "RS256 with an HMAC": lambda: forged({"alg": "RS256", "kid": "rsa-1"}, claims(), public_pem("rsa-1")),
    "an algorithm that is not pinned": lambda: token(algorithm="PS256"),
    "another algorithm for the key": lambda: token("ec-1", "ES256", {"kid": "rsa-1"}),
    "somebody else's signature": lambda: token("rsa-2", header={"kid": "rsa-1"}),
    "nbf in the future": lambda: token(nbf=WALL + 60),
    "iat in the future": lambda: token(iat=WALL + 60),
    "expired": lambda: token(exp=WALL - 31),
    "no exp": lambda: token(exp=None),
    "exp that is text": lambda: token(exp="1900000000"),
    "exp that is true": lambda: token(exp=True),
    "exp without end": lambda: forged({"alg": "RS256", "kid": "rsa-1"}, claims(exp=1e300)),
    "wrong audience": lambda: token(aud="another"),
    "no audience": lambda: token(aud=None),
    "wrong issuer": lambda: token(iss="https://evil.example"),
    "issuer with a slash more": lambda: token(iss=ISSUER + "/"),
    "no issuer": lambda: token(iss=None),
    "issuer that is a list": lambda: forged({"alg": "RS256", "kid": "rsa-1"}, claims(iss=[ISSUER])),
    "no client has these claims": lambda: token(azp="nobody"),
    "a claim in another case": lambda: token(azp="WEB"),
    "one claim of two": lambda: token(azp="batch"),
    "two clients fit": lambda: token(azp="batch", team=4711, twin="yes"),
    "critical extension": lambda: token(header={"crit": ["exp"]}),
    "kid that is a number": lambda: forged({"alg": "RS256", "kid": 1}, claims()),
    "alg that is a list": lambda: forged({"alg": ["RS256"], "kid": "rsa-1"}, claims()),
    "own key in the header": lambda: token("rsa-2", header={"jwk": jwk("rsa-2"), "kid": "rsa-1"}),
    "cut": lambda: token()[:-3],
    "one character changed": lambda: token()[:60] + ("A" if token()[60] != "A" else "B") + token()[61:],
    "dots": lambda: "..",
    "padding behind the signature": lambda: token() + "==",
    "one padding character": lambda: token() + "=",
    "padding behind the claims": lambda: "{}.{}==.{}".format(*token().split(".")),
    "a character that decoders skip": lambda: token() + "!",
    "a line end": lambda: token() + "\n",
    "the other base64": lambda: token().replace("-", "+").replace("_", "/") if "-" in token() else token() + "+",
    "bits behind the last byte": lambda: _with_other_last_bits(token()),
    "not base64": lambda: "ä.ö.ü",
    "deep JSON": lambda: f"{'eyJhbGciOiJSUzI1NiJ9'}.{'W1tb' * 1500}.x",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_a_token_that_does_not_hold_proves_nothing(text: Callable[[], str]) -> None:
    """And what is said of it holds nothing of it."""
    async with Stage("rsa-1", "ec-1") as stage:
        made = text()
        with pytest.raises(ClientUnknown) as refusal:
            await stage.who_later(made)
        assert refusal.value.detail.startswith("No client matches the credentials")
        assert not any(part in refusal.value.reason for part in made.split(".") if len(part) > 8)


async def test_a_token_opens_only_its_client_s_routes_and_where_a_claim_narrows_it_only_those() -> None:
    async with Stage(routes_claim="routes") as stage:
        batch: dict[str, Any] = {"azp": "batch", "team": "4711"}
        assert stage.who(token(**batch, routes=["orders"]), ORDERS) == "batch"
        assert stage.who(token(**batch, routes="x orders"), ORDERS) == "batch"
        for routes in ("ledger", ["ledger"], "", [], None, 7, {"orders": 1}):
            with pytest.raises(ClientForbidden):
                stage.who(token(**batch, routes=routes), ORDERS)
        with pytest.raises(ClientForbidden) as refusal:
            stage.who(token(routes="orders ledger"), LEDGER)
        assert refusal.value.client == "web"
        with pytest.raises(ClientForbidden) as refusal:
            stage.who(token(**batch, routes=["ledger"]), ORDERS)
        assert refusal.value.client == "batch"


async def test_on_a_route_that_passes_authorization_a_token_for_us_is_stopped_and_an_end_user_s_goes_on() -> None:
    async with Stage() as stage:
        stage.who(token(), ORDERS)
        assert stage.clients is not None
        for form in ("Bearer {}", "Bearer\t{}", "Bearer {}, x=y", 'Token token="{}"', "Basic {}", "x:{}"):
            with pytest.raises(ClientForbidden):
                stage.clients.reject_our_keys([form.format(token())])
        in_base64 = base64.b64encode(f"user:{token()}".encode()).decode()
        with pytest.raises(ClientForbidden):
            stage.clients.reject_our_keys([f"Basic {in_base64}"])
        with pytest.raises(ClientForbidden):
            stage.clients.reject_our_keys([f"Bearer {token(exp=WALL - 999, aud=['x', AUDIENCE])}"])
        others = [token(aud="vendor"), token(iss="https://users.example"), token(aud=None)]
        others += [forged({"alg": "none"}, claims(aud=odd)) for odd in (5, {"gatepass": 1}, [["gatepass"]])]
        stage.clients.reject_our_keys([f"Bearer {text}" for text in others])


# --------------------------------------------------------------------------------------------------------- remembered


async def test_a_verified_token_is_remembered_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stage() as stage:
        text = token(exp=WALL + 60)
        assert stage.who(text) == "web"
        monkeypatch.setattr(JwtVerifier, "_verify", lambda *_: pytest.fail("verified again"))
        assert stage.who(text) == "web"
        monkeypatch.undo()
        await stage.clock.advance(89)
        assert stage.who(text) == "web"
        await stage.clock.advance(1)
        with pytest.raises(ClientUnknown, match="matches the credentials"):
            stage.who(text)


async def test_a_key_that_the_issuer_takes_back_takes_its_tokens_along() -> None:
    async with Stage("rsa-1", "ec-1") as stage:
        text = token()
        assert stage.who(text) == "web"
        stage.answer = jwks(jwk("ec-1"))
        await stage.clock.advance(stage.issuer.refresh)
        with pytest.raises(ClientUnknown):
            await stage.who_later(text)


async def test_memory_for_tokens_is_bounded() -> None:
    async with Stage("ec-1") as stage:
        assert stage.verifier._verified.maxsize == 4096


# ----------------------------------------------------------------------------------------------------- keys that change


async def test_a_token_under_a_new_key_is_let_in_after_one_look() -> None:
    async with Stage() as stage:
        stage.answer = jwks(jwk("rsa-1"), jwk("rsa-2"))
        assert await stage.who_later(token("rsa-2")) == "web"
        assert stage.asked == 2


async def test_an_endpoint_that_hangs_makes_only_so_many_requests_wait() -> None:
    """The others hear at once that their token cannot be judged now, and a token under a known key is let in."""
    async with Stage() as stage:
        assert stage.who(token("rsa-1")) == "web"
        stage.hold = asyncio.Event()
        asking = [asyncio.create_task(stage.who_later(token("rsa-2"))) for _ in range(MOST_WAITING)]
        await stage.clock.settle()
        for _ in range(3):
            with pytest.raises(IdentityUnavailable, match="verified") as refusal:
                stage.who(token("rsa-2"))
            assert not isinstance(refusal.value, SigningKeysNeeded)
            assert refusal.value.retry_after == 1
        assert stage.who(token("rsa-1")) == "web"
        stage.hold.set()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(each) for each in ended} == {ClientUnknown}
        with pytest.raises(ClientUnknown):
            stage.who(token("rsa-2"))


async def test_unknown_keys_cost_at_most_one_look_in_thirty_seconds_and_everybody_shares_it() -> None:
    async with Stage() as stage:
        stage.hold = asyncio.Event()
        asking = [asyncio.create_task(stage.who_later(token("rsa-2"))) for _ in range(20)]
        await stage.clock.settle()
        stage.hold.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(result, ClientUnknown) for result in results)
        for _ in range(20):
            with pytest.raises(ClientUnknown):
                await stage.who_later(token("rsa-2"))
        assert stage.asked == 2
        await stage.clock.advance(30)
        with pytest.raises(ClientUnknown):
            await stage.who_later(token("rsa-2"))
        assert stage.asked == 3


async def test_an_issuer_that_a_reload_takes_away_takes_no_waiting_request_along() -> None:
    async with Stage() as stage:
        stage.hold = asyncio.Event()
        asking = asyncio.create_task(stage.who_later(token("rsa-2")))
        await stage.clock.settle()
        await stage.keys.stop()
        with pytest.raises(ClientUnknown):
            await asking


async def test_keys_are_refreshed_in_the_background() -> None:
    async with Stage() as stage:
        await stage.clock.advance(3 * stage.issuer.refresh)
        assert stage.asked == 4


@pytest.mark.parametrize(
    "answer",
    [OSError("no route"), TimeoutError(), b"<html>", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "eA"}]}'],
    ids=["down", "slow", "HTML", "no keys", "no key", "only a shared secret"],
)
async def test_old_keys_go_on_while_the_endpoint_is_down_then_nobody_can_be_judged(answer: bytes | Exception) -> None:
    """Never open; and as soon as it answers again, all is well."""
    async with Stage(max_age=600.0) as stage:
        stage.answer, good = answer, stage.answer
        await stage.clock.advance(600)
        assert stage.who(token(exp=WALL + 9999)) == "web"
        await stage.clock.advance(1)
        await stage.clock.settle()
        for _ in range(3):
            with pytest.raises(IdentityUnavailable) as refusal:
                await stage.who_later(token(exp=WALL + 9999))
            assert refusal.value.retry_after
        stage.answer = good
        await stage.clock.advance(60)
        assert await stage.who_later(token(exp=WALL + 9999)) == "web"


async def test_an_endpoint_that_is_down_is_asked_ever_more_rarely() -> None:
    async with Stage() as stage:
        stage.answer = OSError("down")
        await stage.clock.advance(stage.issuer.refresh)
        before = stage.asked
        await stage.clock.advance(120)
        assert 5 <= stage.asked - before <= 8


async def test_without_any_keys_yet_a_token_waits_for_the_first_look() -> None:
    stage = Stage()
    stage.hold = asyncio.Event()
    async with stage:
        asking = asyncio.create_task(stage.who_later(token()))
        await stage.clock.settle()
        assert not asking.done()
        stage.hold.set()
        assert await asking == "web"
        assert stage.asked == 1


async def test_the_metrics_say_how_the_keys_were_had() -> None:
    async with Stage() as stage:
        stage.answer = OSError("down")
        await stage.clock.advance(stage.issuer.refresh)
        value = partial(sample, stage.metrics)
        assert value("gatepass_issuer_key_fetches_total", {"issuer": "corp", "outcome": "ok"}) == 1
        assert value("gatepass_issuer_key_fetches_total", {"issuer": "corp", "outcome": "failed"}) == 1
        assert value("gatepass_issuer_keys_last_success_timestamp_seconds", {"issuer": "corp"})


async def test_keys_of_a_file_never_grow_old_and_are_never_fetched(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(jwk("rsa-1")))
    async with Stage(jwks_url=None, jwks_file=path) as stage:
        await stage.clock.advance(10 * 86400)
        assert stage.who(token(exp=WALL + 11 * 86400)) == "web"
        with pytest.raises(ClientUnknown):
            stage.who(token("rsa-2", exp=WALL + 11 * 86400))
        assert stage.asked == 0


async def test_keys_that_could_not_be_fetched_for_lack_of_a_descriptor_are_told_apart() -> None:
    with capture_logs() as events:
        async with Stage() as stage:
            stage.answer = OSError(errno.EMFILE, "Too many open files")
            await stage.clock.advance(100_000)
    [reason] = {each["reason"] for each in events if each["event"] == "issuer_keys_not_fetched"}
    assert reason == "no file descriptor is left, raise the limit of open files"


async def test_whatever_goes_wrong_with_a_fetch_the_keys_are_asked_for_again() -> None:
    """A defect in a library, say: else the keys would grow old unseen until nobody is let in."""
    async with Stage() as stage:
        stage.answer = RuntimeError("CANARY")
        await stage.clock.advance(stage.issuer.refresh + 1)
        assert stage.asked == 2
        assert stage.who(token(exp=WALL + 86400)) == "web"
        stage.answer = jwks(jwk("rsa-2"))
        await stage.clock.advance(stage.issuer.refresh)
        assert stage.who(token("rsa-2", exp=WALL + 86400)) == "web"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(404, jwks(jwk("rsa-1"))), "the answer has status 404"),
        (Answer(302, headers=(("Location", "/elsewhere"),)), "the answer has status 302"),
        (Answer(200, b" " * (MOST_BYTES + 1)), "the answer is too large"),
    ],
    ids=["not found", "a redirect", "too large"],
)
async def test_an_answer_without_a_document_is_not_read_and_the_log_gets_the_reason(
    answer: Answer, reason: str
) -> None:
    allowed = Networks(["127.0.0.0/8"])
    async with TokenEndpoint(always=answer) as endpoint:
        issuer = Issuer("corp", ISSUER, (AUDIENCE,), jwks_url=endpoint.url)
        with pytest.raises(ValueError, match=f"^{reason}$"):
            await JwksFetcher(allowed)(issuer)
        assert endpoint.count == 1
        endpoint.always = Answer(200, b" " * MOST_BYTES)
        assert len(await JwksFetcher(allowed)(issuer)) == MOST_BYTES


# ----------------------------------------------------------------------------------------------------------- reloading


async def test_a_file_of_keys_that_went_bad_before_a_reload_changes_nothing(tmp_path: Path) -> None:
    """As it is with a URL; and the next reload takes up what was mended."""
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(jwk("rsa-1")))
    config = config_of(*CLIENTS, issuers=(Issuer("corp", ISSUER, (AUDIENCE,), jwks_file=path),))
    access = Access(config, clock=FakeClock(wall=WALL), metrics=Metrics())
    presented = token().encode()
    for document in (jwks(jwk("rsa-1")), b"{broken", jwks(jwk("rsa1024-1"))):
        path.write_bytes(document)
        assert access.clients(config).identify(None, presented, ORDERS).name == "web"
    path.write_bytes(jwks(jwk("rsa-2")))
    clients = access.clients(config)
    with pytest.raises(ClientUnknown):
        clients.identify(None, presented, ORDERS)
    assert clients.identify(None, token("rsa-2").encode(), ORDERS).name == "web"
    await access.stop()


async def test_a_configuration_that_is_refused_leaves_the_issuers_of_the_old_one_alone() -> None:
    """Their keys would grow old unseen, and a day later nobody would be let in. The new ones' are asked no more."""
    corp = Issuer("corp", ISSUER, (AUDIENCE,), jwks_url="http://127.0.0.1:9/keys")
    other = Issuer("other", "https://other.example", (AUDIENCE,), jwks_url="http://127.0.0.1:9/keys")
    clock = FakeClock(wall=WALL)
    before = config_of(*CLIENTS, issuers=(corp,))
    access = Access(before, clock=clock, metrics=Metrics())
    access.clients(before)
    (kept,) = access._keysets.values()
    twins = (Client("one", ("ab" * 32,)), Client("two", ("ab" * 32,)))
    with pytest.raises(ValueError, match="the same key"):
        access.clients(config_of(*twins, issuers=(other,)))
    access.keep(before)
    await clock.settle()
    assert list(access._keysets.values()) == [kept]
    assert kept._refreshing is not None
    assert not kept._refreshing.done()
    after = config_of(*CLIENTS[:1], issuers=(other,))
    access.clients(after)
    access.keep(after)
    await clock.settle()
    assert [keys.issuer for keys in access._keysets.values()] == [other]
    assert kept._refreshing.done()
    await access.stop()


# ------------------------------------------------------------------------------------------------------ reading a JWKS


def test_only_public_keys_for_verifying_with_a_pinned_algorithm_are_taken() -> None:
    private = {**jwk("rsa-1"), "d": "AQAB"}
    document = jwks(
        jwk("rsa-1"),
        jwk("rsa-2", use="enc"),
        jwk("rsa-3", alg="RS512"),
        jwk("rsa-4", key_ops=["encrypt"]),
        jwk("ec-1", alg="ES256", use="sig", key_ops=["verify"]),
        jwk("rsa1024"),
        {**private, "kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"},
        {"kty": "RSA", "kid": "broken", "n": "?", "e": "AQAB"},
        {"kty": ["RSA"]},
        {**jwk("rsa-1"), "kid": ["x"], "alg": ["RS256"], "use": ["sig"]},
        "no mapping",
    )
    found = read_keys(document, ("RS256", "ES256"))
    assert {kid for kid, _ in found if kid} == {"rsa-1", "ec-1"}


async def test_a_token_without_kid_is_judged_only_where_one_key_fits() -> None:
    async with Stage("rsa-1", "ec-1") as stage:
        assert stage.who(token(header={"kid": None})) == "web"
    async with Stage("rsa-1", "rsa-2") as stage:
        with pytest.raises(ClientUnknown):
            await stage.who_later(token(header={"kid": None}))


def test_two_keys_under_one_kid_are_both_tried() -> None:
    found = read_keys(jwks(jwk("rsa-1", kid="same"), jwk("rsa-2", kid="same")), ("RS256",))
    assert len(found["same", "RS256"]) == 2


def test_a_token_is_filed_under_its_hash_and_never_kept() -> None:
    stage = Stage()
    stage.keys._use(jwks(jwk("rsa-1")))
    text = token().encode()
    stage.verifier.verify(text, hashlib.sha256(text).digest())
    assert not any(text in bytes(each) for each in stage.verifier._verified)
    assert key("rsa-1")
