"""One credential's token in memory: hand it out, refresh it ahead of its expiry, invalidate it, retry failed fetches.

At most one fetch runs at a time. It is a task of its own, so a caller that is cancelled does not cancel the fetch, and
every waiting caller gets its result. A token is handed out only until its expiry on the monotonic clock. `fetcher.py`
fetches, `schedule.py` keeps the time of the next fetch, and `pace.py` computes the delays.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused, TokenError, TokenUnavailable
from gateway.tokens.failures import TokenEndpointTimeout, is_definite
from gateway.tokens.fetcher import Fetcher
from gateway.tokens.outage import Outage
from gateway.tokens.outcome import classify, is_same
from gateway.tokens.pace import ForcedBudget, Pace, seconds_left
from gateway.tokens.report import Report
from gateway.tokens.rotation import Rotation
from gateway.tokens.schedule import Schedule
from gateway.tokens.source import Recipe
from gateway.tokens.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Credential, CredentialStatus, Token
    from gateway.observe import CredentialMetrics
    from gateway.tokens.report import Cause
    from gateway.tokens.rotation import Fetched
    from gateway.tokens.store import Store


class TokenCache:
    """`model.Tokens` for one recipe; credentials with equal recipes share one cache."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        clock: Clock,
        metrics: CredentialMetrics,
        store: Store,
        token_timeout: float,
        tried: Callable[[], object] = lambda: None,
        changed: Callable[[], object] = bool,
    ) -> None:
        """Start without a token.

        Args:
            recipe: what to fetch and how.
            clock: for all instants and timers.
            metrics: the credential's metrics.
            store: keeps tokens for a later cache of the same recipe.
            token_timeout: longest wait of one request, seconds.
            tried: called after the first fetch has succeeded or failed.
            changed: called after another token is in use, or none.
        """
        self.recipe = recipe
        self.token_timeout = token_timeout
        self.tried = False
        self._clock = clock
        self._now = clock.monotonic
        self._store = store
        self._on_tried = tried
        self._report = Report(recipe.credential.name, metrics, clock, changed)
        self._secrets = Rotation(recipe.sources, recipe.keys)
        self._waiters = Waiters(clock, metrics)
        self._pace = Pace(recipe.credential.timeout, single_active=recipe.credential.single_active_token)
        self._budget = ForcedBudget()
        self._outage = Outage()
        self._fetcher = Fetcher(self._secrets, self._pace, clock, held=self.peek, late=self._ended_late)
        self._schedule = Schedule(clock, self._pace, self._run_planned)
        # The token in use, its key in the store, and the last token, which an endpoint may return again.
        self._token: Token | None = None
        self._key = self._secrets.key
        self._last: Token | None = None
        self._generation = self._accepted = 0
        # The fetch that is running, and when it started.
        self._fetch: asyncio.Task[None] | None = None
        self._started = -math.inf
        self._used = self._demand = self._closed = False
        self._successor: TokenCache | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "fetching" if self._fetch else "at rest"
        return f"<TokenCache {self.recipe.credential.name}#{self._generation} left={self._left():.3f} {state}>"

    def current(self) -> Token | None:
        """Return the token in memory if it is valid now. The hot path: one attribute and one reading of the clock."""
        token = self._token
        if token is not None and self._now() < token.expires_at:
            self._used = True
            return token
        return None

    async def get(self) -> Token:
        """Return a valid token; wait for the shared fetch if there is none.

        After a failed fetch, the failure is raised at once until a fetch succeeds.

        Raises:
            TokenUnavailable: the fetch failed, or did not end within `token_timeout`.
            CredentialRefused: the vendor refuses the credential.
            TokenMalformed: the token endpoint's answer was unusable.
        """
        return await self._get(self._now() + self.token_timeout)

    async def _get(self, deadline: float) -> Token:
        while not self._closed:
            token = self.current()
            if token is not None:
                return token
            self._drop_expired()
            self._request_fetch("demand")
            if self._outage.is_refusing(self._now()) or (self._fetch is None and self._schedule.planned > deadline):
                raise self._error_now()
            if not await self._waiters.wait(deadline) and self.current() is None:
                self._outage.caller_gave_up(self.token_timeout, fetching=self._is_fetching())
                raise self._error_now()
        if self._successor is None:
            raise TokenUnavailable(reason="the credential is no longer in use", retry_after=1.0)
        return await self._successor._get(deadline)  # noqa: SLF001 - another TokenCache; the caller's deadline stays

    async def fetch_now(self) -> None:
        """Fetch now, on an operator's request, whatever the back-off. The token in use stays until the fetch succeeds.

        Raises:
            TokenUnavailable: it did not end within `token_timeout`, or the vendor allows no request yet.
            CredentialRefused: the vendor refuses the credential.
            TokenMalformed: the token endpoint's answer was unusable.
        """
        if self._closed:
            raise TokenUnavailable(reason="the credential is no longer in use")
        wait = self._schedule.not_before - self._now()
        if self._fetch is None and wait > 0:
            raise TokenUnavailable(reason=f"the vendor allows the next token request in {wait:.0f} s", retry_after=wait)
        if self._fetch is None:
            self._start("manual")
        if not await self._waiters.wait(self._now() + self.token_timeout) and self._is_fetching():
            raise TokenUnavailable(reason=f"no token within {self.token_timeout:g} s, still being fetched")
        if self._closed:
            raise TokenUnavailable(reason="the credential was changed meanwhile")
        if self._outage.failure is not None:
            raise self._error_now()

    def accepted(self, token: Token) -> None:
        """Note that the vendor accepted `token`: if the vendor rejects it later, a new token will help."""
        if token.generation > self._accepted:
            self._accepted = token.generation
            self._budget.relax()

    async def refused(self, token: Token) -> Token | None:
        """Invalidate `token`, which the vendor rejected; return the token to send again with, or None if there is none.

        The token is invalidated before the first wait. If no forced fetch is allowed yet, it stays in use instead, and
        the apps get the vendor's answers.
        """
        if self._closed:
            return await self._successor.refused(token) if self._successor else None
        if not self._invalidate(token):
            return None
        try:
            other = await self.get()
        except TokenError:
            return None
        return None if other.value == token.value else other

    def discard(self, token: Token) -> None:
        """As `refused`, for an exchange that cannot be sent again: the fetch runs in the background."""
        if not self._closed:
            self._invalidate(token)
        elif self._successor is not None:
            self._successor.discard(token)

    def adopt(self, token: Token, *, which: int = 0, rotated: bool = False, key: str | None = None) -> None:
        """Use a token from before a reload; call it before `begin`.

        Args:
            token: the token.
            which: the grant that fetched it.
            rotated: that grant had an older secret, so the token is used only until the first fetch succeeds.
            key: the token's key in the store; None for the key of the grant.
        """
        self._token = self._last = token
        self._generation = max(self._generation, token.generation)
        self._secrets.begin_with(which)
        self._key = key or self._secrets.key
        self._report.adopted(token, rotated=rotated)
        self.tried = True

    def continue_from(self, other: TokenCache) -> None:
        """Continue the generation numbers of the cache that this one replaces."""
        self._generation = max(self._generation, other._generation)
        self._accepted = other._accepted

    def begin(self, cause: Cause) -> None:
        """Plan the refresh of the token in use, or fetch one if the credential is to be kept warm."""
        if self._token is not None and cause != "rotated":
            self._schedule.refresh(self._token, self.recipe.credential)
        elif self._token is not None or self.recipe.credential.keep_warm == "always":
            self._request_fetch(cause)

    def update_settings(self, credential: Credential, token_timeout: float) -> None:
        """Use settings that changed while the recipe did not; the token, a running fetch and the back-off continue."""
        self.token_timeout = token_timeout
        if credential == self.recipe.credential:
            return
        self.recipe = Recipe(credential, self.recipe.sources, self.recipe.keys)
        self._pace.tune(credential.timeout, single_active=credential.single_active_token)
        if self._outage.failure is None and self._fetch is None:
            self._schedule.cancel()
            self.begin("startup")

    @property
    def key(self) -> str:
        """The key of the token in use in the store."""
        return self._key

    def peek(self) -> Token | None:
        """Return the valid token, if any, without counting this as use."""
        return self._token if self._left() > 0 else None

    def close(self, successor: TokenCache | None = None) -> list[asyncio.Task[None] | asyncio.Task[Fetched]]:
        """Stop at once. Waiting callers continue with `successor`; without one they get TokenUnavailable.

        Cancels all fetches and returns their tasks: a fetch with an old secret must not overwrite a newer token.
        """
        self._closed, self._successor = True, successor
        self._schedule.cancel()
        fetch, self._fetch, self._token = self._fetch, None, None
        cancelled: list[asyncio.Task[None] | asyncio.Task[Fetched]] = [*self._fetcher.cancel()]
        if fetch is not None:
            fetch.cancel()
            cancelled.append(fetch)
        self._waiters.wake()
        return cancelled

    def status(self, name: str) -> CredentialStatus:
        """Return the state of the credential `name`."""
        return self._report.status(
            name, token=self.peek(), tried=self.tried, generation=self._generation, failure=self._outage.failure,
            failures=self._pace.failures, next_in=self._schedule.wait, fetching=self._fetch is not None,
            skew=self._secrets.skew, which=self._secrets.working,
        )  # fmt: skip

    def _request_fetch(self, cause: Cause) -> None:
        """Start a fetch now, or bring the planned one forward as far as is allowed."""
        self._demand = self._demand or cause in {"demand", "unauthorized"}
        if self._fetch is not None:
            return
        now, at = self._now(), self._earliest()
        if at <= now and self._outage.failure is None:
            self._start(cause)
        elif at < self._schedule.planned:
            self._schedule.plan(max(at, now), cause)

    def _is_fetching(self) -> bool:
        return self._fetch is not None or self._fetcher.is_late

    def _earliest(self) -> float:
        return self._schedule.earliest(failing=self._outage.failure is not None)

    def _run_planned(self, cause: Cause) -> None:
        if self._is_needed():
            self._start(cause)
        else:
            self._outage.end()  # no request has asked since: the next one may wait for a fetch of its own
            self._report.forgotten()

    def _is_needed(self) -> bool:
        """Whether the planned fetch is still needed; without `keep_warm: always`, only if a request asked."""
        keep_warm = self.recipe.credential.keep_warm
        return keep_warm == "always" or self._demand or (keep_warm == "used" and self._used)

    def _invalidate(self, token: Token) -> bool:
        """Drop exactly `token`. Return False if it stays in use because no forced fetch is allowed yet."""
        held = self._token
        if held is None or not is_same(held, token):
            return True  # already replaced or dropped: callers get the newer one, and nothing is fetched
        now = self._now()
        accepted = held.generation <= self._accepted
        if self._earliest() - now > self.token_timeout or not self._budget.take(now, accepted=accepted):
            return False
        self._token = None
        self._store.remove(self.key, held)
        self._report.invalidated(held, accepted=accepted)
        self._schedule.cancel()
        self._request_fetch("unauthorized")
        return True

    def _drop_expired(self) -> None:
        if self._token is not None and self._left() <= 0:
            self._report.expired(self._token)
            self._token = None

    def _left(self) -> float:
        return seconds_left(self._token, self._now())

    def _error_now(self) -> TokenError:
        return self._outage.error(self._schedule.wait)

    def _start(self, cause: Cause) -> None:
        self._schedule.cancel()
        self._started, self._demand = self._now(), False
        self._outage.fetch_began(self._started, self.token_timeout)
        name = f"token {self.recipe.credential.name}"
        self._fetch = asyncio.get_running_loop().create_task(self._run(cause), name=name)

    async def _run(self, cause: Cause) -> None:
        """Run one fetch to its end, and record its outcome for all callers."""
        try:
            fetched = await self._fetcher.fetch(
                self._last,
                cause,
                both_refused=isinstance(self._outage.failure, CredentialRefused),
                min_interval=self.recipe.credential.min_interval,
            )
        except TokenError as error:
            self._failed(error, cause)
        except Exception as error:  # noqa: BLE001 - the outermost frame of the task: logged with its traceback, reported to waiting callers
            self._report.crashed(cause, error)
            self._failed(TokenUnavailable(reason=f"a defect of the gateway ({type(error).__name__})"), cause)
        else:
            self._succeeded(fetched, cause)
        self._ended()

    def _ended(self) -> None:
        if not self.tried:
            self.tried = True
            self._on_tried()
        if self._outage.failure is None or self._outage.is_refusing(self._now()):
            self._waiters.wake()

    def _ended_late(self, cause: Cause, fetching: asyncio.Task[Fetched]) -> None:
        """Use the outcome of a fetch that outlasted its time-out: no fetch has succeeded since it began."""
        error = fetching.exception()
        if error is not None and not isinstance(error, TokenError):
            self._report.crashed(cause, error)
        if error is not None and not is_definite(error):
            return  # the fetch has been reported as failed already
        if self._fetch is not None:
            self._fetch.cancel()
        if isinstance(error, TokenError):
            self._failed(error, cause)
        else:
            self._succeeded(fetching.result(), cause)
        self._waiters.wake()

    def _succeeded(self, result: Fetched, cause: Cause) -> None:
        fetched = result.token
        now, last, attempt = self._now(), self._last, self._pace.failures + 1
        known_end = last.expires_at if last is not None else -math.inf
        held = self._token is not None
        token, outcome = classify(fetched, last, held=held, generation=self._generation, now=now)
        self._fetch = None
        self._outage.end()
        self._generation = max(self._generation, token.generation)
        self._pace.succeeded(now - fetched.fetched_at)
        self._fetcher.cancel()
        self._keep(token, result.which)
        self._report.fetched(
            token, outcome, cause=cause, duration=now - fetched.fetched_at, attempt=attempt,
            skew=self._secrets.skew, which=self._secrets.working,
        )  # fmt: skip
        unchanged = outcome == "unchanged" and known_end > now
        self._schedule.succeeded(token, self.recipe.credential, started=self._started, unchanged=unchanged)

    def _keep(self, token: Token, which: int) -> None:
        self._token = self._last = token
        self._used = False
        changed = self._secrets.confirm(which)
        self._key = self._secrets.key
        self._store.put(self.key, token)
        if self._secrets.has_choice:
            self._report.switched(self._secrets.working, changed=changed)

    def _failed(self, error: TokenError, cause: Cause) -> None:
        now, token, started = self._now(), self.peek(), self._started
        wanted = token is None and (self._demand or len(self._waiters) > 0)
        self._fetch = None
        self._outage.fetch_failed(error, goes_on=isinstance(error, TokenEndpointTimeout) and self._fetcher.is_late)
        self._schedule.failed(error, self.recipe.credential, cause=cause, started=started, token=token, wanted=wanted)
        next_in = self._schedule.planned - now
        self._report.failed(
            error, cause=cause, duration=now - started, attempt=self._pace.failures, next_in=next_in,
            left=seconds_left(token, now), skew=self._secrets.skew,
        )  # fmt: skip
        self._drop_expired()
