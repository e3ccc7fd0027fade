"""An instance's part of a rate and of a limit in flight: the parts of all instances are the limit, never more."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.access import Access, Allowance, hash_key
from gateway.errors import RateLimited
from gateway.model import Client, ClientLimit
from gateway.observe import Metrics
from tests.kit.clients import ORDERS, clients_of, config_of
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from gateway.access.allowance import Admission

KEY = "gp_CANARY-parts"


def limited(limit: ClientLimit) -> Allowance:
    return clients_of(Client("web", (hash_key(KEY),), limits=(limit,))).identify(KEY.encode(), None, ORDERS)


def parts(limit: ClientLimit, members: int) -> list[Allowance]:
    made = [limited(limit) for _ in range(members)]
    for rank, each in enumerate(made):
        each.use_part(rank, members)
    return made


def admitted(it: Allowance, now: float, calls: int) -> list[Admission]:
    found = []
    for _ in range(calls):
        try:
            found.append(it.admit(now))
        except RateLimited:
            break
    return found


@given(limit=st.integers(1, 40), members=st.integers(1, 20))
def test_calls_in_flight_on_all_instances_are_exactly_the_limit(limit: int, members: int) -> None:
    assert sum(len(admitted(each, 0.0, 99)) for each in parts(ClientLimit(in_flight=limit), members)) == limit


@given(
    rate=st.sampled_from([0.5, 2.0, 10.0, 37.5]),
    burst=st.integers(1, 40),
    members=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 3), max_size=12),
)
def test_calls_on_all_instances_are_never_more_than_burst_and_rate_allow(
    rate: float, burst: int, members: int, gaps: list[float]
) -> None:
    made, now, passed = parts(ClientLimit(rate=rate, burst=burst), members), 100.0, 0
    for gap in [0.0, *gaps]:
        now += gap
        passed += sum(len(admitted(each, now, 99)) for each in made)
        # Each instance may round by a hundredth of an interval.
        assert passed <= burst + rate * (now - 100.0) + 0.01 * members + 1e-6
    if not gaps:
        assert passed == burst


def test_the_whole_rate_is_used_by_all_instances_together() -> None:
    made, passed = parts(ClientLimit(rate=40, burst=8), 4), 0
    for tick in range(1001):
        passed += sum(len(admitted(each, tick / 100, 99)) for each in made)
    assert passed == pytest.approx(8 + 400, abs=4)


def test_an_instance_without_a_part_says_which_limit_is_too_small() -> None:
    *_, last = parts(ClientLimit(rate=1, burst=2), 3)
    with pytest.raises(RateLimited) as refusal:
        last.admit(0.0)
    assert refusal.value.reason.startswith("rate of clients.web on orders: 1 per second")
    assert refusal.value.fields[0] == ("RateLimit-Policy", '"rate";q=2;w=2')
    *_, last = parts(ClientLimit(in_flight=2), 3)
    with pytest.raises(RateLimited, match="2 requests in flight") as refusal:
        last.admit(0.0)
    assert refusal.value.fields[0] == ("RateLimit-Policy", '"in-flight";q=2;qu="concurrent-requests"')


def test_a_refusal_names_the_whole_limit_and_not_the_part() -> None:
    one, *_ = parts(ClientLimit(rate=8, burst=8, in_flight=40), 4)
    admitted(one, 0.0, 99)
    with pytest.raises(RateLimited) as refusal:
        one.admit(0.0)
    assert refusal.value.fields[0] == ("RateLimit-Policy", '"rate";q=8;w=1')


def test_the_part_of_an_instance_that_is_gone_returns() -> None:
    it = limited(ClientLimit(in_flight=6))
    it.use_part(2, 3)
    running = admitted(it, 0.0, 99)
    it.use_part(1, 2)
    more = admitted(it, 0.0, 99)
    assert (len(running), len(more)) == (2, 1)
    it.use_part(0, 6)
    assert admitted(it, 0.0, 99) == []
    for each in [*running, *more]:
        each.release(200)
    assert len(admitted(it, 0.0, 99)) == 1


def test_limits_are_not_changed_by_instances_where_there_are_none() -> None:
    it = limited(ClientLimit())
    assert it.use_part(3, 9)
    assert len(admitted(it, 0.0, 500)) == 500


async def test_a_reload_keeps_the_part_and_a_limit_that_leaves_nothing_is_logged_once() -> None:
    config = config_of(Client("web", (hash_key(KEY),), limits=(ClientLimit(in_flight=2),)))
    access = Access(config, clock=FakeClock(), metrics=Metrics())
    access.keep(config, access.clients(config))
    with capture_logs() as logs:
        access.use_part(2, 3)
        for _ in range(3):
            clients = access.clients(config)
            access.keep(config, clients)
            with pytest.raises(RateLimited):
                clients.identify(KEY.encode(), None, ORDERS).admit(0.0)
    assert logs == [{"event": "limit_below_instances", "log_level": "warning", "clients": ["web"], "instances": 3}]


def test_without_a_store_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, gateway.app; print([name for name in sys.modules if name.startswith(('redis', 'gateway.store'))])"
    )
    shared = "print([name for name in ('shared', 'escrow', 'fieldsfile') if f'gateway.access.{name}' in sys.modules])"
    said = subprocess.run([sys.executable, "-c", f"{code}; {shared}"], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == ["[]", "[]"]
