"""When the next attempt comes: early enough for apps, late enough for token endpoints."""

from __future__ import annotations

import pytest

from gateway.errors import CredentialRefused, TokenMalformed, TokenUnavailable
from gateway.tokens.failures import TokenEndpointRejected, TokenEndpointThrottled, TokenEndpointTimeout
from gateway.tokens.pace import ForcedBudget, Pace


def pace(chance: float = 0.0, *, ceiling: float = 10.0, single_active: bool = False) -> Pace:
    return Pace(ceiling, single_active=single_active, chance=lambda: chance)


# ------------------------------------------------------------------------------------------------------- refresh ahead


@pytest.mark.parametrize(
    ("life", "margin"), [(86_400, 60), (3600, 60), (132, 60), (60, 27.3), (3, 1.36), (1, 0.45)], ids=str
)
def test_the_margin_is_a_minute_or_less_than_half_a_short_life(life: float, margin: float) -> None:
    assert pace().margin(life) == pytest.approx(margin, abs=0.05)


@pytest.mark.parametrize("life", [1, 3, 60, 3600])
def test_jitter_makes_a_refresh_earlier_only_and_never_before_half_of_the_life(life: float) -> None:
    early, late = pace(0.999).margin(life), pace(0.0).margin(life)
    assert late < early <= min(late * 1.1, life / 2)


def test_a_slow_endpoint_widens_the_margin() -> None:
    slow = pace()
    slow.succeeded(50.0)
    assert slow.margin(3600) == 75.0


def test_the_slowest_of_the_recent_fetches_counts_and_is_forgotten_in_time() -> None:
    one = pace()
    one.succeeded(50.0)
    for _ in range(5):
        one.succeeded(0.1)
    assert one.margin(3600) == 60.0


def test_an_only_live_token_is_replaced_as_late_as_is_safe() -> None:
    one = pace(0.5, single_active=True)
    one.succeeded(0.4)
    assert one.margin(3600) == 2.0
    one.succeeded(4.0)
    assert one.margin(3600) == 6.0


def test_a_token_that_came_back_unchanged_is_asked_for_again_nearer_to_its_end() -> None:
    """A handful of attempts a life, not one a second."""
    one = pace()
    one.succeeded(0.1)
    left, attempts = 60.0, 0
    while left > 0:
        one.unchanged(left)
        left, attempts = one.again(left), attempts + 1
    assert attempts <= 5


def test_a_sticky_endpoint_is_first_asked_late_in_the_next_life_and_earlier_again_when_it_changed() -> None:
    one = pace()
    one.succeeded(0.1)
    one.unchanged(8.0)
    margins = []
    for _ in range(6):
        margins.append(one.margin(3600))
        one.changed()
    assert margins == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


# ------------------------------------------------------------------------------------------------------------ back-off


def attempts_within(seconds: float, error: type[TokenUnavailable], *, eager: bool, chance: float = 0.0) -> int:
    one, at, count = pace(chance), 0.0, 0
    while at <= seconds:
        count += 1
        one.failed(error())
        at += one.delay(error(), eager=eager)
    return count


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_twenty_seconds_of_outage_cost_ten_attempts_at_most(chance: float) -> None:
    assert attempts_within(20.0, TokenUnavailable, eager=True, chance=chance) <= 10


@pytest.mark.parametrize("failures", [1, 5, 12, 50, 5000])
@pytest.mark.parametrize("kind", [TokenUnavailable, TokenEndpointTimeout])
def test_recovery_from_an_outage_takes_less_than_three_seconds_however_long_it_was(
    failures: int, kind: type[TokenUnavailable]
) -> None:
    one = pace(0.999)
    for _ in range(failures):
        one.failed(kind())
    assert one.delay(kind(), eager=True) <= 2.4


def test_the_first_retry_comes_after_half_a_second() -> None:
    one = pace()
    one.failed(TokenUnavailable())
    assert one.delay(TokenUnavailable(), eager=True) == one.delay(TokenUnavailable(), eager=False) == 0.5


