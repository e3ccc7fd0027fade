"""When to ask a token endpoint again: refresh ahead, back-off, time-outs and the budget of forced fetches.

Arithmetic with a little memory of what happened before; instants are handed in, so it needs no clock. Knows nothing
of sockets, tasks or tokens' contents. Two promises meet here: an app waits for no fetch that could have been made
ahead, and an endpoint sees no request that could not have helped.
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
"""Seconds before a token's end at which its successor is fetched, for lives that are long enough."""
SHARE = 1 / 2.2
"""Most of a life that the margin takes: with the jitter on top it is half of it, so two fetches a life at most."""
JITTER = 0.1
"""The margin grows by up to this share, so that many gateways do not ask at one instant."""
DELAY_JITTER = 0.5
"""A delay grows by up to this share, below its ceiling."""
LATENCIES = 1.5
"""The margin is never less than this many of the slowest recent fetches."""
FIRST_DELAY = 0.5
EAGER_CEILING = 2.4
"""Longest delay in seconds while apps are refused: quick recovery, and ten attempts in the first 20 s."""
CALM_CEILING = 30.0
"""Longest delay in seconds while nobody suffers, and towards an endpoint that keeps answering with a client error."""
THROTTLED_DELAY = 2.0
"""First delay after a 429 that names none."""
PROBE_DELAY = 60.0
"""Delay after a refused credential: a probe a minute gets no address banned."""
LEAST_TIMEOUT = 2.0
TIMEOUT_FACTOR = 3.0
"""A fetch may take this many times the last good one."""
PATIENCE = 12
"""Failures in a row (half a minute of eager attempts) after which the endpoint's own kind of trouble is believed: an
endpoint that only became slow gets its full time-out again, a client error that stays is asked about less often."""
LONG_EVERY = 8
"""From then on one attempt in this many gets the full time-out while there is no token."""
_STICKY_SHARE = 0.25
"""After a token came back unchanged, the next attempt comes when this share of its remaining life is left."""


class Pace:
    """What one credential has learnt about its token endpoint."""

    def __init__(self, ceiling: float, *, single_active: bool, chance: Callable[[], float] = random.random) -> None:
        """Begin knowing nothing.

        Args:
            ceiling: upper bound of one fetch in seconds.
            single_active: a new token kills the old one, so refresh as late as is safe.
            chance: a number from 0 up to 1 for jitter; no secret depends on it.
        """
        self.tune(ceiling, single_active=single_active)
        self.failures = 0
        """Failed fetches in a row."""
        self._chance = chance
        self._timeouts = self._bare_timeouts = 0
        self._last_good: float | None = None
        self._durations: deque[float] = deque(maxlen=5)
        self._sticky: float | None = None

    def tune(self, ceiling: float, *, single_active: bool) -> None:
        """Change the settings, keep what was learnt."""
        self.ceiling = ceiling
        self.single_active = single_active

    # ------------------------------------------------------------------------------------------------- what happened

    def succeeded(self, duration: float) -> None:
        """A fetch took `duration` seconds and brought a token."""
        self.failures = self._timeouts = self._bare_timeouts = 0
        self._last_good = duration
        self._durations.append(duration)

    def failed(self, error: TokenError, left: float = 0.0) -> None:
        """A fetch failed while the token in hand lived `left` more seconds."""
        self.failures += 1
        late = isinstance(error, TokenEndpointTimeout)
        self._timeouts = self._timeouts + 1 if late else 0
        self._bare_timeouts = self._bare_timeouts + 1 if late and left <= 0 else 0

    def unchanged(self, left: float) -> None:
        """A token with `left` seconds to live was handed back as it was: come back nearer to its end."""
        self._sticky = left * _STICKY_SHARE

    def changed(self) -> None:
        """A new token came: an endpoint that was sticky once may be asked a little earlier next time."""
        if self._sticky is not None:
            self._sticky = None if self._sticky > MARGIN / 2 else self._sticky * 2

    # ------------------------------------------------------------------------------------------------------ what next

    @property
    def slowest(self) -> float:
        """Seconds of the slowest recent good fetch."""
        return max(self._durations, default=0.0)

    def margin(self, life: float) -> float:
        """Return how many seconds before the end of a token its successor is fetched."""
        safe = LATENCIES * self.slowest
        if self.single_active:
            return max(min(2.0, life * SHARE), safe)
        usual = min(MARGIN, life * SHARE) * (1 + JITTER * self._chance())
        if self._sticky is not None:
            usual = min(usual, self._sticky)
        return max(usual, safe)

    def again(self, left: float) -> float:
        """Return how many seconds before its end an unchanged token, with `left` to live, is asked for again.

        Zero when another attempt before the end would bring the same: then the end itself is the moment.
        """
        wanted = left * _STICKY_SHARE
        return wanted if wanted > max(LATENCIES * self.slowest, 0.2) else 0.0

    def timeout(self, left: float) -> float:
        """Return the time-out of the next fetch, while the token in hand lives `left` more seconds (0: there is none).

        Three times the last good duration. An endpoint that became slow for good must not be cut off for ever, so the
        bound grows again: at once while a token lives and nobody waits, else now and then after `PATIENCE` attempts,
        since recovery from a mere hang is as quick as these attempts are short.
        """
        if self._last_good is None and not self._timeouts:
            return self.ceiling
        base = max(LEAST_TIMEOUT, TIMEOUT_FACTOR * (self._last_good or 0.0))
        if left > 0:
            return min(self.ceiling, max(base, min(base * 2.0 ** min(self._timeouts, 8), left)))
        if self._bare_timeouts >= PATIENCE and (self._bare_timeouts - PATIENCE) % LONG_EVERY == 0:
            return self.ceiling
        return min(self.ceiling, base)

    def delay(self, error: TokenError, *, eager: bool) -> float:
        """Return the seconds from the start of a failed attempt to the next; jitter only makes it longer.

        Counted from the start, so that an attempt which hung until its time-out does not delay recovery further.
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


class ForcedBudget:
    """How often a refused token may be replaced ahead of its time.

    A token that the vendor had accepted is replaced at once, out of a bucket of `SIZE` that is refilled by one per
    `REFILL` seconds, slower each time that it is found empty. A token that was never accepted may be refused because
    of anything but its age, so it is replaced once and then held for `HOLD` seconds, doubling up to `MOST_HOLD`.
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
        """A new token was accepted: the vendor's refusals are about tokens after all."""
        self._hold, self._held_until = self.HOLD, 0.0

    def take(self, now: float, *, accepted: bool) -> bool:
        """Whether a forced fetch is allowed at `now`; counts it if so. `accepted`: the vendor had taken this token."""
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
    """Return the seconds that a token still lives; 0 for none."""
    return max(0.0, token.expires_at - now) if token is not None else 0.0
