"""Whether a gateway has come to rest: no exchange, no task, no pool slot, no socket is left over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.gateway import Running

_FILES = Path("/proc/self/fd")


async def until(holds: Callable[[], object], *, within: float = 5.0) -> None:
    """Wait until `holds()` is true: for what shows only from outside, without an event of its own."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


class Rest:
    """Remembers what there was before, and waits until there is no more than that."""

    def __init__(self, it: Running) -> None:
        self._it = it
        self._tasks = len(asyncio.all_tasks())
        self._files = self._open_files()

    @staticmethod
    def _open_files() -> int:
        return len(list(_FILES.iterdir())) if _FILES.exists() else 0

    @property
    def left_over(self) -> dict[str, int]:
        """What is there beyond what was: tasks and files of the test's own peers count, too."""
        assert self._it.gateway._data is not None
        return {
            "not at rest": int(not self._it.at_rest()),
            "connections": self._it.gateway._data.connections,
            "tasks": max(0, len(asyncio.all_tasks()) - self._tasks),
            "files": max(0, self._open_files() - self._files),
        }

    async def comes(self, *, within: float = 1.0, apart_from: tuple[str, ...] = ()) -> bool:
        """Wait until nothing is left over, at most `within` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while any(number for name, number in self.left_over.items() if name not in apart_from):
            if loop.time() > end:
                return False
            await asyncio.sleep(0.005)
        return True
