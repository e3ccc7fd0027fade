"""Clocks that differ, and clocks that are put right: only the vendor's own clock dates its answers."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from gateway.errors import TokenError
from gateway.model import Assertion, Expires, Grant, GrantRequest, GrantResponse
from gateway.tokens.sender import Sender
from gateway.tokens.source import TokenSource
from tests.kit.clock import FakeClock
from tests.kit.endpoint import Answer, TokenEndpoint, json_answer
from tests.kit.signing import key, pem
from tests.kit.source import cache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.tokens.cache import TokenCache

OFFSETS = pytest.mark.parametrize("off", [0.0, 600.0, -600.0, 3600.0, -3600.0], ids=lambda off: f"{off:+g} s")


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


class Bench:
    """A cache over a real source, with time by hand; the endpoint's clock is `off` seconds ahead of ours."""

    def __init__(self, endpoint: TokenEndpoint, off: float, **response: Any) -> None:
        self.clock = FakeClock()
        self.off = off
        self.sender = Sender(self.clock)
        grant = Grant(
            GrantRequest(endpoint.url), GrantResponse(**({"expires": Expires("in", "expires_in")} | response))
        )
        self.source = TokenSource("acme", grant, sender=self.sender, clock=self.clock)
        self.cache: TokenCache = cache(self.clock, self.source)  # type: ignore[arg-type]

    def vendor_now(self) -> float:
        return self.clock.monotonic() + 1_800_000_000.0 - 1000.0 + self.off

    def date(self, ahead: float = 0.0) -> str:
        return formatdate(self.vendor_now() + ahead, usegmt=True)

    async def fetched(self) -> None:
        await self.clock.until(lambda: self.cache.tried and self.cache._fetch is None)

    async def close(self) -> None:
        self.cache.close()
        await self.sender.close()


@OFFSETS
async def test_a_date_in_retry_after_holds_us_back_for_what_the_vendor_meant(
    endpoint: TokenEndpoint, off: float
) -> None:
    bench = Bench(endpoint, off)
    endpoint.always = lambda _: Answer(503, headers=(("Date", bench.date()), ("Retry-After", bench.date(20))))
    bench.cache.begin("startup")
    await bench.fetched()
    wait = bench.cache.status("acme").next_attempt_in
    await bench.close()
    assert wait is not None
    assert 20 <= wait <= 23


@OFFSETS
async def test_an_expiry_date_is_of_the_vendors_clock(endpoint: TokenEndpoint, off: float) -> None:
    bench = Bench(endpoint, off, expires=Expires("at", "expires_at"))

    def answer(_: object) -> Answer:
        body = {"access_token": "CANARY-a", "expires_at": bench.vendor_now() + 600}
        return json_answer(body, headers=(("Date", bench.date()),))

    endpoint.always = answer
    bench.cache.begin("startup")
    await bench.fetched()
    left = bench.cache.status("acme").expires_in
    await bench.close()
    assert left is not None
    assert 598 <= left <= 600


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
@pytest.mark.parametrize("kind", ["in", "at", "jwt"])
async def test_a_wall_clock_that_is_set_changes_no_life(endpoint: TokenEndpoint, jump: float, kind: Any) -> None:
    """Neither that of the token in hand, nor that of the next one, nor when it is fetched."""
    bench = Bench(endpoint, 0.0, expires=Expires(kind, "value"))

    def answer(_: object) -> Answer:
        now = bench.vendor_now()
        token = jwt.encode({"exp": now + 600, "iat": now, "n": endpoint.count}, "CANARY-" * 6, algorithm="HS256")
        value = {"in": 600, "at": now + 600, "jwt": 0}[kind]
        return json_answer({"access_token": token, "value": value}, headers=(("Date", bench.date()),))

    endpoint.always = answer
    bench.cache.begin("startup")
    await bench.fetched()
    first = bench.cache.current()
    bench.clock.wall_offset += jump
    await bench.clock.advance(530)
    assert bench.cache.current() is first
    assert endpoint.count == 1
    await bench.clock.advance(11)
    await bench.clock.until(lambda: bench.cache.current() is not first)
    left = bench.cache.status("acme").expires_in
    await bench.close()
    assert left is not None
    assert 590 <= left <= 600


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_an_assertion_is_dated_by_the_vendors_clock_once_that_is_known(
    endpoint: TokenEndpoint, jump: float
) -> None:
    clock = FakeClock()
    assertion = Assertion(pem(key("rsa-1")), "RS256", "client-1", "https://issuer.example")
    grant = Grant(GrantRequest(endpoint.url, assertion=assertion), GrantResponse(expires=Expires("in", "expires_in")))
    sender = Sender(clock)
    source = TokenSource("acme", grant, sender=sender, clock=clock)
    real = clock.wall()
    endpoint.always = lambda _: json_answer(
        {"error": "invalid_client"}, 401, headers=(("Date", formatdate(real, usegmt=True)),)
    )
    dated = []
    for change in (0.0, jump, 0.0):
        clock.wall_offset += change
        with pytest.raises(TokenError):
            await source.fetch(5)
        claims = jwt.decode(endpoint.requests[-1].form["client_assertion"], options={"verify_signature": False})
        dated.append(claims["iat"] - real)
    await sender.close()
    assert all(abs(off) <= 1 for off in dated)
