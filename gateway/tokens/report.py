"""Logs and counts every change of a token. Nothing here decides anything.

Events show a token only as its fingerprint, and of an endpoint's answer only what `grant.py` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway.errors import CredentialRefused, TokenError, TokenMalformed
from gateway.observe import get_logger

if TYPE_CHECKING:
    from gateway.model import Clock, Token
    from gateway.observe import CredentialMetrics
    from gateway.tokens.outcome import Outcome

Cause = Literal["startup", "refresh_ahead", "demand", "unauthorized", "rotated", "manual"]
Failure = Literal["unavailable", "refused", "malformed"]
SecretName = Literal["current", "next"]

SECRET_NAMES: tuple[SecretName, ...] = ("current", "next")
_LOG = get_logger("gatepass.tokens")


def failure_of(error: TokenError) -> Failure:
    """Return the outcome under which an error is counted."""
    if isinstance(error, CredentialRefused):
        return "refused"
    return "malformed" if isinstance(error, TokenMalformed) else "unavailable"


class Report:
    """Log events and metrics of one credential."""

    def __init__(self, credential: str, metrics: CredentialMetrics, clock: Clock) -> None:
        self._credential = credential
        self._metrics = metrics
        self._clock = clock
        self.last_success: float | None = None
        """Wall-clock instant of the last fetch that succeeded."""
        self.last_failure: float | None = None
        """Wall-clock instant of the last fetch that failed."""

    def in_use(self, token: Token) -> None:
        """A token is in use: it was fetched, or adopted from before a reload."""
        left = token.expires_at - self._clock.monotonic()
        self._metrics.expires(self._clock.wall() + left, token.life)

    def fetched(
        self, token: Token, outcome: Outcome, *, cause: Cause, duration: float, attempt: int, skew: float | None,
        which: int,
    ) -> None:  # fmt: skip
        """A fetch returned a token."""
        self.last_success = self._clock.wall()
        self._metrics.fetched(outcome, cause, duration)
        self._metrics.failures(0)
        self.in_use(token)
        if skew is not None:
            self._metrics.skew(skew)
        if outcome == "unchanged":
            self._metrics.unchanged()
        _LOG.info(
            "token_fetched", credential=self._credential, fingerprint=token.fingerprint, generation=token.generation,
            life=round(token.life, 3), expiry_source=token.expiry_source, cause=cause, duration=round(duration, 4),
            attempt=attempt, outcome=outcome, secret=SECRET_NAMES[which], skew=skew,
        )  # fmt: skip

    def failed(
        self, error: TokenError, *, cause: Cause, duration: float, attempt: int, next_in: float, left: float,
        skew: float | None,
    ) -> None:  # fmt: skip
        """A fetch failed; the token in use is valid for `left` more seconds."""
        outcome = failure_of(error)
        self.last_failure = self._clock.wall()
        self._metrics.fetched(outcome, cause, duration)
        self._metrics.failures(attempt)
        if skew is not None:  # a clock that is wrong may be why a signed assertion is refused
            self._metrics.skew(skew)
        _LOG.warning(
            "token_fetch_failed", credential=self._credential, cause=cause, duration=round(duration, 4),
            attempt=attempt, outcome=outcome, reason=error.reason or error.detail, next_attempt_in=round(next_in, 3),
            valid_for=round(left, 3), skew=skew,
        )  # fmt: skip

    def forgotten(self) -> None:
        """Reset the count of failures, because no request asks for this credential any more."""
        self._metrics.failures(0)

    def crashed(self, cause: Cause) -> None:
        """A fetch raised an unexpected exception; call this while the exception is being handled."""
        _LOG.exception("token_fetch_crashed", credential=self._credential, cause=cause)

    def switched(self, which: int, *, changed: bool) -> None:
        """Record which of two secrets works; `changed`: another one worked before."""
        self._metrics.secret_used(SECRET_NAMES[which])
        if changed:
            _LOG.warning("credential_secret_switched", credential=self._credential, secret=SECRET_NAMES[which])

    def adopted(self, token: Token, *, rotated: bool) -> None:
        """A token from before a reload stays in use; `rotated`: it was fetched with an older secret."""
        self.in_use(token)
        _LOG.info(
            "token_adopted", credential=self._credential, fingerprint=token.fingerprint, generation=token.generation,
            rotated=rotated,
        )  # fmt: skip

    def invalidated(self, token: Token, *, accepted: bool) -> None:
        """The vendor rejected a valid token, and it was dropped."""
        self._metrics.ended()
        _LOG.warning(
            "token_invalidated", credential=self._credential, fingerprint=token.fingerprint,
            generation=token.generation, cause="unauthorized", accepted=accepted,
            age=round(self._clock.monotonic() - token.fetched_at, 3),
        )  # fmt: skip

    def expired(self, token: Token) -> None:
        """A token expired before its successor was fetched."""
        _LOG.warning(
            "token_expired", credential=self._credential, fingerprint=token.fingerprint, generation=token.generation
        )

    def revoked(self, token: Token, outcome: str) -> None:
        """A token was revoked; `outcome` is the endpoint's status, or the reason of the failure."""
        _LOG.info("token_revoked", credential=self._credential, fingerprint=token.fingerprint, outcome=outcome)
