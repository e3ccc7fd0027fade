"""When the next fetch of one credential starts: one timer, and the earliest instants that the endpoint allows.

Knows nothing of tasks or sources. `pace.py` computes the delays; this module keeps the instants that follow from them.
All instants are seconds of the injected monotonic clock.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import TokenError
    from gateway.model import Clock, Credential, Timer, Token
    from gateway.tokens.pace import Pace
    from gateway.tokens.report import Cause


class Schedule:
    """The planned fetch of one credential, and the earliest instant at which any fetch may start."""

    def __init__(self, clock: Clock, pace: Pace, due: Callable[[Cause], None]) -> None:
        """Plan nothing yet. `due` is called with the cause when a planned fetch is due."""
        self.planned = math.inf
        """When the next fetch starts; infinity if none is planned."""
        self.not_before = -math.inf
        """No fetch may start earlier: `min_interval`, or the endpoint's `Retry-After`."""
        self._clock = clock
        self._pace = pace
        self._due = due
        self.retry_at = -math.inf
        """No fetch for a waiting app may start earlier after a failed one."""
        self._postponed = -math.inf
        self._timer: Timer | None = None

    @property
    def wait(self) -> float | None:
        """Seconds until the planned fetch; None if none is planned."""
        return None if self.planned == math.inf else max(0.0, self.planned - self._clock.monotonic())

    def earliest(self, *, failing: bool) -> float:
        """Return when a fetch for a waiting app may start; `failing`: the last fetch failed."""
        earliest = max(self.not_before, self._postponed)
        return max(earliest, self.retry_at) if failing else earliest

    def plan(self, at: float, cause: Cause) -> None:
        """Plan the next fetch at `at`, instead of the one that was planned before."""
        self.cancel()
        self.planned = at
        delay = max(0.0, at - self._clock.monotonic())
        self._timer = self._clock.call_later(delay, partial(self._fire, cause))

    def cancel(self) -> None:
        """Plan no fetch."""
        self.planned = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, cause: Cause) -> None:
        self.cancel()
        self._due(cause)

    def refresh(self, token: Token, credential: Credential) -> None:
        """Plan the fetch of the token's successor before the token expires, unless `keep_warm` is `never`."""
        if credential.keep_warm != "never":
            self.plan(max(token.expires_at - self._pace.margin(token.life), self.not_before), "refresh_ahead")

    def postpone(self, at: float, cause: Cause) -> None:
        """Plan the next fetch at `at`, and allow none before it, because another instance decides (`shared.py`)."""
        self._postponed = at
        self.plan(at, cause)

    def adopted(self, token: Token, credential: Credential) -> None:
        """Another instance fetched `token`; plan its refresh."""
        self._postponed = -math.inf
        self.cancel()
        self.refresh(token, credential)

    def succeeded(self, token: Token, credential: Credential, *, started: float, unchanged: bool) -> None:
        """A fetch that began at `started` returned `token`; plan its refresh.

        `unchanged`: the endpoint returned the token in use again, so the next attempt waits until nearer to its expiry.
        """
        self.not_before = started + credential.min_interval
        if not unchanged:
            self._pace.changed()
            self.refresh(token, credential)
            return
        left = token.expires_at - self._clock.monotonic()
        self._pace.unchanged(left)
        if credential.keep_warm != "never":
            self.plan(max(token.expires_at - self._pace.again(left), self.not_before), "refresh_ahead")

    def failed(
        self, error: TokenError, credential: Credential, *, cause: Cause, started: float, token: Token | None,
        wanted: bool,
    ) -> None:  # fmt: skip
        """A fetch that began at `started` failed while `token` was valid; plan the next attempt.

        `wanted`: apps are waiting for a token, or are rejected for want of one.
        """
        now = self._clock.monotonic()
        self._pace.failed(error)
        self.not_before = max(started + credential.min_interval, now + self._pace.hold(error.retry_after or 0.0))
        self.retry_at = started + self._pace.delay(error, eager=True)
        at = self.retry_at if wanted else started + self._pace.delay(error, eager=False)
        if token is not None and not isinstance(error, CredentialRefused):
            at = min(at, token.expires_at)
        self.plan(max(at, self.not_before, now), cause)
