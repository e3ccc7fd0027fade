"""Two clocks for tests, both a `model.Clock`: `FakeClock` stands still until it is moved, `SteadyClock` never stalls.

`FakeClock.advance` fires all timers that become due, in order and at their own instants, and lets tasks run in between,
so that an hour of refreshes takes milliseconds. Tasks on real sockets also need real time: `until` waits in real time
without moving this clock. `SteadyClock` is real time without the time in which the machine was busy with other work.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = 25
"""Turns of the event loop for tasks at each instant: more than the longest chain of awaits in any test."""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class FakeTimer:
    """A scheduled call; cancelled ones are skipped."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """A clock that is moved by hand. Monotonic and wall time move together unless a test sets `wall_offset`."""

    def __init__(self, start: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._now = start
        self.wall_offset = wall - start
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self.wall_offset

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._now + max(0.0, delay), next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: _resolve(done))
        try:
            await done
        finally:
            timer.cancel()

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next timer; None without a timer."""
        live = [at for at, _, timer in self._timers if not timer.cancelled]
        return min(live) - self._now if live else None

    async def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`, and fire each timer at its own instant."""
        end = self._now + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._now = max(self._now, at)
            timer.callback()
            await self.settle()
        self._now = end
        await self.settle()

    async def settle(self) -> None:
        """Let every task run until it waits for time to pass."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object], *, within: float = 30.0) -> None:
        """Wait in real time until `condition` holds, for work on sockets; this clock does not move meanwhile."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                msg = "the condition did not come true in time"
                raise AssertionError(msg)
            await asyncio.sleep(0.001)


class SteadyTimer:
    """A scheduled call of a `SteadyClock`. It is scheduled again if the clock is behind the loop's timer."""

    def __init__(self, clock: SteadyClock, at: float, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._at = at
        self._callback = callback
        self._wait()

    def _wait(self) -> None:
        left = max(0.0, self._at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left, self._fire)

    def _fire(self) -> None:
        if self._clock.monotonic() < self._at - 0.001:
            self._wait()
        else:
            self._callback()

    def cancel(self) -> None:
        self._timer.cancel()


class SteadyClock:
    """Real time that passes only while this process runs, so that no token expires while the machine stalls.

    At most `GAP` seconds pass between two ticks, however long the process was stopped. Create it in a running loop, and
    call `stop()` at the end.
    """

    TICK = 0.005
    GAP = 0.02

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._seen = time.monotonic()
        self._wall_offset = time.time() - self._now
        self._tick()

    def _tick(self) -> None:
        self._now, self._seen = self.monotonic(), time.monotonic()
        self._timer = self._loop.call_later(self.TICK, self._tick)

    def monotonic(self) -> float:
        return self._now + min(self.GAP, time.monotonic() - self._seen)

    def wall(self) -> float:
        return self.monotonic() + self._wall_offset

    def call_later(self, delay: float, callback: Callable[[], object]) -> SteadyTimer:
        return SteadyTimer(self, self.monotonic() + max(0.0, delay), callback)

    async def sleep(self, delay: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: _resolve(done))
        try:
            await done
        finally:
            timer.cancel()

    def stop(self) -> None:
        self._timer.cancel()
