"""How much: rates with bursts, requests in flight, budgets. Nothing leaks, whatever a call's end."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import Access, Allowance, Clients, hash_key, state
from gateway.access.budgets import period_of, rate_limit_fields
from gateway.errors import ClientForbidden, ExchangeError, RateLimited
from gateway.model import Client, ClientBudget, ClientLimit
from gateway.observe import Metrics
from tests.kit.clients import LEDGER, ORDERS, clients_of, config_of
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from gateway.access.allowance import Admission
    from gateway.model import Route

KEY = "gp_CANARY-web"
WALL = datetime(2026, 11, 22, 23, 59, 50, tzinfo=UTC).timestamp()


def one_client(clock: FakeClock | None = None, **more: Any) -> Clients:
    return clients_of(Client("web", (hash_key(KEY),), **more), clock=clock)


def allowance(clients: Clients, route: Route = ORDERS) -> Allowance:
    return clients.identify(KEY.encode(), None, route)


def limited(limit: ClientLimit) -> Allowance:
    return allowance(one_client(limits=(limit,)))


def admit(it: Allowance, now: float = 0.0, *, method: str = "GET") -> Admission:
    it.check(method, "/orders/a", "10.0.0.1")
    return it.admit(now)


# --------------------------------------------------------------------------------------------------------------- rate


def test_a_burst_passes_at_once_and_then_the_rate_holds() -> None:
    it = limited(ClientLimit(rate=10, burst=5))
    for _ in range(5):
        admit(it, 100.0).release(200)
    with pytest.raises(RateLimited):
        admit(it, 100.0)
    admit(it, 100.1).release(200)
    with pytest.raises(RateLimited):
        admit(it, 100.15)
    admit(it, 100.2).release(200)


def test_after_a_pause_there_is_one_whole_burst_and_not_two() -> None:
    it = limited(ClientLimit(rate=10, burst=3))
    for start in (0.0, 1000.0):
        for _ in range(3):
            admit(it, start).release(200)
        with pytest.raises(RateLimited):
            admit(it, start)


def test_the_burst_is_a_second_of_the_rate_unless_set_and_at_least_one() -> None:
    for rate, burst in ((7.0, 7), (0.2, 1)):
        it = limited(ClientLimit(rate=rate))
        for _ in range(burst):
            admit(it)
        with pytest.raises(RateLimited):
            admit(it)


def test_a_refusal_for_the_rate_says_which_limit_and_when_to_come_back() -> None:
    it = limited(ClientLimit(rate=0.5, burst=1))
    admit(it)
    with pytest.raises(RateLimited) as refusal:
        admit(it, 0.5)
    assert refusal.value.retry_after == pytest.approx(1.5)
    assert refusal.value.fields == (("RateLimit-Policy", '"rate";q=1;w=2'), ("RateLimit", '"rate";r=0;t=2'))
    admit(it, 2.0)


@given(st.lists(st.floats(0, 0.5), max_size=60), st.integers(1, 5), st.sampled_from([1.0, 4.0, 10.0]))
def test_no_sequence_of_calls_gets_more_than_burst_and_rate_allow(gaps: list[float], burst: int, rate: float) -> None:
    it = limited(ClientLimit(rate=rate, burst=burst))
    now, passed = 0.0, 0
    for gap in gaps:
        now += gap
        try:
            admit(it, now).release(200)
            passed += 1
        except RateLimited:
            pass
    # An app that waits as it is told may come a hundredth of an interval early: clocks round.
    assert passed <= burst + 0.01 + rate * now + 1e-6


# ---------------------------------------------------------------------------------------------------------- in flight


@pytest.mark.parametrize("status", [0, 200, 302, 404, 500])
def test_a_place_in_flight_comes_back_whatever_the_end(status: int) -> None:
    it = limited(ClientLimit(in_flight=2))
    first, second = admit(it), admit(it)
    with pytest.raises(RateLimited) as refusal:
        admit(it)
    assert refusal.value.fields[0] == ("RateLimit-Policy", '"in-flight";q=2;qu="concurrent-requests"')
    first.release(status)
    second.release(status)
    admit(it)
    admit(it)


def test_a_call_that_is_refused_takes_nothing() -> None:
    """A refused rate uses up no place, a refused place no rate, a refused rule neither."""
    it = allowance(
        one_client(
            limits=(ClientLimit(rate=1, burst=2, in_flight=1),),
            budgets=(ClientBudget("orders", "day", hard=2),),
            deny=("DELETE /**",),
        )
    )
    running = admit(it)
    for method in ("GET", "DELETE"):
        with pytest.raises((RateLimited, ClientForbidden)):
            admit(it, method=method)
    running.release(200)
    admit(it).release(200)
    assert it.in_flight.value == 0


def test_each_route_has_its_own_limits_and_the_later_entry_wins() -> None:
    """So a slow vendor that holds a client's requests holds none of its requests to another vendor."""
    clients = one_client(limits=(ClientLimit(in_flight=1, rate=100), ClientLimit(frozenset({"ledger"}), in_flight=2)))
    orders, ledger = allowance(clients), allowance(clients, LEDGER)
    admit(orders)
    with pytest.raises(RateLimited):
        admit(orders)
    admit(ledger)
    admit(ledger)
    with pytest.raises(RateLimited):
        admit(ledger)


