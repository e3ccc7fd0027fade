"""Callers that wait for a token, each with its own deadline, all woken by one call.

A cancelled caller affects neither the others nor the fetch.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import Clock
    from gateway.observe import CredentialMetrics


class Waiters:
    """The callers that wait now."""

    def __init__(self, clock: Clock, metrics: CredentialMetrics) -> None:
        self._clock = clock
        self._gauge = metrics.waiters
        self._waiters: set[asyncio.Future[bool]] = set()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, deadline: float) -> bool:
        """Return True when woken, False when `deadline` (monotonic) came first."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        timer = self._clock.call_later(deadline - self._clock.monotonic(), partial(_settle, waiter, woken=False))
        self._gauge.inc()
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
            self._gauge.dec()

    def wake(self) -> None:
        """Wake all callers; each then looks for the token itself."""
        for waiter in self._waiters:
            _settle(waiter, woken=True)


def _settle(waiter: asyncio.Future[bool], *, woken: bool) -> None:
    if not waiter.done():
        waiter.set_result(woken)
