"""Time as a protocol, so that tests can inject their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A scheduled call that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the call; does nothing when it has already run."""


class Clock(Protocol):
    """The injected clock of tokens and access control; the data plane reads the event loop's."""

    def monotonic(self) -> float:
        """Return seconds that never decrease and that also count while the machine is suspended."""

    def wall(self) -> float:
        """Return seconds since the epoch, UTC."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `delay` seconds of this clock."""

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds of this clock."""