# ------------------------------------------------------------------------------------------------------------ budgets


def budgeted(clock: FakeClock, **budget: Any) -> Allowance:
    return allowance(one_client(clock, budgets=(ClientBudget("orders", "day", **budget),)))


@pytest.mark.parametrize(
    ("status", "left", "counted"),
    [
        (200, False, True),
        (204, False, True),
        (302, False, True),
        (400, False, False),
        (404, False, False),
        (500, False, False),
        (101, False, True),
        (0, False, False),
        (0, True, True),
        (500, True, False),
    ],
    ids=["200", "204", "302", "400", "404", "500", "101", "no answer", "the app hung up", "hung up after a 500"],
)
def test_a_call_counts_as_vendors_bill_it(status: int, left: bool, counted: bool) -> None:
    """And hanging up is no way around a budget: what went out may have been charged for."""
    it = budgeted(FakeClock(), hard=1)
    admit(it).release(status, left=left)
    if counted:
        with pytest.raises(RateLimited):
            admit(it)
    else:
        admit(it)


def test_calls_under_way_are_reserved_so_that_together_they_do_not_pass_the_limit() -> None:
    it = budgeted(FakeClock(), hard=3)
    running = [admit(it) for _ in range(3)]
    with pytest.raises(RateLimited):
        admit(it)
    running.pop().release(500)
    running.append(admit(it))
    for call in running:
        call.release(200)
    with pytest.raises(RateLimited):
        admit(it)


async def test_a_refusal_for_a_budget_ends_with_its_day_in_utc() -> None:
    clock = FakeClock(wall=WALL)
    it = budgeted(clock, hard=1)
    admit(it).release(200)
    with pytest.raises(RateLimited) as refusal:
        admit(it)
    assert refusal.value.retry_after == pytest.approx(10)
    assert refusal.value.fields == (
        ("RateLimit-Policy", '"budget-day";q=1;w=86400'),
        ("RateLimit", '"budget-day";r=0;t=10'),
    )
    await clock.advance(10)
    admit(it)


async def test_a_call_is_settled_in_the_period_in_which_it_began() -> None:
    clock = FakeClock(wall=WALL)
    it = budgeted(clock, hard=1)
    late = admit(it)
    await clock.advance(20)
    tomorrow = admit(it)
    late.release(200)
    tomorrow.release(500)
    admit(it)


async def test_a_clock_that_is_set_back_finds_the_old_count_again() -> None:
    clock = FakeClock(wall=WALL)
    it = budgeted(clock, hard=1)
    admit(it).release(200)
    clock.wall_offset += 3600
    admit(it)
    clock.wall_offset -= 3600
    with pytest.raises(RateLimited):
        admit(it)


def test_of_two_budgets_the_spent_one_refuses_and_the_other_is_not_touched() -> None:
    clock = FakeClock(wall=WALL)
    clients = one_client(
        clock, budgets=(ClientBudget("orders", "month", hard=5), ClientBudget("orders", "day", hard=1))
    )
    it = allowance(clients)
    admit(it).release(200)
    with pytest.raises(RateLimited, match="of this day"):
        admit(it)
    month, day = it.budgets
    assert (month.current().used, month.current().reserved) == (1, 0)
    assert (day.current().used, day.current().reserved) == (1, 0)


