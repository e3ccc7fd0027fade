"""All credentials together on real sockets: start, sharing, rotation, outages, going down."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.clock import SystemClock
from gateway.errors import CredentialRefused, TokenUnavailable
from gateway.model import Clock, Config, Credential, GrantRequest, Secret, Token
from gateway.observe import Metrics
from gateway.tokens import TokenSet
from tests.kit.clock import FakeClock, SteadyClock
from tests.kit.endpoint import Answer, Request, TokenEndpoint, json_answer
from tests.kit.metrics import scraped
from tests.kit.recipes import config, credential
from tests.kit.stall import unless_stalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[TokenSet]]]:
    running: list[TokenSet] = []

    async def begin(configuration: Config, clock: Clock | None = None, metrics: Metrics | None = None) -> TokenSet:
        tokens = TokenSet(configuration, clock=clock or SystemClock(), metrics=metrics or Metrics())
        await tokens.start()
        running.append(tokens)
        return tokens

    yield begin
    for tokens in running:
        await tokens.stop()


@pytest.fixture
async def steady() -> AsyncIterator[SteadyClock]:
    clock = SteadyClock()
    yield clock
    clock.stop()


async def eventually(condition: Callable[[], object], within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        await asyncio.sleep(0.002)


def secret_is(good: str) -> Callable[[Request], Answer]:
    """An endpoint's rule: this secret is right, any other is invalid_client."""

    def answer(request: Request) -> Answer:
        if request.form["client_secret"] != good:
            return json_answer({"error": "invalid_client"}, 401)
        return json_answer({"access_token": f"CANARY-by-{good}", "token_type": "bearer", "expires_in": 3600})

    return answer


# --------------------------------------------------------------------------------------------------- start and sharing


@unless_stalled
async def test_every_credential_is_fetched_at_start_and_start_waits_for_none(start: Any) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.latency = 0.2
        before = time.monotonic()
        tokens = await start(config(*(credential(endpoint.url, n, request={"form": ((n, n),)}) for n in "abc")))
        assert time.monotonic() - before < 0.15
        assert not tokens.warmed.is_set()
        await asyncio.wait_for(tokens.warmed.wait(), 30)
        assert [tokens.tokens(name).current() is not None for name in "abc"] == [True] * 3
        assert endpoint.count == 3


async def test_warm_means_tried_not_succeeded(endpoint: TokenEndpoint, start: Any) -> None:
    endpoint.always = Answer(500)
    tokens = await start(config(credential(endpoint.url)))
    await asyncio.wait_for(tokens.warmed.wait(), 30)
    assert tokens.status()[0].state == "unavailable"


async def test_without_credentials_to_keep_warm_it_is_warm_at_once(endpoint: TokenEndpoint, start: Any) -> None:
    lazy = credential(endpoint.url, keep_warm="used")
    tokens = await start(config(lazy, Credential("ledger", static=Secret("CANARY-key"))))
    assert tokens.warmed.is_set()
    assert [status.state for status in tokens.status()] == ["idle", "static"]


async def test_a_thousand_first_requests_cost_one_token_request(endpoint: TokenEndpoint, start: Any) -> None:
    endpoint.latency = 0.1
    tokens = await start(config(credential(endpoint.url, keep_warm="used")))
    tasks = [asyncio.ensure_future(tokens.tokens("acme").get()) for _ in range(1000)]
    await asyncio.sleep(0.02)
    tasks[0].cancel()
    served = await asyncio.gather(*tasks[1:])
    assert (len(set(map(id, served))), len(served), endpoint.count) == (1, 999, 1)


async def test_credentials_equal_in_everything_share_one_fetch(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url, "one"), credential(endpoint.url, "two")))
    await tokens.warmed.wait()
    assert tokens.tokens("one").current() is tokens.tokens("two").current()
    assert [status.name for status in tokens.status()] == ["one", "two"]
    assert endpoint.count == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"secret": "CANARY-other"}, id="secret"),
        pytest.param({"request": {"form": (("scope", "write"),)}}, id="scope"),
        pytest.param({"request": {"headers": (("X-Tenant", "2"),)}}, id="tenant header"),
        pytest.param({"request": {"query": (("tenant", "2"),)}}, id="query"),
    ],
)
async def test_credentials_that_differ_in_anything_never_share(
    endpoint: TokenEndpoint, start: Any, other: dict[str, Any]
) -> None:
    tokens = await start(config(credential(endpoint.url, "one"), credential(endpoint.url, "two", **other)))
    await tokens.warmed.wait()
    one, two = tokens.tokens("one").current(), tokens.tokens("two").current()
    assert endpoint.count == 2
    assert one.value != two.value


