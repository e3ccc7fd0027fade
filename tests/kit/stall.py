"""What a busy machine does to a test that measures time, and how not to believe it.

A machine with other work stops a process for tenths of a second now and then. Where two timers race (an app that says
something every 50 ms against a time-out of 200 ms), a test proves nothing while that happens. So its failure counts
only if the event loop was in time all along; otherwise the test is run again.
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
"""Seconds by which a timer of the loop may be late without a stall being the reason for a failure."""
TRIES = 12


class Stalls:
    """Watches the running loop: `worst` is the longest time by which a timer came too late."""

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
    """Run a test again that failed while the loop stalled, `tries` times at the most.

    A failure in a loop that was in time counts at once: that is the gateway, and not the machine. Fixtures are not made
    anew, so the test makes for itself what it changes.

    Args:
        test: the test; absent where one of the others is given.
        late: seconds; a loop that was later than this has stalled.
        tries: the last of so many failures counts whatever the loop did.
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
