"""The system's clock on the running asyncio loop, as a `model.Clock`.

Tokens and access take a `model.Clock`, so that tests control time; the data plane reads the loop's own clock.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_TIMER: Final = 5.0
"""Most seconds of one timer of the loop. The loop's clock stops while the machine is suspended, so a longer timer is
divided, and after a suspension it fires at most this late."""


def since_boot() -> Callable[[], float]:
    """Return a monotonic clock that also counts while the machine is suspended, where the system has one.

    Linux: `CLOCK_BOOTTIME`. macOS: `CLOCK_MONOTONIC`, which `time.monotonic` is not. Elsewhere `time.monotonic`.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        clock = getattr(time, name, None)
        if clock is not None:
            try:
                time.clock_gettime(clock)
            except OSError:
                continue
            return partial(time.clock_gettime, clock)
    return time.monotonic


class _Timer:
    """A timer on a clock that counts suspension."""

    __slots__ = ("_at", "_callback", "_monotonic", "_timer")

    def __init__(self, monotonic: Callable[[], float], delay: float, callback: Callable[[], object]) -> None:
        self._monotonic = monotonic
        self._at = monotonic() + delay
        self._callback = callback
        self._timer = self._wait(delay)

    def _wait(self, left: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(min(max(0.0, left), LONGEST_TIMER), self._check)

    def _check(self) -> None:
        left = self._at - self._monotonic()
        if left > 0:
            self._timer = self._wait(left)
        else:
            self._callback()

    def cancel(self) -> None:
        self._timer.cancel()


class SystemClock:
    """Real time, with the running loop's timers. Time goes on while the machine is suspended."""

    __slots__ = ("monotonic",)

    wall = staticmethod(time.time)

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        """`monotonic` is the clock to use instead of the system's, in seconds."""
        self.monotonic = monotonic or since_boot()

    def call_later(self, delay: float, callback: Callable[[], object]) -> _Timer:
        """Call `callback` from the running loop after `delay` seconds."""
        return _Timer(self.monotonic, delay, callback)

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds."""
        done = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, partial(_finish, done))
        try:
            await done
        finally:
            timer.cancel()


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