async def test_a_static_key_serves_always_and_a_refusal_changes_nothing(start: Any) -> None:
    tokens = (await start(config(Credential("ledger", static=Secret("CANARY-key"))))).tokens("ledger")
    key = await tokens.get()
    assert tokens.current() is key
    assert await tokens.refused(key) is None
    tokens.discard(key)
    assert tokens.current() is key


# ------------------------------------------------------------------------------------------------------ steady and ill


@pytest.mark.slow
async def test_short_lives_under_load_never_run_out_and_cost_two_requests_a_life(
    endpoint: TokenEndpoint, start: Any, steady: SteadyClock
) -> None:
    endpoint.life, endpoint.latency = 1.0, 0.15
    tokens = await start(config(credential(endpoint.url)), steady)
    await tokens.warmed.wait()
    end, misses = steady.monotonic() + 5, 0
    while steady.monotonic() < end:
        misses += tokens.tokens("acme").current() is None
        await asyncio.sleep(0.002)
    assert misses == 0
    assert endpoint.count <= 2 * 5 + 1


async def drive(clock: FakeClock, seconds: float, each: Callable[[], Awaitable[object]], step: float = 0.05) -> None:
    """Let `seconds` of the fake clock pass in small steps, with real time for the sockets in between."""
    for _ in range(round(seconds / step)):
        await each()
        await clock.advance(step)
        await asyncio.sleep(0.002)


class Load:
    """Requests for a token, one a call; what came of each, and how long it took in real time."""

    def __init__(self, tokens: TokenSet) -> None:
        self.tokens = tokens
        self.served: list[bool] = []
        self.seconds: list[float] = []
        self.retry_after: list[float | None] = []

    async def __call__(self) -> None:
        before = time.monotonic()
        (outcome,) = await asyncio.gather(self.tokens.tokens("acme").get(), return_exceptions=True)
        self.seconds.append(time.monotonic() - before)
        self.served.append(not isinstance(outcome, BaseException))
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, TokenUnavailable)
            self.retry_after.append(outcome.retry_after)

    def all_were_answered_at_once(self) -> bool:
        """In less than 50 ms by the median; who waited for a token would wait for the clock, too, and hang."""
        return median(self.seconds) < 0.05 and None not in self.retry_after


@pytest.mark.parametrize("fault", ["refuse", "reset", "close", "500", "hang"])
async def test_an_outage_is_hidden_while_the_token_lives_told_at_once_after_and_over_in_three_seconds(
    endpoint: TokenEndpoint, start: Any, fault: Any
) -> None:
    clock = FakeClock()
    endpoint.life = 60.0
    tokens = await start(config(credential(endpoint.url)), clock)
    await tokens.warmed.wait()
    endpoint.always = Answer(500) if fault == "500" else Answer(fault=fault if fault != "refuse" else "")
    if fault == "refuse":
        await endpoint.shut()
    living, dead, back = Load(tokens), Load(tokens), Load(tokens)
    await drive(clock, 59.9, living, step=0.2)
    assert all(living.served)
    await drive(clock, 1.0, nothing)
    before = endpoint.count
    await drive(clock, 20.0, dead)
    assert not any(dead.served)
    assert dead.all_were_answered_at_once()
    assert endpoint.count - before <= 10
    endpoint.always = None
    if fault == "refuse":
        await endpoint.listen()
    await drive(clock, 3.0, nothing)
    await eventually(lambda: tokens.tokens("acme").current())
    await back()
    assert back.served == [True]


async def nothing() -> None:
    """No load."""