def test_other_routes_and_clients_do_not_count() -> None:
    clients = one_client(budgets=(ClientBudget("orders", "day", hard=1),))
    for _ in range(3):
        admit(allowance(clients, LEDGER)).release(200)
    admit(allowance(clients))


@pytest.mark.parametrize(
    ("per", "at", "name", "seconds"),
    [
        ("day", "2026-11-22T23:59:59Z", "2026-11-22", 86400),
        ("day", "2026-11-23T00:00:00Z", "2026-11-23", 86400),
        ("month", "2026-02-28T12:00:00Z", "2026-02", 28 * 86400),
        ("month", "2028-02-29T12:00:00Z", "2028-02", 29 * 86400),
        ("month", "2026-12-31T23:59:59Z", "2026-12", 31 * 86400),
    ],
)
def test_days_and_months_are_those_of_utc(per: str, at: str, name: str, seconds: int) -> None:
    wall = datetime.fromisoformat(at).timestamp()
    period, starts, ends = period_of(per, wall)
    assert (period, ends - starts) == (name, seconds)
    assert starts <= wall < ends


@given(st.lists(st.tuples(st.sampled_from(["start", "200", "500", "0", "left"]), st.integers(0, 5)), max_size=60))
def test_whatever_happens_in_flight_and_reservations_end_at_zero_and_never_pass_the_limit(
    steps: list[tuple[str, int]],
) -> None:
    it = allowance(one_client(limits=(ClientLimit(in_flight=3),), budgets=(ClientBudget("orders", "day", hard=4),)))
    counter, running, made = it.budgets[0].current(), [], 0
    for what, which in steps:
        try:
            if what == "start":
                running.append(admit(it))
            elif running:
                status = int(what) if what.isdigit() else 0
                running.pop(which % len(running)).release(status, left=what == "left")
                made += what in {"200", "left"}
        except ExchangeError:
            assert len(running) == 3 or made + len(running) == 4
        assert (it.in_flight.value, counter.reserved, counter.used) == (len(running), len(running), made)
        assert made + len(running) <= 4


async def test_a_budget_is_shown_as_unused_when_its_period_is_over_though_nobody_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else an alert on yesterday's budget would go on until somebody makes today's first call."""
    monkeypatch.setattr(state, "INTERVAL", 3600.0)  # usage, which is collected each second, for nine days
    clock, metrics = FakeClock(wall=WALL), Metrics()
    budgets = (ClientBudget("orders", "day", None, 10), ClientBudget("orders", "month", None, 100))
    config = config_of(Client("web", (hash_key(KEY),), budgets=budgets))
    access = Access(config, clock=clock, metrics=metrics)
    access.start(config)
    clients = access.clients(config)
    access.keep(config, clients)
    it = allowance(clients)
    late = admit(it)
    admit(it).release(200)

    def shown() -> list[float | None]:
        labels = {"client": "web", "route": "orders"}
        value = partial(sample, metrics)
        return [value("gatepass_client_budget_used", {**labels, "per": per}) for per in ("day", "month")]

    assert shown() == [1, 1]
    await clock.advance(9)
    assert shown() == [1, 1]
    await clock.advance(3)
    assert shown() == [0, 1], "ten seconds to midnight have passed"
    late.release(200)
    assert shown() == [0, 2], "a call counts in the day in which it began"
    await clock.advance(9 * 86400)
    assert shown() == [0, 0], "December"
    await access.stop()
    assert clock.next_timer is None


@pytest.mark.parametrize(
    ("window", "shown"), [(86_400, 86_400), (2.5, 3), (0.2, 1), (1.0000001, 1), (10.000000000000002, 10), (3.0, 3)]
)
def test_a_window_is_never_shown_shorter_than_it_is(window: float, shown: int) -> None:
    """A client that divides the quota by the window must not become faster than the limit."""
    (_, policy), _ = rate_limit_fields("rate", 5, window, 1.0)
    assert policy == f'"rate";q=5;w={shown}'
