"""What the cache does and when: time by hand, fetches by hand."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.observe import Metrics
from gateway.tokens.failures import NoDescriptor
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample
from tests.kit.source import HandSource, cache

if TYPE_CHECKING:
    from gateway.model import Token
    from gateway.tokens.cache import TokenCache


class Bench:
    """A cache with a clock and a source by hand."""

    def __init__(self, sources: int = 1, **settings: Any) -> None:
        self.clock = FakeClock()
        self.sources = [HandSource(self.clock) for _ in range(sources)]
        self.source = self.sources[0]
        self.metrics = Metrics(wall=self.clock.wall)
        self.cache = cache(self.clock, *self.sources, metrics=self.metrics, **settings)

    async def warm(self, life: float = 3600.0, cause: Any = "startup") -> Token:
        self.cache.begin(cause)
        await self.clock.settle()
        await self.source.settle(self.source.token(life))
        token = self.cache.current()
        assert token is not None
        return token

    async def fail(self, error: TokenError | None = None) -> None:
        await self.source.settle(error or TokenUnavailable(reason="down"))


async def background(coroutine: Any, clock: FakeClock) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    await clock.settle()
    return task


# ------------------------------------------------------------------------------------------------------- single flight


async def test_a_thousand_first_requests_share_one_fetch() -> None:
    bench = Bench()
    tasks = [asyncio.ensure_future(bench.cache.get()) for _ in range(1000)]
    await bench.clock.settle()
    await bench.source.settle(bench.source.token())
    tokens = await asyncio.gather(*tasks)
    assert len({id(token) for token in tokens}) == bench.source.count == 1


async def test_the_caller_that_started_the_fetch_goes_away_and_the_others_are_served() -> None:
    bench = Bench()
    tasks = [asyncio.ensure_future(bench.cache.get()) for _ in range(1000)]
    await bench.clock.settle()
    tasks[0].cancel()
    await bench.clock.settle()
    await bench.source.settle(bench.source.token())
    served = await asyncio.gather(*tasks[1:])
    assert (len(served), bench.source.count) == (999, 1)


async def test_waiters_share_a_failure() -> None:
    bench = Bench()
    tasks = [asyncio.ensure_future(bench.cache.get()) for _ in range(50)]
    await bench.clock.settle()
    await bench.fail(TokenMalformed(reason="not JSON"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {TokenMalformed}
    assert bench.source.count == 1


async def test_a_defect_in_a_fetch_answers_everybody_and_is_logged() -> None:
    bench = Bench()
    task = await background(bench.cache.get(), bench.clock)
    with capture_logs() as logs:
        await bench.source.settle(ZeroDivisionError("CANARY"))  # type: ignore[arg-type]
    with pytest.raises(TokenUnavailable) as caught:
        await task
    assert "CANARY" not in caught.value.reason
    assert logs[0]["event"] == "token_fetch_crashed"


async def test_a_fetch_that_fails_for_lack_of_a_descriptor_is_counted_as_that_and_as_unavailable() -> None:
    bench = Bench()
    task = await background(bench.cache.get(), bench.clock)
    await bench.fail(NoDescriptor(reason="no file descriptor is left"))
    with pytest.raises(TokenUnavailable):
        await task
    value = partial(sample, bench.metrics)
    assert value("gatepass_no_descriptor_total", {"peer": "token_endpoint"}) == 1
    failed = {"credential": "acme", "outcome": "unavailable", "cause": "demand"}
    assert value("gatepass_token_fetches_total", failed) == 1


# ------------------------------------------------------------------------------------------------------- refresh ahead


async def test_the_successor_is_fetched_ahead_and_nobody_waits() -> None:
    bench = Bench()
    first = await bench.warm(3600)
    await bench.clock.advance(3541)
    assert bench.source.count == 2
    assert bench.cache.current() is first
    await bench.source.settle(bench.source.token())
    second = bench.cache.current()
    assert second is not None
    assert second.generation == first.generation + 1


async def test_life_counts_from_before_the_request_left() -> None:
    bench = Bench()
    bench.cache.begin("startup")
    await bench.clock.advance(4)
    await bench.source.settle(bench.source.token(10))
    await bench.clock.advance(5.9)
    assert bench.cache.current() is not None
    await bench.clock.advance(0.1)
    assert bench.cache.current() is None


@pytest.mark.parametrize("latency", [0.4, 0.75], ids=["400 ms", "a quarter of the life"])
async def test_lives_of_three_seconds_cost_two_fetches_each_and_never_run_out(latency: float) -> None:
    bench = Bench()
    bench.source.answer = lambda: bench.source.token(3.0)
    bench.source.latency = latency
    bench.cache.begin("startup")
    await bench.clock.advance(latency)
    for _ in range(300):
        await bench.clock.advance(0.1)
        assert bench.cache.current() is not None
    assert bench.source.count <= 21


async def test_a_token_dead_on_arrival_is_a_failure() -> None:
    bench = Bench()
    task = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(3)
    await bench.source.settle(bench.source.token(2))
    with pytest.raises(TokenUnavailable, match="No token"):
        await task
    assert "expired" in str(bench.cache.status("acme").reason)


@pytest.mark.parametrize(
    ("keep_warm", "used", "fetches"),
    [("always", False, 2), ("always", True, 2), ("used", False, 1), ("used", True, 2), ("never", True, 1)],
)
async def test_keep_warm_decides_who_gets_a_refresh(keep_warm: str, used: bool, fetches: int) -> None:
    bench = Bench(keep_warm=keep_warm)
    task = await background(bench.cache.get(), bench.clock)
    await bench.source.settle(bench.source.token(3600))
    await task
    bench.cache._used = False
    await bench.clock.advance(1000)
    if used:
        bench.cache.current()
    await bench.clock.advance(2599)
    assert bench.source.count == fetches


async def test_what_is_not_kept_warm_is_not_fetched_at_start() -> None:
    bench = Bench(keep_warm="used")
    bench.cache.begin("startup")
    await bench.clock.advance(100)
    assert (bench.source.count, bench.cache.status("acme").state) == (0, "idle")


async def test_what_is_not_kept_warm_is_not_retried_for_nobody() -> None:
    bench = Bench(keep_warm="never")
    task = await background(bench.cache.get(), bench.clock)
    await bench.fail()
    with pytest.raises(TokenUnavailable):
        await task
    bench.source.answer = TokenUnavailable
    await bench.clock.advance(600)
    assert bench.source.count <= 2


# ------------------------------------------------------------------------------------------------ the same token again


async def sticky(bench: Bench, life: float, *, full: bool) -> None:
    """An endpoint that hands out one token until it dies, with what is left of its life or with all of it."""
    born = bench.clock.monotonic()

    def answer() -> Token:
        age = bench.clock.monotonic() - born
        lives, left = int(age // life), life - age % life
        return bench.source.token(life if full else left, value=f"CANARY-{lives}")

    bench.source.answer = answer
    bench.source.latency = 0.02
    bench.cache.begin("startup")
    await bench.clock.advance(1)


@pytest.mark.parametrize("full", [True, False], ids=["full life again", "what is left"])
async def test_an_endpoint_that_repeats_its_token_is_not_stormed_and_the_new_one_is_picked_up(full: bool) -> None:
    bench = Bench()
    await sticky(bench, 600.0, full=full)
    with capture_logs() as logs:
        await bench.clock.advance(6000)
    values = {log["fingerprint"] for log in logs if log["event"] == "token_fetched"}
    assert len(values) >= 10
    assert bench.source.count <= 10 * 5
    assert {log["outcome"] for log in logs if log["event"] == "token_fetched"} == {"ok", "unchanged"}


async def test_a_repeated_token_does_not_live_longer_for_it() -> None:
    bench = Bench()
    first = await bench.warm(600)
    await bench.clock.advance(545)
    await bench.source.settle(bench.source.token(600, value=first.value.reveal()))
    assert bench.cache.current() is first
    await bench.clock.advance(56)
    assert bench.cache.current() is None


@pytest.mark.parametrize("keep_warm", ["used", "never"])
async def test_trouble_that_nobody_asks_about_any_more_is_not_shown_for_ever(keep_warm: str) -> None:
    """Else its alerts would go on for a credential that nobody uses, and that is asked about by nobody."""
    bench = Bench(keep_warm=keep_warm)
    bench.source.answer = lambda: TokenUnavailable(reason="down")
    for _ in range(4):
        with pytest.raises(TokenUnavailable):
            await bench.cache.get()
        await bench.clock.advance(3)
    value = partial(sample, bench.metrics)
    assert (value("gatepass_token_consecutive_failures", {"credential": "acme"}) or 0) >= 3
    await bench.clock.advance(60)
    asked = bench.source.count
    await bench.clock.advance(600)
    assert bench.source.count == asked
    assert value("gatepass_token_consecutive_failures", {"credential": "acme"}) == 0
    status = bench.cache.status("acme")
    assert (status.state, status.reason, status.consecutive_failures) == ("idle", None, 0)


async def test_the_end_of_the_token_brings_no_probe_of_a_refused_credential_forward() -> None:
    """An outage is tried again at the end at the latest; a refusal stays what it is, once a minute."""
    for error, forward in ((TokenUnavailable(reason="down"), True), (CredentialRefused(reason="no"), False)):
        bench = Bench()
        token = await bench.warm(100)
        await bench.clock.advance(60)
        refused_at = bench.source.started[-1]
        await bench.clock.advance(35)
        bench.source.answer = lambda error=error: error
        await bench.fail(error)
        await bench.clock.advance(200)
        after = [instant for instant in bench.source.started if instant > refused_at]
        assert (after[0] <= token.expires_at + 0.5) is forward
        if not forward:
            assert all(later - earlier >= 60 for earlier, later in pairwise([refused_at, *after]))


@pytest.mark.parametrize("taken", [0.05, 0.12], ids=["answer in time", "answer that ages under way"])
async def test_a_slow_answer_that_repeats_the_token_shortly_before_its_end_is_no_failure(taken: float) -> None:
    """Its life counts from before the request, so it looks ended; the one in hand lives, and its end is known."""
    bench = Bench(keep_warm="never")
    first = await background(bench.cache.get(), bench.clock)
    await bench.source.settle(bench.source.token(1.3))
    token: Token = await first
    await bench.clock.advance(1.15)
    task = await background(bench.cache.fetch_now(), bench.clock)
    await bench.clock.advance(taken)
    await bench.source.settle(bench.source.token(0.15 - taken, value=token.value.reveal()))
    await task
    assert bench.cache.current() is token, "with the end that it had"
    await bench.clock.advance(0.15 - taken)
    later = await background(bench.cache.get(), bench.clock)
    assert not later.done(), "it may wait: nothing has failed"
    await bench.source.settle(bench.source.token(1.3))
    assert (await later).value != token.value


@pytest.mark.parametrize(
    ("min_interval", "instants"),
    [(0.0, [1010.0, 1010.25, 1010.75, 1011.75]), (0.4, [1010.0]), (6.0, [1010.0])],
    ids=["no bound", "longer than the first pause", "longer than all"],
)
async def test_a_token_that_is_handed_out_beyond_its_end_is_asked_about_no_faster_than_the_vendor_allows(
    min_interval: float, instants: list[float]
) -> None:
    bench = Bench(keep_warm="never", min_interval=min_interval)
    bench.source.answer = lambda: bench.source.token(10, value="CANARY-same", source="fallback")
    await bench.cache.get()
    await bench.clock.advance(10)
    task = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(2)
    assert isinstance(task.exception(), TokenUnavailable)
    assert bench.source.started[1 : 1 + len(instants)] == instants
    pauses = [later - earlier for earlier, later in pairwise(bench.source.started)]
    assert all(pause >= min_interval for pause in pauses)


async def test_a_token_that_is_still_handed_out_at_its_end_is_asked_about_again_while_callers_wait() -> None:
    bench = Bench(keep_warm="never")
    task = await background(bench.cache.get(), bench.clock)
    await bench.source.settle(bench.source.token(10, value="CANARY-same"))
    first = await task
    await bench.clock.advance(10)
    task = await background(bench.cache.get(), bench.clock)
    await bench.source.settle(bench.source.token(300, value="CANARY-same", source="fallback"))
    await bench.clock.advance(0.25)
    await bench.source.settle(bench.source.token(10))
    assert (await task).value != first.value


# ------------------------------------------------------------------------------------------------------------- failure


async def refused_load(bench: Bench, seconds: float, step: float = 0.002) -> int:
    """500 requests a second; each must be answered at once. Returns how many got a token."""
    served, end = 0, bench.clock.monotonic() + seconds
    while bench.clock.monotonic() < end:
        task = asyncio.ensure_future(bench.cache.get())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if task.done():
            served += task.exception() is None
        else:
            task.cancel()
            raise AssertionError("a request was left hanging")
        due = bench.clock.next_timer
        if due is not None and due <= step:
            await bench.clock.advance(step)
        else:
            bench.clock._now += step  # nothing to do: time alone passes
    return served


@pytest.mark.parametrize("fault", [TokenUnavailable, TokenMalformed])
async def test_an_outage_costs_ten_attempts_in_20_s_at_500_requests_a_second(fault: type[TokenError]) -> None:
    bench = Bench()
    bench.source.answer = lambda: fault(reason="down")
    bench.cache.begin("startup")
    await bench.clock.settle()
    assert await refused_load(bench, 20.0) == 0
    assert 8 <= bench.source.count <= 10


async def test_service_returns_within_three_seconds_of_the_endpoint_however_long_it_was_away() -> None:
    bench = Bench()
    bench.source.answer = TokenUnavailable
    bench.cache.begin("startup")
    await bench.clock.advance(3600)
    assert await refused_load(bench, 3.0) == 0
    bench.source.answer = bench.source.token
    assert await refused_load(bench, 3.0) > 200


async def test_a_valid_token_serves_to_its_true_end_while_the_endpoint_is_down() -> None:
    bench = Bench()
    first = await bench.warm(600)
    bench.source.answer = TokenUnavailable
    await bench.clock.advance(599.9)
    assert bench.cache.current() is first
    await bench.clock.advance(0.1)
    assert bench.cache.current() is None
    with pytest.raises(TokenUnavailable):
        await bench.cache.get()


async def test_an_attempt_is_made_at_the_very_end_of_a_token() -> None:
    bench = Bench()
    await bench.warm(600)
    bench.source.answer = TokenUnavailable
    await bench.clock.advance(600)
    assert bench.source.started[-1] == pytest.approx(1600.0)


async def test_after_a_failure_nobody_waits_even_while_the_next_attempt_runs() -> None:
    bench = Bench()
    await (await background(bench.warm(10), bench.clock))
    await bench.clock.advance(8)
    await bench.fail()
    await bench.clock.advance(2)
    assert bench.source.running
    with pytest.raises(TokenUnavailable) as caught:
        await asyncio.wait_for(bench.cache.get(), 30)
    assert caught.value.retry_after is not None


async def test_the_error_says_when_the_next_attempt_comes() -> None:
    bench = Bench()
    bench.cache.begin("startup")
    await bench.clock.settle()
    await bench.fail(TokenUnavailable(reason="HTTP 503", retry_after=30.0))
    with pytest.raises(TokenUnavailable) as caught:
        await bench.cache.get()
    assert caught.value.retry_after is not None
    assert 30 <= caught.value.retry_after <= 33
    assert caught.value.reason == "HTTP 503"


async def test_the_endpoints_retry_after_is_obeyed_while_apps_ask() -> None:
    bench = Bench()
    bench.source.answer = lambda: TokenUnavailable(reason="HTTP 503", retry_after=30.0)
    bench.cache.begin("startup")
    await bench.clock.settle()
    await refused_load(bench, 29.0, step=0.1)
    assert bench.source.count == 1
    await refused_load(bench, 4.1, step=0.1)
    assert bench.source.count == 2


@pytest.mark.parametrize("retry_after", [1.0, 60.0, 300.0])
@pytest.mark.parametrize("asking", [False, True], ids=["nobody asks", "apps ask"])
async def test_credentials_that_were_all_told_to_wait_do_not_come_back_in_one_instant(
    retry_after: float, asking: bool
) -> None:
    """The jitter is behind what the endpoint said, never before."""
    benches = [Bench() for _ in range(100)]
    seconds = []
    for bench in benches:
        bench.cache.begin("startup")
        await bench.clock.settle()
        await bench.fail(TokenUnavailable(reason="HTTP 429", retry_after=retry_after))
        if asking:
            with pytest.raises(TokenUnavailable):
                await bench.cache.get()
        seconds.append(bench.cache.status("acme").next_attempt_in)
        bench.cache.close()
    assert all(wait is not None and retry_after <= wait <= retry_after * 1.1 + 30 for wait in seconds)
    assert len({round(wait, 2) for wait in seconds if wait is not None}) > 30


async def test_waiters_of_a_slow_first_fetch_leave_at_their_own_deadline_and_the_fetch_goes_on() -> None:
    bench = Bench(token_timeout=5.0)
    early = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(3)
    late = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(2)
    assert isinstance(early.exception(), TokenUnavailable)
    assert not late.done()
    await bench.source.settle(bench.source.token())
    assert (await late) is bench.cache.current()


async def test_a_token_that_comes_in_the_very_moment_in_which_a_waiter_gives_up_is_taken_and_no_trouble_is_left() -> (
    None
):
    """Both in one turn of the loop: else everybody after the token's end would be refused for a fetch that was good."""
    bench = Bench(token_timeout=5.0)
    task = await background(bench.cache.get(), bench.clock)
    ((_, _, deadline),) = [entry for entry in bench.clock._timers if not entry[2].cancelled]
    assert bench.source._pending is not None
    bench.source._pending.set_result(bench.source.token(60))
    deadline.callback()
    assert (await task) is bench.cache.current()
    assert bench.cache.status("acme").reason is None
    bench.cache.discard(await task)
    after = await background(bench.cache.get(), bench.clock)
    assert not after.done(), "it may wait for the fetch that the refusal has started"
    await bench.source.settle(bench.source.token())
    assert (await after) is bench.cache.current()


