"""Why the last fetch of a credential failed, and whether callers are refused for it or still wait.

After a failed fetch, callers are refused at once until a fetch succeeds. A fetch that only outlasted its time-out goes
on, so callers wait for it, but not longer than `token_timeout` from when it began.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.errors import TokenUnavailable

if TYPE_CHECKING:
    from gateway.errors import TokenError


class Outage:
    """The failure of one credential's fetches."""

    def __init__(self) -> None:
        self.failure: TokenError | None = None
        """Why the last fetch failed; None if it succeeded, or if there was none yet."""
        self._patient_until = -math.inf

    def fetch_began(self, now: float, token_timeout: float) -> None:
        """A fetch began at `now`; the first one after a success decides how long callers wait."""
        if self.failure is None:
            self._patient_until = now + token_timeout

    def fetch_failed(self, error: TokenError, *, goes_on: bool) -> None:
        """A fetch failed; `goes_on`: it only outlasted its time-out."""
        self.failure = error
        if not goes_on:
            self._patient_until = -math.inf

    def end(self) -> None:
        """A fetch succeeded, or no request asks any more."""
        self.failure = None

    def is_refusing(self, now: float) -> bool:
        """Whether a caller is refused at once."""
        return self.failure is not None and now >= self._patient_until

    def caller_gave_up(self, token_timeout: float, *, fetching: bool) -> None:
        """A caller's wait timed out: no caller waits any more for a fetch that is running; it continues."""
        self._patient_until = -math.inf
        if self.failure is None and fetching:
            self.failure = TokenUnavailable(reason=f"no token within {token_timeout:g} s, still being fetched")

    def error(self, wait: float | None) -> TokenError:
        """Return a new error with the failure and the time to the next attempt (1 s if `wait` is None)."""
        failure = self.failure or TokenUnavailable(reason="the next token request is not due yet")
        return type(failure)(reason=failure.reason, retry_after=1.0 if wait is None else wait)
