"""The system's clock: it goes on while the machine is suspended, and its timers keep up with it."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from gateway import clock as module
from gateway.clock import SystemClock, since_boot


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME is Linux's")
def test_time_is_counted_through_a_suspension() -> None:
    before, now, after = (
        time.clock_gettime(time.CLOCK_BOOTTIME), SystemClock().monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    )  # fmt: skip
    assert before <= now <= after


def test_a_kernel_without_such_a_clock_has_the_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> float:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(time, "clock_gettime", refuse)
    assert since_boot() is time.monotonic


class Suspended:
    """A clock that jumps ahead when the machine wakes up; the loop's own clock does not."""

    def __init__(self) -> None:
        self.asleep = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.asleep


async def test_a_timer_that_came_due_in_a_suspension_fires_soon_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TIMER", 0.01)
    boot, fired = Suspended(), asyncio.Event()
    SystemClock(boot).call_later(3600, fired.set)
    await asyncio.sleep(0.05)
    assert not fired.is_set()
    boot.asleep = 3601
    await asyncio.wait_for(fired.wait(), 5)


async def test_a_sleep_that_ended_in_a_suspension_ends_soon_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TIMER", 0.01)
    boot = Suspended()
    sleeping = asyncio.ensure_future(SystemClock(boot).sleep(3600))
    await asyncio.sleep(0.05)
    boot.asleep = 3601
    await asyncio.wait_for(sleeping, 5)


async def test_a_cancelled_timer_never_fires_whichever_part_of_it_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TIMER", 0.01)
    fired: list[int] = []
    timer = SystemClock().call_later(0.05, lambda: fired.append(1))
    await asyncio.sleep(0.025)
    timer.cancel()
    await asyncio.sleep(0.06)
    assert not fired


async def test_a_timer_fires_once_and_not_early() -> None:
    clock, fired = SystemClock(), []
    began = clock.monotonic()
    clock.call_later(0.03, lambda: fired.append(clock.monotonic() - began))
    await clock.sleep(0.1)
    assert len(fired) == 1
    assert fired[0] >= 0.03