async def test_once_a_waiter_was_turned_away_nobody_waits_for_that_fetch() -> None:
    bench = Bench(token_timeout=5.0)
    first = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(5)
    assert first.exception()
    with pytest.raises(TokenUnavailable):
        await asyncio.wait_for(bench.cache.get(), 30)


async def test_the_least_interval_holds_whatever_the_cause() -> None:
    bench = Bench(min_interval=6.0)
    bench.source.answer = lambda: bench.source.token(3.0)
    bench.cache.begin("startup")
    await bench.clock.advance(60)
    gaps = [b - a for a, b in zip(bench.source.started, bench.source.started[1:], strict=False)]
    assert min(gaps) >= 6.0
    token = bench.cache._last
    assert token is not None
    bench.cache.discard(token)
    await bench.clock.advance(60)
    gaps = [b - a for a, b in zip(bench.source.started, bench.source.started[1:], strict=False)]
    assert min(gaps) >= 6.0


async def test_a_request_waits_for_an_interval_that_ends_in_time_and_is_told_at_once_of_a_longer_one() -> None:
    bench = Bench(min_interval=6.0, keep_warm="never", token_timeout=5.0)
    task = await background(bench.cache.get(), bench.clock)
    await bench.source.settle(bench.source.token(0.5))
    await task
    await bench.clock.advance(0.6)
    with pytest.raises(TokenUnavailable) as caught:
        await bench.cache.get()
    assert caught.value.retry_after == pytest.approx(5.4)
    await bench.clock.advance(2)
    task = await background(bench.cache.get(), bench.clock)
    await bench.clock.advance(3.4)
    await bench.source.settle(bench.source.token(3600))
    assert (await task) is bench.cache.current()


