"""Logs and counts every change of a token, and tells a listener of it. Nothing here decides anything.

Events show a token only as its fingerprint, and of an endpoint's answer only what `grant.py` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway.errors import CredentialRefused, TokenError, TokenMalformed
from gateway.model import CredentialStatus
from gateway.observe import get_logger
from gateway.tokens.failures import NoDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Token
    from gateway.observe import CredentialMetrics
    from gateway.tokens.outcome import Outcome

Cause = Literal["startup", "refresh_ahead", "demand", "unauthorized", "rotated", "manual"]
Failure = Literal["unavailable", "refused", "malformed"]
State = Literal["valid", "idle", "pending", "unavailable", "refused", "malformed"]
SecretName = Literal["current", "next"]

SECRET_NAMES: tuple[SecretName, ...] = ("current", "next")
_LOG = get_logger("gatepass.tokens")


def failure_of(error: TokenError) -> Failure:
    """Return the outcome under which an error is counted."""
    if isinstance(error, CredentialRefused):
        return "refused"
    return "malformed" if isinstance(error, TokenMalformed) else "unavailable"


def _state(token: Token | None, failure: TokenError | None, *, idle: bool) -> State:
    if token is not None:
        return "valid"
    if failure is not None:
        return failure_of(failure)
    return "idle" if idle else "pending"


class Report:
    """Log events and metrics of one credential."""

    def __init__(
        self, credential: str, metrics: CredentialMetrics, clock: Clock, changed: Callable[[], object] = bool
    ) -> None:
        """`changed` is called after another token is in use, or none; it must return at once and never raise."""
        self._credential = credential
        self._metrics = metrics
        self._clock = clock
        self._changed = changed
        self.last_success: float | None = None
        """Wall-clock instant of the last fetch that succeeded."""
        self.last_failure: float | None = None
        """Wall-clock instant of the last fetch that failed."""

    def status(
        self, name: str, *, token: Token | None, tried: bool, generation: int, failure: TokenError | None,
        failures: int, next_in: float | None, fetching: bool, skew: float | None, which: int,
    ) -> CredentialStatus:  # fmt: skip
        """Return the state of the credential under one of its names.

        Args:
            name: the credential's name.
            token: the valid token in use.
            tried: whether a fetch has ended.
            generation: of the newest token so far.
            failure: why the last fetch failed.
            failures: fetches that failed in a row.
            next_in: seconds until the planned fetch.
            fetching: whether a fetch is running.
            skew: vendor's clock minus ours, in seconds.
            which: index of the secret that works.
        """
        return CredentialStatus(
            name=name,
            state=_state(token, failure, idle=next_in is None and not fetching),
            tried=tried,
            fingerprint=token.fingerprint if token else None,
            generation=generation,
            life=token.life if token else None,
            expires_in=token.expires_at - self._clock.monotonic() if token else None,
            expiry_source=token.expiry_source if token else None,
            last_success=self.last_success,
            last_failure=self.last_failure,
            reason=(failure.reason or failure.detail) if failure else None,
            consecutive_failures=failures if failure else 0,
            next_attempt_in=next_in,
            skew=skew,
            secret=SECRET_NAMES[which],
        )

    def in_use(self, token: Token) -> None:
        """A token is in use: it was fetched, or adopted from before a reload."""
        left = token.expires_at - self._clock.monotonic()
        self._metrics.expires(self._clock.wall() + left, token.life)
        self._changed()

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
        if isinstance(error, NoDescriptor):
            self._metrics.no_descriptor()
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

    def crashed(self, cause: Cause, error: BaseException) -> None:
        """A fetch raised an unexpected exception."""
        _LOG.error("token_fetch_crashed", credential=self._credential, cause=cause, exc_info=error)

    def switched(self, which: int, *, changed: bool) -> None:
        """Record which of two secrets works; `changed`: another one worked before."""
        self._metrics.secret_used(SECRET_NAMES[which])
        if changed:
            _LOG.warning("credential_secret_switched", credential=self._credential, secret=SECRET_NAMES[which])

    def adopted(self, token: Token, *, rotated: bool = False, by: str | None = None, is_own: bool = False) -> None:
        """A token is in use that was not fetched now.

        `rotated`: it is from before a reload, and was fetched with an older secret. `by`: it is from the shared store,
        and this instance fetched it (`is_own`: this very one).
        """
        self.in_use(token)
        if by is not None:
            self.last_success = self._clock.wall()
            self._metrics.failures(0)
            self._metrics.adopted(is_own=is_own)
        _LOG.info(
            "token_adopted", credential=self._credential, fingerprint=token.fingerprint, generation=token.generation,
            rotated=rotated, by=by,
        )  # fmt: skip

    def superseded(self, token: Token, *, cause: Cause, duration: float) -> None:
        """A fetched token is not used, because another instance fetched a newer one meanwhile."""
        self._metrics.fetched("ok", cause, duration)
        _LOG.warning(
            "token_superseded", credential=self._credential, fingerprint=token.fingerprint,
            generation=token.generation, cause=cause, duration=round(duration, 4),
        )  # fmt: skip

    def invalidated(self, token: Token, *, accepted: bool, elsewhere: bool = False) -> None:
        """The vendor rejected a valid token, and it was dropped; `elsewhere`: another instance learnt that."""
        self._metrics.ended()
        _LOG.warning(
            "token_invalidated", credential=self._credential, fingerprint=token.fingerprint,
            generation=token.generation, cause="elsewhere" if elsewhere else "unauthorized", accepted=accepted,
            age=round(self._clock.monotonic() - token.fetched_at, 3),
        )  # fmt: skip
        self._changed()

    def expired(self, token: Token) -> None:
        """A token expired before its successor was fetched."""
        _LOG.warning(
            "token_expired", credential=self._credential, fingerprint=token.fingerprint, generation=token.generation
        )

    def sharing_crashed(self, error: BaseException) -> None:
        """What belongs to sharing tokens raised an unexpected exception."""
        _LOG.error("token_sharing_crashed", credential=self._credential, exc_info=error)

    def revoked(self, token: Token, outcome: str) -> None:
        """A token was revoked; `outcome` is the endpoint's status, or the reason of the failure."""
        _LOG.info("token_revoked", credential=self._credential, fingerprint=token.fingerprint, outcome=outcome)
