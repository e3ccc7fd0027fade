"""How instances take turns while the store is away."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gateway.model import Credential
from gateway.tokens.alone import LATEST, alone_wait

WALL = 1_800_000_000.0


def wait(credential: Credential, **given_: Any) -> float:
    usual: dict[str, Any] = {
        "members": 4, "rank": 0, "wall": WALL, "left": 0.0, "margin": 60.0, "bare": 0.0, "renews": False
    }  # fmt: skip
    return alone_wait(credential, **(usual | given_))


def named(**settings: Any) -> Credential:
    return Credential(name="acme", **settings)


@pytest.mark.parametrize("settings", [{}, {"min_interval": 6.0}, {"single_active_token": True}])
def test_an_instance_that_was_always_alone_waits_for_nothing(settings: dict[str, Any]) -> None:
    assert wait(named(**settings), members=1, left=30.0) == 0.0


@pytest.mark.parametrize(("rank", "expected"), [(0, 0.0), (1, 7.5), (2, 15.0), (3, 22.5)])
def test_renewals_are_spread_over_the_first_half_of_the_margin(rank: int, expected: float) -> None:
    assert wait(named(), rank=rank, left=60.0) == pytest.approx(expected)
    assert wait(named(), rank=rank) == 0.0, "without a token nobody waits"


@given(
    interval=st.floats(0.1, 60),
    members=st.integers(2, 16),
    start=st.floats(WALL, WALL + 1e6),
    lateness=st.lists(st.floats(0, 1), min_size=200, max_size=200),
)
def test_all_together_send_no_more_than_one_request_in_min_interval(
    interval: float, members: int, start: float, lateness: list[float]
) -> None:
    """Each instance asks whenever it may, at any instant of its slot; ten in ten intervals is what a vendor allows."""
    credential = named(min_interval=interval)
    asked = []
    for rank in range(members):
        now, turn = start, 0
        while now < start + 25 * interval:
            pause = wait(credential, members=members, rank=rank, wall=now)
            if pause > 0:
                now += pause
                continue
            turn += 1
            late = now + lateness[(rank * 31 + turn) % 200] * LATEST * interval
            if wait(credential, members=members, rank=rank, wall=late) == 0:
                now = late
            asked.append(now)
            now += interval  # `min_interval` of the instance itself
    asked.sort()
    for first in asked:
        assert sum(first <= at < first + 10 * interval for at in asked) <= 10


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"left": 30.0, "rank": 2}, 30.0),
        ({"left": 30.0, "rank": 2, "renews": True}, 0.0),
        ({"rank": 2}, 2.0),
        ({"rank": 2, "bare": 1.5}, 0.5),
        ({"rank": 0}, 0.0),
    ],
    ids=["others use theirs to the end", "the last holder renews", "then by rank", "which passes", "the first at once"],
)
def test_a_vendor_with_one_active_token(given_: dict[str, Any], expected: float) -> None:
    margin = 60.0 if not given_.get("renews") else 0.0
    found = wait(named(single_active_token=True), **({"margin": margin} | given_))
    assert found == pytest.approx(expected if not given_.get("renews") else max(0.0, 30.0 - margin * 0.75))


def test_without_a_store_nothing_of_sharing_is_imported() -> None:
    code = (
        "import sys, gateway.app\n"
        "from gateway.tokens import TokenSet\n"
        "print([name for name in sys.modules if name in ('gateway.store', 'redis', 'gateway.tokens.shared',"
        " 'gateway.tokens.turn', 'gateway.tokens.sharing')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