# ------------------------------------------------------------------------------------------------ a refused credential


async def test_a_refused_credential_is_told_at_once_and_probed_once_a_minute() -> None:
    bench = Bench()
    bench.source.answer = lambda: CredentialRefused(reason="HTTP 401 invalid_client")
    bench.cache.begin("startup")
    await bench.clock.settle()
    for _ in range(600):
        with pytest.raises(CredentialRefused):
            await bench.cache.get()
        await bench.clock.advance(1)
    assert 9 <= bench.source.count <= 11


async def test_a_probe_that_succeeds_ends_the_refusal() -> None:
    bench = Bench()
    bench.source.answer = CredentialRefused
    bench.cache.begin("startup")
    await bench.clock.advance(1)
    bench.source.answer = bench.source.token
    await bench.clock.advance(66)
    assert bench.cache.current() is not None
    assert bench.cache.status("acme").reason is None


async def test_the_next_secret_is_tried_at_once_and_the_callers_notice_nothing() -> None:
    bench = Bench(sources=2)
    bench.sources[0].answer = CredentialRefused
    bench.sources[1].answer = bench.sources[1].token
    with capture_logs() as logs:
        token = await bench.cache.get()
    assert token is bench.cache.current()
    assert bench.cache.status("acme").secret == "next"
    assert ("credential_secret_switched", "next") in [(log["event"], log.get("secret")) for log in logs]


