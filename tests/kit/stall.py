"""Repeats a test that measures time if it failed while the machine was busy with other work.

A busy machine sometimes stops a process for tenths of a second. A test in which two timers race (an app that sends
something every 50 ms, and a time-out of 200 ms) proves nothing at such a moment. So its failure counts only if the
event loop was in time throughout; otherwise the test runs again.
"""

from __future__ import annotations

import asyncio
import time
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Self, overload

import pytest

from tests.kit.wire import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeAlias

P = ParamSpec("P")
if TYPE_CHECKING:
    Test: TypeAlias = Callable[P, Coroutine[Any, Any, None]]

TICK = 0.005
LATE = 0.02
"""Seconds by which a timer of the loop may be late before a failure is put down to a stall."""
TRIES = 12


class Stalls:
    """Watches the running loop: `worst` is the longest delay of a timer in seconds."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._worst = 0.0
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._timer.cancel()

    @property
    def worst(self) -> float:
        return self._worst

    def _wait(self) -> None:
        self._due = time.monotonic() + TICK
        self._timer = self._loop.call_later(TICK, self._tick)

    def _look(self) -> None:
        self._worst = max(self._worst, time.monotonic() - self._due)

    def _tick(self) -> None:
        self._look()
        self._wait()


@overload
def unless_stalled(test: Test[P]) -> Test[P]: ...


@overload
def unless_stalled(*, late: float = LATE, tries: int = TRIES) -> Callable[[Test[P]], Test[P]]: ...


def unless_stalled(
    test: Test[P] | None = None, *, late: float = LATE, tries: int = TRIES
) -> Test[P] | Callable[[Test[P]], Test[P]]:
    """Run a test again if it failed while the loop stalled, at most `tries` times altogether.

    A failure while the loop was in time counts at once, because then the gateway is the cause. Fixtures are not created
    again, so the test itself must create what it changes.

    Args:
        test: the test; None if another argument is given.
        late: seconds; a loop with a longer delay has stalled.
        tries: the last of so many failures counts in any case.
    """
    if test is None:
        return lambda test: _again_if_stalled(test, late, tries)
    return _again_if_stalled(test, late, tries)


def _again_if_stalled(test: Test[P], late: float, tries: int) -> Test[P]:
    @wraps(test)
    async def run(*args: P.args, **named: P.kwargs) -> None:
        for left in reversed(range(tries)):
            with Stalls() as stalls:
                try:
                    return await test(*args, **named)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - it is raised, unless it is void
                    failure = error
            if not left or stalls.worst < late:
                raise failure
            close_all()
            await asyncio.sleep(TICK)
        return None

    return run
