"""Delays and time-outs of token fetches: refresh margin, back-off, time-outs and the budget of forced fetches.

Arithmetic with a short history; instants are arguments, so it needs no clock. Two goals: no app waits for a fetch that
could have run earlier, and no endpoint gets a request that cannot help.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused, TokenMalformed
from gateway.tokens.failures import TokenEndpointRejected, TokenEndpointThrottled, TokenEndpointTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import TokenError
    from gateway.model import Token

MARGIN = 60.0
"""Seconds before a token's expiry at which its successor is fetched, if its lifetime is long enough."""
SHARE = 1 / 2.2
"""Largest margin as a share of the lifetime; with jitter it is half, so at most two fetches per lifetime."""
JITTER = 0.1
"""The margin grows by up to this share, so that many gateways do not fetch at the same instant."""
DELAY_JITTER = 0.5
"""A delay grows by up to this share, below its ceiling."""
LATENCIES = 1.5
"""The margin is never less than this many of the slowest recent fetches."""
LEAST_SPREAD = 1.0
"""Seconds over which the requests after a `Retry-After` are spread at least."""
FIRST_DELAY = 0.5
EAGER_CEILING = 2.4
"""Longest delay in seconds while apps are refused: quick recovery, and ten attempts in the first 20 s."""
CALM_CEILING = 30.0
"""Longest delay in seconds while a token is valid, and after many client errors of the endpoint."""
THROTTLED_DELAY = 2.0
"""First delay in seconds after a 429 without `Retry-After`."""
PROBE_DELAY = 60.0
"""Delay in seconds after a rejected credential: one attempt a minute gets no address blocked."""
LEAST_TIMEOUT = 2.0
TIMEOUT_FACTOR = 3.0
"""A fetch counts as slow after this many times the duration of the last good one."""
PATIENCE = 12
"""Failures in a row (half a minute of quick attempts) after which a client error counts as lasting, and the endpoint is
asked less often."""
_STICKY_SHARE = 0.25
"""After a token came back unchanged, the next attempt comes when this share of its remaining life is left."""