async def test_the_secret_that_works_is_remembered() -> None:
    bench = Bench(sources=2)
    bench.sources[0].answer = CredentialRefused
    bench.sources[1].answer = lambda: bench.sources[1].token(600)
    bench.cache.begin("startup")
    await bench.clock.advance(3000)
    assert bench.sources[0].count == 1
    assert bench.sources[1].count >= 5


async def test_with_both_secrets_refused_there_is_still_one_probe_a_minute() -> None:
    bench = Bench(sources=2)
    for source in bench.sources:
        source.answer = CredentialRefused
    bench.cache.begin("startup")
    await bench.clock.settle()
    assert [source.count for source in bench.sources] == [1, 1]
    await bench.clock.advance(600)
    assert 10 <= sum(source.count for source in bench.sources) <= 12
    assert min(source.count for source in bench.sources) >= 4


# ------------------------------------------------------------------------------------------------ a refused live token


async def test_two_hundred_refusals_of_one_token_cost_one_fetch() -> None:
    bench = Bench()
    old = await bench.warm()
    bench.cache.accepted(old)
    tasks = [asyncio.ensure_future(bench.cache.refused(old)) for _ in range(200)]
    await bench.clock.settle()
    assert bench.cache.current() is None
    await bench.source.settle(bench.source.token())
    assert set(await asyncio.gather(*tasks)) == {bench.cache.current()}
    assert bench.source.count == 2


