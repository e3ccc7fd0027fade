"""Fetches of one credential: with the secret that works, past repeats of an expired token, and past the time-out.

A fetch that takes longer than the learned time-out is reported as failed, so that another one may start, but its
request goes on up to the credential's `timeout`. If it ends before any other fetch has succeeded, its outcome is used.
So an endpoint that became slower than its learned time-out is not cut off.

Decides nothing about when a fetch starts (`schedule.py`) or which token is used afterwards (`outcome.py`).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.errors import TokenUnavailable
from gateway.tokens.failures import TokenEndpointTimeout
from gateway.tokens.outcome import is_expired_repeat
from gateway.tokens.pace import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Token
    from gateway.tokens.pace import Pace
    from gateway.tokens.report import Cause
    from gateway.tokens.rotation import Fetched, Rotation

REPEAT_PAUSES: Final[tuple[float | None, ...]] = (0.25, 0.5, 1.0, None)
"""Seconds before each further attempt while an endpoint returns a token that has expired; None ends the attempts.
Callers wait on meanwhile. A pause shorter than `min_interval` ends the attempts, too."""
MOST_LATE: Final = 1
"""Most fetches past their time-out that go on at the same time; the oldest one, because it ends first."""


class _Progress:
    """When the request of a fetch was sent; each repeat counts anew."""

    __slots__ = ("sent_at",)

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at


class Fetcher:
    """Fetches tokens of one credential."""

    def __init__(
        self,
        secrets: Rotation,
        pace: Pace,
        clock: Clock,
        *,
        held: Callable[[], Token | None],
        late: Callable[[Cause, asyncio.Task[Fetched]], None],
    ) -> None:
        """Start without a fetch.

        Args:
            secrets: whom to ask with what.
            pace: knows the time-out.
            clock: for all instants and timers.
            held: returns the valid token in use, if there is one.
            late: called when a fetch ends that has been reported as timed out, with its cause and its task.
        """
        self._secrets = secrets
        self._pace = pace
        self._clock = clock
        self._held = held
        self._on_late = late
        self._late: set[asyncio.Task[Fetched]] = set()

    @property
    def is_late(self) -> bool:
        """Whether a fetch goes on that has been reported as timed out."""
        return bool(self._late)

    async def fetch(self, last: Token | None, cause: Cause, *, both_refused: bool, min_interval: float) -> Fetched:
        """Return a valid token; ask again shortly while the endpoint returns `last` although it has expired.

        Raises:
            TokenError: as the source; TokenUnavailable for a token that has expired, TokenEndpointTimeout if the
                learned time-out has passed. The fetch goes on then.
        """
        progress, within = _Progress(self._clock.monotonic()), self._within()
        request = self._fetch(progress, last, both_refused=both_refused, min_interval=min_interval)
        if within is None:
            return await request
        fetching = asyncio.get_running_loop().create_task(request)
        try:
            while not fetching.done():
                left = progress.sent_at + within - self._clock.monotonic()
                if left <= 0:
                    break
                await self._wait(fetching, left)
        except asyncio.CancelledError:
            fetching.cancel()
            raise
        if fetching.done():
            return fetching.result()
        if len(self._late) < MOST_LATE:
            self._late.add(fetching)
            fetching.add_done_callback(partial(self._ended, cause))
        else:
            fetching.cancel()
        raise TokenEndpointTimeout(reason=f"no answer within {within:.1f} s")

    def cancel(self) -> list[asyncio.Task[Fetched]]:
        """Cancel the fetches that go on past their time-out; return them."""
        late, self._late = list(self._late), set()
        for fetching in late:
            fetching.cancel()
        return late

    def _within(self) -> float | None:
        """Return the learned time-out; None if it is that of the source itself."""
        within = self._pace.timeout(seconds_left(self._held(), self._clock.monotonic()))
        return within if within < self._pace.ceiling else None

    async def _wait(self, fetching: asyncio.Task[Fetched], seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, partial(_finish, over))
        try:
            await asyncio.wait((fetching, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    async def _fetch(
        self, progress: _Progress, last: Token | None, *, both_refused: bool, min_interval: float
    ) -> Fetched:
        for pause in REPEAT_PAUSES:
            fetched = await self._secrets.fetch(self._pace.ceiling, both_refused=both_refused)
            now = self._clock.monotonic()
            if not is_expired_repeat(fetched.token, last, now):
                held = self._held()
                if fetched.token.expires_at <= now and (held is None or held.value != fetched.token.value):
                    raise TokenUnavailable(reason="the token expired before it arrived")
                return fetched
            if pause is None or pause < min_interval:
                break
            progress.sent_at = now + pause
            await self._clock.sleep(pause)
        raise TokenUnavailable(reason="the endpoint returns an expired token")

    def _ended(self, cause: Cause, fetching: asyncio.Task[Fetched]) -> None:
        if fetching in self._late and not fetching.cancelled():
            self._late.discard(fetching)
            self._on_late(cause, fetching)


def _finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
