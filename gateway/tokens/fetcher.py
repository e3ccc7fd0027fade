"""One fetch of a token: with the secret that works, within the learned time-out, past repeats of an expired token.

Decides nothing about when a fetch starts (`schedule.py`) or which token is used afterwards (`outcome.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import TokenUnavailable
from gateway.tokens.outcome import is_expired_repeat
from gateway.tokens.pace import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Token
    from gateway.tokens.pace import Pace
    from gateway.tokens.rotation import Rotation

REPEAT_PAUSES: Final[tuple[float | None, ...]] = (0.25, 0.5, 1.0, None)
"""Seconds before each further attempt while an endpoint returns a token that has expired; None ends the attempts.
Callers wait on meanwhile. A pause shorter than `min_interval` ends the attempts, too."""


class Fetcher:
    """Fetches tokens of one credential."""

    def __init__(self, secrets: Rotation, pace: Pace, clock: Clock, held: Callable[[], Token | None]) -> None:
        """`held` returns the valid token in use, if there is one."""
        self._secrets = secrets
        self._pace = pace
        self._clock = clock
        self._held = held

    async def fetch(self, last: Token | None, *, both_refused: bool, min_interval: float) -> Token:
        """Return a valid token; ask again shortly while the endpoint returns `last` although it has expired.

        Raises:
            TokenError: as the source, or TokenUnavailable for a token that has expired.
        """
        for pause in REPEAT_PAUSES:
            within = self._pace.timeout(seconds_left(self._held(), self._clock.monotonic()))
            token = await self._secrets.fetch(within, both_refused=both_refused)
            now = self._clock.monotonic()
            if not is_expired_repeat(token, last, now):
                held = self._held()
                if token.expires_at <= now and (held is None or held.value != token.value):
                    raise TokenUnavailable(reason="the token expired before it arrived")
                return token
            if pause is None or pause < min_interval:
                break
            await self._clock.sleep(pause)
        raise TokenUnavailable(reason="the endpoint returns an expired token")