async def test_a_late_401_for_an_old_token_fetches_nothing() -> None:
    bench = Bench()
    old = await bench.warm(600)
    await bench.clock.advance(545)
    await bench.source.settle(bench.source.token())
    assert await bench.cache.refused(old) is bench.cache.current()
    bench.cache.discard(old)
    await bench.clock.settle()
    assert bench.source.count == 2


async def test_a_refused_token_is_gone_even_when_the_caller_is_cancelled() -> None:
    bench = Bench()
    old = await bench.warm()
    task = await background(bench.cache.refused(old), bench.clock)
    task.cancel()
    await bench.clock.settle()
    assert bench.cache.current() is None
    await bench.source.settle(bench.source.token())
    assert bench.cache.current() is not None


async def test_a_discarded_token_is_replaced_in_the_background() -> None:
    bench = Bench()
    old = await bench.warm()
    bench.cache.discard(old)
    assert bench.cache.current() is None
    await bench.clock.settle()
    await bench.source.settle(bench.source.token())
    assert bench.cache.current() is not None


async def test_a_token_revoked_three_times_in_two_seconds_is_replaced_three_times() -> None:
    bench = Bench()
    token: Token | None = await bench.warm()
    bench.source.answer = bench.source.token
    for _ in range(3):
        assert token is not None
        bench.cache.accepted(token)
        await bench.clock.advance(0.6)
        token = await bench.cache.refused(token)
    assert token is bench.cache.current()
    assert bench.source.count == 4