async def test_a_hanging_endpoint_leaves_the_others_alone(
    endpoint: TokenEndpoint, start: Any, steady: SteadyClock
) -> None:
    async with TokenEndpoint(life=0.4) as healthy:
        endpoint.always = Answer(fault="hang")
        tokens = await start(config(credential(endpoint.url, "ill"), credential(healthy.url, "well")), steady)
        await eventually(lambda: tokens.tokens("well").current())
        stuck = [asyncio.ensure_future(tokens.tokens("ill").get()) for _ in range(200)]
        end = steady.monotonic() + 1.5
        while steady.monotonic() < end:
            assert tokens.tokens("well").current() is not None
            await asyncio.sleep(0.002)
        for task in stuck:
            task.cancel()


async def test_retry_after_as_a_date_is_obeyed(endpoint: TokenEndpoint, start: Any) -> None:
    clock = FakeClock(wall=1_800_000_000.0)
    endpoint.always = Answer(429, headers=(("Retry-After", "Fri, 15 Jan 2027 08:00:40 GMT"),))
    tokens = await start(config(credential(endpoint.url)), clock)
    await tokens.warmed.wait()
    await drive(clock, 39.0, Load(tokens), step=0.5)
    assert endpoint.count == 1
    await drive(clock, 6.0, nothing)
    await eventually(lambda: endpoint.count >= 2)  # a third comes two seconds after the second at the earliest


# ------------------------------------------------------------------------------------------------------------ rotation


async def test_a_changed_secret_is_tried_at_once(endpoint: TokenEndpoint, start: Any) -> None:
    endpoint.always = secret_is("CANARY-new")
    tokens = await start(config(credential(endpoint.url, secret="CANARY-old")))
    await tokens.warmed.wait()
    with pytest.raises(CredentialRefused):
        await tokens.tokens("acme").get()
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-new")))
    token = await asyncio.wait_for(tokens.tokens("acme").get(), 30)
    assert token.value.reveal() == "CANARY-by-CANARY-new"
    assert endpoint.count == 2


@unless_stalled
async def test_the_old_token_serves_until_the_new_secret_has_brought_one(start: Any) -> None:
    async with TokenEndpoint() as endpoint:
        tokens = await start(config(credential(endpoint.url, secret="CANARY-old")))
        await tokens.warmed.wait()
        old = await tokens.tokens("acme").get()
        endpoint.latency = 0.2
        with capture_logs() as logs:
            await tokens.reload(config(credential(endpoint.url, secret="CANARY-new")))
            assert tokens.tokens("acme").current() is old
            await eventually(lambda: tokens.tokens("acme").current() is not old)
        assert tokens.tokens("acme").current().generation == old.generation + 1
        assert ("token_fetched", "rotated") in [(log["event"], log.get("cause")) for log in logs]


async def test_a_wrong_new_secret_leaves_the_old_token_to_its_end(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url, secret="CANARY-old")))
    await tokens.warmed.wait()
    old = await tokens.tokens("acme").get()
    endpoint.always = secret_is("CANARY-old")
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-typo")))
    await eventually(lambda: tokens.status()[0].reason)
    assert tokens.tokens("acme").current() is old
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-old")))
    assert tokens.tokens("acme").current() is old
    assert endpoint.count == 2


async def test_another_scope_never_serves_with_the_old_token(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url, request={"form": (("scope", "read"),)})))
    await tokens.warmed.wait()
    await tokens.reload(config(credential(endpoint.url, request={"form": (("scope", "write"),)})))
    assert tokens.tokens("acme").current() is None
    await tokens.tokens("acme").get()
    assert endpoint.requests[-1].form == {"scope": "write"}


@unless_stalled
async def test_a_fetch_begun_with_the_old_secret_never_overwrites_a_newer_token(start: Any) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.script.append(replace(endpoint.fresh(), delay=0.3))
        tokens = await start(config(credential(endpoint.url, secret="CANARY-old")))
        waiting = asyncio.ensure_future(tokens.tokens("acme").get())
        await eventually(lambda: endpoint.count == 1)
        await tokens.reload(config(credential(endpoint.url, secret="CANARY-new")))
        newer = await asyncio.wait_for(waiting, 0.25)
        await asyncio.sleep(0.4)
        assert tokens.tokens("acme").current() is newer
        assert newer.value.reveal() == endpoint.issued[1]


