"""What decides whether a test's failure counts must not itself be at the machine's mercy."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from tests.kit.clock import SteadyClock
from tests.kit.stall import Stalls, unless_stalled

ALWAYS, NEVER = -1.0, math.inf
"""What counts as a stall here: any loop, and none."""


@pytest.mark.parametrize(("late", "runs"), [(NEVER, 1), (ALWAYS, 4)], ids=["in time", "stalled"])
async def test_a_failure_counts_at_once_or_is_void_so_many_times(late: float, runs: int) -> None:
    ran = 0

    @unless_stalled(late=late, tries=4)
    async def fails() -> None:
        nonlocal ran
        ran += 1
        pytest.fail("as it must")

    with pytest.raises(pytest.fail.Exception, match="as it must"):
        await fails()
    assert ran == runs


async def test_who_passes_at_last_passes() -> None:
    ran = 0

    @unless_stalled(late=ALWAYS, tries=4)
    async def third_time() -> None:
        nonlocal ran
        ran += 1
        assert ran == 3

    await third_time()


async def test_a_blocked_loop_is_a_stall() -> None:
    with Stalls() as stalls:
        time.sleep(0.1)  # noqa: ASYNC251 - that is a stall
    assert stalls.worst >= 0.09


async def test_a_stall_takes_next_to_nothing_of_a_steady_clock_and_its_timers_wait() -> None:
    clock = SteadyClock()
    began, real, fired = clock.monotonic(), time.monotonic(), []
    clock.call_later(0.1, lambda: fired.append(clock.monotonic() - began))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - that is a stall
    assert clock.monotonic() - began <= time.monotonic() - real - 0.25
    await asyncio.sleep(0)
    assert fired == []
    while not fired:
        await clock.sleep(0.01)
    assert fired[0] >= 0.098
    assert time.monotonic() - real >= 0.3
    assert clock.wall() == pytest.approx(time.time(), abs=60)
    clock.stop()


async def test_a_steady_clock_keeps_time_in_a_loop_that_does() -> None:
    @unless_stalled(late=0.002, tries=100)
    async def measured() -> None:
        clock = SteadyClock()
        began, real = clock.monotonic(), time.monotonic()
        await clock.sleep(0.1)
        clock.stop()
        assert clock.monotonic() - began == pytest.approx(time.monotonic() - real, abs=0.01)

    await measured()