class Pace:
    """The history of one credential's token endpoint, and the delays that follow from it."""

    def __init__(self, ceiling: float, *, single_active: bool, chance: Callable[[], float] = random.random) -> None:
        """Start without a history.

        Args:
            ceiling: upper bound of one fetch in seconds.
            single_active: a new token invalidates the old one, so refresh as late as is safe.
            chance: returns a number from 0 up to 1, for jitter.
        """
        self.tune(ceiling, single_active=single_active)
        self.failures = 0
        """Failed fetches in a row."""
        self._chance = chance
        self._timed_out = False
        self._last_good: float | None = None
        self._durations: deque[float] = deque(maxlen=5)
        self._sticky: float | None = None

    def tune(self, ceiling: float, *, single_active: bool) -> None:
        """Change the settings; keep the history."""
        self.ceiling = ceiling
        self.single_active = single_active

    # ------------------------------------------------------------------------------------------------- what happened

    def succeeded(self, duration: float) -> None:
        """Record a fetch that returned a token after `duration` seconds."""
        self.failures, self._timed_out = 0, False
        self._last_good = duration
        self._durations.append(duration)

    def failed(self, error: TokenError) -> None:
        """Record a fetch that failed."""
        self.failures += 1
        self._timed_out = isinstance(error, TokenEndpointTimeout)

    def unchanged(self, left: float) -> None:
        """Record a token that was returned again with `left` seconds to its expiry: fetch nearer to its expiry."""
        self._sticky = left * _STICKY_SHARE

    def changed(self) -> None:
        """Record a new token: an endpoint that repeated tokens before is asked a little earlier next time."""
        if self._sticky is not None:
            self._sticky = None if self._sticky > MARGIN / 2 else self._sticky * 2

    # ------------------------------------------------------------------------------------------------------ what next

    @property
    def slowest(self) -> float:
        """Duration in seconds of the slowest recent fetch that succeeded."""
        return max(self._durations, default=0.0)

    def margin(self, life: float) -> float:
        """Return how many seconds before a token's expiry its successor is fetched."""
        safe = LATENCIES * self.slowest
        if self.single_active:
            return max(min(2.0, life * SHARE), safe)
        usual = min(MARGIN, life * SHARE) * (1 + JITTER * self._chance())
        if self._sticky is not None:
            usual = min(usual, self._sticky)
        return max(usual, safe)

    def again(self, left: float) -> float:
        """Return how many seconds before its expiry a repeated token, with `left` seconds to it, is fetched again.

        Zero if an attempt before the expiry would return the same token.
        """
        wanted = left * _STICKY_SHARE
        return wanted if wanted > max(LATENCIES * self.slowest, 0.2) else 0.0

    def timeout(self, left: float) -> float:
        """Return the time-out of the next fetch, while the token in use is valid for `left` more seconds (0: no token).

        Three times the last good duration, so that another attempt starts soon when a request hangs. While a token is
        valid nobody waits, so a fetch has until the token expires.
        """
        if self._last_good is None and not self._timed_out:
            return self.ceiling
        return min(self.ceiling, max(LEAST_TIMEOUT, TIMEOUT_FACTOR * (self._last_good or 0.0), left))

    def delay(self, error: TokenError, *, eager: bool) -> float:
        """Return the seconds from the start of a failed attempt to the next; jitter only lengthens them.

        Counted from the start, so that an attempt that timed out does not delay recovery further.
        """
        jitter = self._chance()
        if isinstance(error, CredentialRefused):
            return PROBE_DELAY * (1 + JITTER * jitter)
        first, doublings, ceiling = FIRST_DELAY, self.failures - 1, EAGER_CEILING if eager else CALM_CEILING
        if isinstance(error, TokenEndpointThrottled):
            first, ceiling = THROTTLED_DELAY, CALM_CEILING
        elif eager and isinstance(error, TokenEndpointRejected | TokenMalformed) and self.failures > PATIENCE:
            first, doublings, ceiling = EAGER_CEILING, self.failures - PATIENCE, CALM_CEILING
        return float(min(ceiling, first * 2.0 ** min(max(doublings, 0), 10) * (1 + DELAY_JITTER * jitter)))

    def hold(self, retry_after: float) -> float:
        """Return the seconds for which a `Retry-After` holds back the next fetch; jitter only lengthens them.

        An endpoint that sends it to many credentials must not get all their requests at the same instant.
        """
        return retry_after + self._chance() * max(LEAST_SPREAD, JITTER * retry_after) if retry_after > 0 else 0.0


class ForcedBudget:
    """How often a rejected token may be replaced before its expiry.

    A token that the vendor had accepted before is replaced at once, from a bucket of `SIZE` that refills by one per
    `REFILL` seconds, and more slowly each time that it was empty. A token that was never accepted may be rejected for
    another reason than its age, so the next replacement waits for `HOLD` seconds, doubling up to `MOST_HOLD`.
    """

    SIZE = 4
    REFILL = 5.0
    HOLD = 5.0
    MOST_HOLD = 60.0

    def __init__(self) -> None:
        self._level = float(self.SIZE)
        self._refill = self.REFILL
        self._filled_at = 0.0
        self._hold = self.HOLD
        self._held_until = 0.0

    def relax(self) -> None:
        """Reset the hold: a new token was accepted, so the vendor's rejections were about tokens."""
        self._hold, self._held_until = self.HOLD, 0.0

    def take(self, now: float, *, accepted: bool) -> bool:
        """Return whether a forced fetch is allowed, and count it. `accepted`: the vendor had accepted this token."""
        if not accepted:
            if now < self._held_until:
                return False
            self._held_until = now + self._hold
            self._hold = min(self._hold * 2, self.MOST_HOLD)
            return True
        self._level += (now - self._filled_at) / self._refill
        self._filled_at = now
        if self._level >= self.SIZE:
            self._level, self._refill = float(self.SIZE), self.REFILL
        if self._level < 1:
            return False
        self._level -= 1
        if self._level < 1:
            self._refill = min(self._refill * 2, self.MOST_HOLD)
        return True


def seconds_left(token: Token | None, now: float) -> float:
    """Return the seconds until a token expires; 0 without a token."""
    return max(0.0, token.expires_at - now) if token is not None else 0.0