async def test_a_reload_that_changes_nothing_keeps_token_and_timers(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url)))
    await tokens.warmed.wait()
    handle, token = tokens.tokens("acme"), await tokens.tokens("acme").get()
    await tokens.reload(config(credential(endpoint.url)))
    assert tokens.tokens("acme") is handle
    assert handle.current() is token
    assert tokens.status()[0].next_attempt_in is not None
    assert endpoint.count == 1


async def test_settings_change_without_a_fetch(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url)))
    await tokens.warmed.wait()
    await tokens.reload(config(credential(endpoint.url, keep_warm="never", timeout=3.0), token_timeout=1.0))
    assert (endpoint.count, tokens.status()[0].next_attempt_in) == (1, None)


async def test_a_renamed_credential_keeps_its_token(endpoint: TokenEndpoint, start: Any) -> None:
    tokens = await start(config(credential(endpoint.url, "before")))
    await tokens.warmed.wait()
    token = tokens.tokens("before").current()
    await tokens.reload(config(credential(endpoint.url, "after")))
    assert tokens.tokens("after").current() is token
    assert endpoint.count == 1
    with capture_logs() as logs:
        tokens.tokens("after").discard(token)
    assert logs[0]["credential"] == "after"
    with pytest.raises(KeyError):
        tokens.tokens("before")


@unless_stalled
async def test_a_removed_credential_answers_who_still_waits(start: Any) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.always = Answer(fault="hang")
        tokens = await start(config(credential(endpoint.url)))
        waiting = asyncio.ensure_future(tokens.tokens("acme").get())
        await eventually(lambda: endpoint.count == 1)
        await tokens.reload(config())
        with pytest.raises(TokenUnavailable):
            await asyncio.wait_for(waiting, 0.5)


@pytest.mark.parametrize("other", ["another endpoint", "another scope"])
async def test_who_began_before_a_reload_never_gets_the_token_of_another_identity(
    endpoint: TokenEndpoint, start: Any, other: str
) -> None:
    """Its exchange goes to the vendor of before: neither the one that waits nor the one that was refused gets it."""
    async with TokenEndpoint() as elsewhere:
        tokens = await start(config(credential(endpoint.url)))
        await tokens.warmed.wait()
        handle, old = tokens.tokens("acme"), await tokens.tokens("acme").get()
        endpoint.always = Answer(fault="hang")
        handle.discard(old)
        waiting = asyncio.ensure_future(handle.get())
        await eventually(lambda: endpoint.count == 2)
        endpoint.always = None
        changed = (
            credential(elsewhere.url)
            if other == "another endpoint"
            else credential(endpoint.url, request={"form": (("scope", "write"),)})
        )
        await tokens.reload(config(changed))
        with pytest.raises(TokenUnavailable) as refusal:
            await waiting
        assert refusal.value.retry_after is not None
        assert await tokens.tokens("acme").get() is not None
        assert await handle.refused(old) is None
        with pytest.raises(TokenUnavailable):
            await handle.get()


async def test_a_token_that_died_under_a_new_secret_does_not_come_back_with_the_old_one(
    endpoint: TokenEndpoint, start: Any
) -> None:
    """A rotation that is taken back: the vendor has refused the old token meanwhile, so another one is fetched."""
    tokens = await start(config(credential(endpoint.url, secret="CANARY-old")))
    await tokens.warmed.wait()
    old = await tokens.tokens("acme").get()
    endpoint.always = Answer(503)
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-new")))
    await eventually(lambda: tokens.status()[0].reason)
    assert tokens.tokens("acme").current() is old
    assert await tokens.tokens("acme").refused(old) is None
    assert tokens.tokens("acme").current() is None
    endpoint.always = None
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-old")))
    assert (await tokens.tokens("acme").get()).value != old.value


async def test_the_next_secret_takes_over_when_the_vendor_refuses_the_first(
    endpoint: TokenEndpoint, start: Any
) -> None:
    endpoint.always = secret_is("CANARY-next")
    metrics = Metrics()
    both = credential(endpoint.url, secret="CANARY-first", next_secret="CANARY-next")
    with capture_logs() as logs:
        tokens = await start(config(both), None, metrics)
        token = await tokens.tokens("acme").get()
    assert tokens.status()[0].secret == "next"
    assert 'secret="next"} 1' in scraped(metrics)
    assert "credential_secret_switched" in [log["event"] for log in logs]
    await tokens.reload(config(credential(endpoint.url, secret="CANARY-next")))
    assert tokens.tokens("acme").current() is token
    assert endpoint.count == 2