async def test_a_vendor_that_refuses_everything_costs_three_fetches_in_ten_seconds_and_then_ever_fewer() -> None:
    """While no fetch is allowed the token stays in use: the vendor's own answers go to the apps, not a 503."""
    bench = Bench()
    bench.cache.accepted(await bench.warm())
    bench.source.answer = bench.source.token
    counts = []
    for _ in range(12):
        for _ in range(500):
            token = bench.cache.current()
            assert token is not None
            await bench.cache.refused(token)
            bench.clock._now += 0.02
        counts.append(bench.source.count - 1)
    assert counts[0] <= 3
    assert counts[-1] <= 7


async def test_a_refusal_while_the_endpoint_is_down_is_not_waited_for() -> None:
    bench = Bench()
    token = await bench.warm(600)
    bench.source.answer = TokenUnavailable
    await bench.clock.advance(590)
    assert await asyncio.wait_for(bench.cache.refused(token), 30) is None


async def test_a_token_stays_in_use_while_its_endpoint_asked_for_a_long_pause() -> None:
    bench = Bench()
    token = await bench.warm(600)
    await bench.clock.advance(545)
    await bench.fail(TokenUnavailable(reason="HTTP 429", retry_after=300.0))
    assert await bench.cache.refused(token) is None
    assert bench.cache.current() is token


