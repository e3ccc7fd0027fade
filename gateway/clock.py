"""The system's clock on the running asyncio loop, as a `model.Clock`.

Tokens and access take a `model.Clock`, so that tests control time; the data plane reads the loop's own clock.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Timer


class SystemClock:
    """Real time, with the running loop's timers."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` from the running loop after `delay` seconds."""
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds."""
        await asyncio.sleep(max(0.0, delay))