def test_while_a_token_lives_attempts_thin_out_to_one_in_30_s() -> None:
    assert attempts_within(300.0, TokenUnavailable, eager=False) <= 16


@pytest.mark.parametrize("kind", [TokenEndpointRejected, TokenMalformed])
def test_a_client_error_that_stays_is_asked_about_less_and_less(kind: type[TokenUnavailable]) -> None:
    """More than 32 client errors in two minutes get an address banned at some vendors."""
    assert attempts_within(20.0, kind, eager=True) <= 10
    assert attempts_within(120.0, kind, eager=True) <= 20


def test_a_throttled_endpoint_is_left_alone_even_while_apps_are_refused() -> None:
    assert attempts_within(60.0, TokenEndpointThrottled, eager=True) <= 7


@pytest.mark.parametrize("chance", [0.0, 0.999])
@pytest.mark.parametrize("eager", [True, False])
def test_a_refused_credential_is_probed_once_a_minute(chance: float, eager: bool) -> None:
    one = pace(chance)
    one.failed(CredentialRefused())
    assert 60.0 <= one.delay(CredentialRefused(), eager=eager) <= 66.0


# ------------------------------------------------------------------------------------------------------------ time-out


def test_the_first_fetch_has_the_whole_time() -> None:
    assert pace(ceiling=8.0).timeout(0.0) == 8.0


@pytest.mark.parametrize(("good", "limit"), [(0.05, 2.0), (1.0, 3.0), (2.5, 7.5), (9.0, 10.0)])
def test_a_fetch_may_take_three_times_the_last_good_one(good: float, limit: float) -> None:
    one = pace()
    one.succeeded(good)
    assert one.timeout(0.0) == limit


def test_a_ceiling_below_two_seconds_is_kept() -> None:
    one = pace(ceiling=1.0)
    one.succeeded(0.1)
    assert one.timeout(0.0) == 1.0


@pytest.mark.parametrize(("left", "limit"), [(0.0, 2.0), (1.0, 2.0), (5.0, 5.0), (100.0, 10.0)])
@pytest.mark.parametrize("failures", [0, 1, 20])
def test_while_a_token_lives_a_fetch_has_until_its_end(left: float, limit: float, failures: int) -> None:
    """Nobody waits for it; and the end of the token is the moment to try another one."""
    one = pace()
    one.succeeded(0.1)
    for _ in range(failures):
        one.failed(TokenEndpointTimeout())
    assert one.timeout(left) == limit


# ------------------------------------------------------------------------------------------------------ forced fetches


def forced(accepted: bool, until: float, step: float = 0.002) -> list[float]:
    """Instants of forced fetches when every request of a steady load is refused."""
    budget, times, now = ForcedBudget(), [], 0.0
    while now < until:
        if budget.take(now, accepted=accepted):
            times.append(round(now, 1))
        now += step
    return times


def test_a_vendor_that_refuses_everything_costs_ever_fewer_fetches() -> None:
    assert forced(accepted=False, until=200.0) == [0.0, 5.0, 15.0, 35.0, 75.0, 135.0, 195.0]


def test_four_revocations_in_a_row_are_served_at_once() -> None:
    budget = ForcedBudget()
    assert [budget.take(now / 2, accepted=True) for now in range(5)] == [True, True, True, True, False]


def test_refusals_that_are_not_about_the_token_wear_the_budget_out() -> None:
    """Some vendors say 401 to a missing scope: every such request would cost a fetch for ever."""
    times = forced(accepted=True, until=600.0)
    assert len([t for t in times if t <= 10]) <= 6
    assert len([t for t in times if t > 300]) <= 6


def test_a_rested_budget_is_full_again() -> None:
    budget = ForcedBudget()
    for _ in range(4):
        assert budget.take(0.0, accepted=True)
    assert [budget.take(300.0, accepted=True) for _ in range(5)] == [True, True, True, True, False]


def test_an_accepted_token_lifts_the_hold() -> None:
    budget = ForcedBudget()
    assert budget.take(0.0, accepted=False)
    assert not budget.take(1.0, accepted=False)
    budget.relax()
    assert budget.take(1.0, accepted=False)