# ---------------------------------------------------------------------------------------------------------- revocation


async def test_a_revoked_token_costs_one_fetch_for_two_hundred_requests(endpoint: TokenEndpoint, start: Any) -> None:
    endpoint.latency = 0.05
    tokens = (await start(config(credential(endpoint.url)))).tokens("acme")
    old = await tokens.get()
    tokens.accepted(old)
    replacements = await asyncio.gather(*(tokens.refused(old) for _ in range(200)))
    assert {id(token) for token in replacements} == {id(tokens.current())}
    assert endpoint.count == 2


async def test_a_refused_token_whose_endpoint_is_down_becomes_a_503_with_retry_after(
    endpoint: TokenEndpoint, start: Any
) -> None:
    tokens = (await start(config(credential(endpoint.url)))).tokens("acme")
    old = await tokens.get()
    endpoint.always = Answer(503)
    assert await tokens.refused(old) is None
    with pytest.raises(TokenUnavailable) as caught:
        await tokens.get()
    assert caught.value.retry_after is not None


# ---------------------------------------------------------------------------------------------------------- going down


@unless_stalled
async def test_stopping_waits_for_no_fetch_and_answers_who_waits() -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.always = Answer(fault="hang")
        tokens = TokenSet(config(credential(endpoint.url)), clock=SystemClock(), metrics=Metrics())
        await tokens.start()
        waiting = asyncio.ensure_future(tokens.tokens("acme").get())
        await eventually(lambda: endpoint.count == 1)
        before = time.monotonic()
        await tokens.stop()
        assert time.monotonic() - before < 0.5
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], TokenUnavailable)


def revoking(endpoint: TokenEndpoint, at: TokenEndpoint) -> Credential:
    form = (("token", "{token}"), ("token_type_hint", "access_token"), ("client_secret", Secret("CANARY-secret")))
    return credential(endpoint.url, revoke=GrantRequest(at.url, form=form))


async def test_tokens_are_revoked_at_the_end_where_that_is_configured(endpoint: TokenEndpoint) -> None:
    """RFC 7009 §2.1."""
    async with TokenEndpoint() as revocation:
        tokens = TokenSet(config(revoking(endpoint, revocation)), clock=SystemClock(), metrics=Metrics())
        await tokens.start()
        token = await tokens.tokens("acme").get()
        with capture_logs() as logs:
            await tokens.stop()
        assert revocation.requests[0].form == {
            "token": token.value.reveal(), "token_type_hint": "access_token", "client_secret": "CANARY-secret",
        }  # fmt: skip
    assert [(log["event"], log["outcome"]) for log in logs] == [("token_revoked", "HTTP 200")]


@pytest.mark.parametrize("fault", ["hang", "reset"])
@unless_stalled
async def test_a_revocation_that_fails_does_not_hold_up_the_end(fault: Any) -> None:
    async with TokenEndpoint() as endpoint, TokenEndpoint(always=Answer(fault=fault)) as revocation:
        tokens = TokenSet(config(revoking(endpoint, revocation)), clock=SystemClock(), metrics=Metrics())
        await tokens.start()
        await tokens.tokens("acme").get()
        before = time.monotonic()
        await tokens.stop()
        assert time.monotonic() - before < 2.3


async def test_after_the_end_there_is_no_token(endpoint: TokenEndpoint) -> None:
    tokens = TokenSet(config(credential(endpoint.url)), clock=SystemClock(), metrics=Metrics())
    await tokens.start()
    await tokens.warmed.wait()
    await tokens.stop()
    assert tokens.tokens("acme").current() is None
    with pytest.raises(TokenUnavailable):
        await tokens.tokens("acme").get()


def test_a_token_is_equal_only_to_itself() -> None:
    one, other = (Token(Secret("CANARY"), "acme", 0.0, 1.0, "in") for _ in range(2))
    assert one != other
