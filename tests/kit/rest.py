"""Checks that a gateway is at rest: no exchange, task, pool slot or socket is left over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.gateway import Running

_FILES = Path("/proc/self/fd")


TURN = 0.005


async def until(holds: Callable[[], object], *, within: float = 30.0) -> None:
    """Wait until `holds()` is true, for states that cause no event.

    `within` limits the number of checks: 200 for each second, each after a turn of the event loop. So a stall of the
    machine costs one check, however long it is.
    """
    for _ in range(round(within / TURN)):
        if holds():
            return
        await asyncio.sleep(TURN)
    assert holds(), f"did not come true within {within:g} s"


async def settled(value: Callable[[], int], *, looks: int = 60) -> int:
    """Wait until a count has grown and then stayed the same for some checks; return it."""
    last = same = 0
    for _ in range(round(30 / TURN)):
        last, same = (last, same + 1) if last and value() == last else (value(), 0)
        if same >= looks:
            return last
        await asyncio.sleep(TURN)
    msg = f"it did not come to rest, at {value()}"
    raise AssertionError(msg)


class Rest:
    """Remembers what was open before, and waits until nothing else is open."""

    def __init__(self, it: Running) -> None:
        self._it = it
        self._tasks = len(asyncio.all_tasks())
        self._files = self._open_files()

    @staticmethod
    def _open_files() -> int:
        return len(list(_FILES.iterdir())) if _FILES.exists() else 0

    @property
    def left_over(self) -> dict[str, int]:
        """Return what is open now and was not before, including tasks and files of the test's own peers."""
        assert self._it.gateway._data is not None
        return {
            "not at rest": int(not self._it.at_rest()),
            "connections": self._it.gateway._data.connections,
            "tasks": max(0, len(asyncio.all_tasks()) - self._tasks),
            "files": max(0, self._open_files() - self._files),
        }

    async def comes(self, *, within: float = 1.0, apart_from: tuple[str, ...] = ()) -> bool:
        """Wait until nothing is left over, for at most `within` seconds as `until` counts them."""
        for _ in range(round(within / TURN)):
            if not any(number for name, number in self.left_over.items() if name not in apart_from):
                return True
            await asyncio.sleep(TURN)
        return False