async def test_a_replacement_of_the_same_value_is_no_reason_to_send_again() -> None:
    bench = Bench()
    token = await bench.warm()
    task = await background(bench.cache.refused(token), bench.clock)
    await bench.source.settle(bench.source.token(3600, value=token.value.reveal()))
    assert await task is None
    assert bench.cache.current() is not None


async def test_an_only_live_token_is_replaced_without_another_fetch_for_those_still_in_flight() -> None:
    bench = Bench(single_active_token=True)
    old = await bench.warm(600)
    bench.cache.accepted(old)
    await bench.clock.advance(597)
    assert bench.source.count == 1
    await bench.clock.advance(2)
    await bench.source.settle(bench.source.token(600))
    replacements = {await bench.cache.refused(old) for _ in range(20)}
    assert replacements == {bench.cache.current()}
    assert bench.source.count == 2


# ---------------------------------------------------------------------------------------------------- reload and close


def successor(bench: Bench, other: TokenCache) -> None:
    other.continue_from(bench.cache)
    bench.cache.close(other)


async def test_who_waits_in_a_closed_cache_is_served_by_its_successor() -> None:
    bench, heir = Bench(), Bench()
    heir.clock = bench.clock
    heir.source = HandSource(bench.clock)
    heir.cache = cache(bench.clock, heir.source)
    task = await background(bench.cache.get(), bench.clock)
    successor(bench, heir.cache)
    await bench.clock.settle()
    await heir.source.settle(heir.source.token())
    assert (await task) is heir.cache.current()


async def test_a_fetch_with_the_old_secret_never_overwrites_a_newer_token() -> None:
    bench = Bench()
    bench.cache.begin("startup")
    await bench.clock.settle()
    heir_source = HandSource(bench.clock)
    heir = cache(bench.clock, heir_source)
    successor(bench, heir)
    await bench.clock.settle()
    assert bench.source.running == 0
    assert bench.cache.current() is None


async def test_a_refusal_reported_to_a_closed_cache_reaches_its_successor() -> None:
    bench = Bench()
    old = await bench.warm()
    heir_source = HandSource(bench.clock)
    heir = cache(bench.clock, heir_source)
    heir.continue_from(bench.cache)
    heir.adopt(old, rotated=True)
    bench.cache.close(heir)
    bench.cache.discard(old)
    assert heir.current() is None


async def test_a_fetch_for_a_person_that_a_reload_cuts_off_is_not_told_as_good() -> None:
    bench = Bench()
    await bench.warm()
    task = await background(bench.cache.fetch_now(), bench.clock)
    bench.cache.close()
    with pytest.raises(TokenUnavailable):
        await task


async def test_a_fetch_for_a_person_is_refused_where_none_can_start_and_fails_as_the_fetch_does() -> None:
    bench = Bench(min_interval=300.0)
    await bench.warm()
    with pytest.raises(TokenUnavailable) as early:
        await bench.cache.fetch_now()
    assert early.value.reason == "the vendor allows the next token request in 300 s"
    await bench.clock.advance(300)
    task = await background(bench.cache.fetch_now(), bench.clock)
    await bench.fail(CredentialRefused(reason="HTTP 401"))
    with pytest.raises(CredentialRefused) as failed:
        await task
    assert failed.value.reason == "HTTP 401"
    bench.cache.close()
    with pytest.raises(TokenUnavailable) as closed:
        await bench.cache.fetch_now()
    assert closed.value.reason == "the credential is no longer in use"


async def test_a_closed_cache_without_a_successor_answers_at_once() -> None:
    bench = Bench()
    task = await background(bench.cache.get(), bench.clock)
    bench.cache.close()
    with pytest.raises(TokenUnavailable):
        await task
    assert await bench.cache.refused(bench.source.token()) is None
    bench.cache.discard(bench.source.token())
    assert bench.source.count == 1


# -------------------------------------------------------------------------------------------------------- what is seen


async def test_every_change_of_a_token_is_one_event() -> None:
    bench = Bench()
    with capture_logs() as logs:
        token = await bench.warm(600)
        bench.cache.discard(token)
        await bench.clock.settle()
        await bench.fail()
        await bench.clock.advance(0.5)
    told = [(log["event"], log.get("cause"), log["credential"]) for log in logs]
    assert told == [
        ("token_fetched", "startup", "acme"),
        ("token_invalidated", "unauthorized", "acme"),
        ("token_fetch_failed", "unauthorized", "acme"),
    ]
    fetched = logs[0]
    assert {"fingerprint", "life", "duration", "attempt", "outcome"} <= set(fetched)
    assert "CANARY" not in repr(logs)


async def test_status_says_how_it_stands() -> None:
    bench = Bench()
    assert (bench.cache.status("acme").state, bench.cache.status("acme").tried) == ("idle", False)
    bench.cache.begin("startup")
    assert bench.cache.status("acme").state == "pending"
    await bench.clock.settle()
    await bench.fail(TokenMalformed(reason="not JSON"))
    status = bench.cache.status("acme")
    assert (status.state, status.tried, status.reason, status.consecutive_failures) == (
        "malformed",
        True,
        "not JSON",
        1,
    )
    assert status.next_attempt_in == pytest.approx(0.5, abs=0.3)
    bench.source.answer = lambda: bench.source.token(600)
    await bench.clock.advance(30)
    status = bench.cache.status("other")
    assert (status.name, status.state, status.reason) == ("other", "valid", None)
    assert status.life == pytest.approx(600.0)


async def test_neither_cache_nor_status_prints_a_secret() -> None:
    bench = Bench()
    await bench.warm()
    assert "CANARY" not in repr(bench.cache) + repr(bench.cache.status("acme")) + repr(bench.cache.current())
