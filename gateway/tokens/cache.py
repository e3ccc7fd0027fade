"""One credential's token in memory: get, refresh ahead, invalidate, retry.

The only place that decides when a token is fetched. There is never more than one fetch, it belongs to nobody who asked
for it, and it cannot end without an answer to everyone who waits. A token is handed out only while it lives by the
monotonic clock. How a token is fetched is the source's business, how long to wait between attempts is `pace.py`'s.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from gateway.errors import CredentialRefused, TokenError, TokenUnavailable
from gateway.model import CredentialStatus
from gateway.tokens.outcome import classify, ran_out
from gateway.tokens.pace import ForcedBudget, Pace, seconds_left
from gateway.tokens.report import WHICH, Report, failure_of
from gateway.tokens.rotation import Rotation
from gateway.tokens.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.model import Clock, Credential, Timer, Token
    from gateway.observe import CredentialMetrics
    from gateway.tokens.outcome import Outcome
    from gateway.tokens.report import Cause
    from gateway.tokens.source import Source
    from gateway.tokens.store import Store

State = Literal["valid", "idle", "pending", "unavailable", "refused", "malformed"]

_PAUSES: Final[tuple[float | None, ...]] = (0.25, 0.5, 1.0, None)
"""Seconds before each further attempt when an endpoint still hands out a token whose end has come, and None for no
more; those who wait, wait on. `min_interval` is kept here, too."""


class Recipe:
    """What a cache fetches by: a credential's settings, and one source and one key for each of its grants."""

    __slots__ = ("credential", "keys", "sources")

    def __init__(self, credential: Credential, sources: Sequence[Source], keys: Sequence[str]) -> None:
        self.credential = credential
        self.sources = sources
        self.keys = keys


class TokenCache:
    """`model.Tokens` over one recipe; shared by all credentials whose recipes are equal in everything."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        clock: Clock,
        metrics: CredentialMetrics,
        store: Store,
        token_timeout: float,
        tried: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin without a token.

        Args:
            recipe: what to fetch and how.
            clock: all instants and timers.
            metrics: the credential's children.
            store: where tokens are kept for a later cache of the same recipe.
            token_timeout: longest wait of one request, seconds.
            tried: called when the first fetch has ended, well or badly.
        """
        self.recipe = recipe
        self.token_timeout = token_timeout
        self.tried = False
        self._clock = clock
        self._now = clock.monotonic
        self._store = store
        self._on_tried = tried
        self._report = Report(recipe.credential.name, metrics, clock)
        self._secrets = Rotation(recipe.sources, recipe.keys)
        self._room = WaitingRoom(clock, metrics)
        self._pace = Pace(recipe.credential.timeout, single_active=recipe.credential.single_active_token)
        self._budget = ForcedBudget()
        # The token in use, the store's key of it, and the last one that was: an endpoint may hand it out again.
        self._token: Token | None = None
        self._key = self._secrets.key
        self._last: Token | None = None
        self._generation = self._accepted = 0
        self._used = False
        # The fetch under way, or when the next one comes; none may start before `_floor`.
        self._fetch: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._planned = math.inf
        self._started = self._floor = -math.inf
        # Trouble: None means that the last fetch went well, or that there was none yet.
        self._failure: TokenError | None = None
        self._eager_at = -math.inf
        self._demand = False
        self._wall_success: float | None = None
        self._wall_failure: float | None = None
        self._closed = False
        self._successor: TokenCache | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "fetching" if self._fetch else "at rest"
        return (
            f"<TokenCache {self.recipe.credential.name} generation={self._generation} left={self._left():.3f} {state}>"
        )

    # ----------------------------------------------------------------------------------------- what the data plane sees

    def current(self) -> Token | None:
        """Return the token in memory if it is valid now. An attribute and one look at the clock: the hot path."""
        token = self._token
        if token is not None and self._now() < token.expires_at:
            self._used = True
            return token
        return None

    async def get(self) -> Token:
        """Return a valid token, waiting for the one shared fetch if there is none.

        After a failed fetch nobody waits any more, until one succeeds: the failure is raised at once.

        Raises:
            TokenUnavailable: none to be had, or not within `token_timeout`.
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
            self._want("demand")
            if self._failure is not None or (self._fetch is None and self._planned > deadline):
                raise self._refusal()
            if not await self._room.wait(deadline) and self.current() is None:
                raise self._overdue()
        if self._successor is None:
            raise TokenUnavailable(reason="the credential is no longer in use", retry_after=1.0)
        return await self._successor._get(deadline)  # noqa: SLF001 - its own kind; the deadline stays the waiter's

    async def fetch_now(self) -> None:
        """Fetch because a person asks for it, whatever the back-off says; the token in hand serves until it ends well.

        Raises:
            TokenUnavailable: not within `token_timeout`, or the vendor allows no request yet (`min_interval`).
            CredentialRefused: the vendor refuses the credential.
            TokenMalformed: the token endpoint's answer was unusable.
        """
        if self._closed:
            raise TokenUnavailable(reason="the credential is no longer in use")
        wait = self._floor - self._now()
        if self._fetch is None and wait > 0:
            raise TokenUnavailable(reason=f"the vendor allows the next token request in {wait:.0f} s", retry_after=wait)
        if self._fetch is None:
            self._start("manual")
        if not await self._room.wait(self._now() + self.token_timeout) and self._fetch is not None:
            raise TokenUnavailable(reason=f"no token within {self.token_timeout:g} s, still being fetched")
        if self._closed:
            raise TokenUnavailable(reason="the credential was changed meanwhile")
        if self._failure is not None:
            raise self._refusal()

    def accepted(self, token: Token) -> None:
        """The vendor took `token`: if it refuses it later, a new one will help."""
        if token.generation > self._accepted:
            self._accepted = token.generation
            self._budget.relax()

    async def refused(self, token: Token) -> Token | None:
        """The vendor refused `token`: return the one to send again with, or None when that cannot help.

        The token is gone from the cache before the first wait, unless no forced fetch is allowed yet: then it stays in
        use, being the best there is, and the vendor's own answers go to the apps.
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
        """As `refused`, for an exchange that cannot be sent again: the fetch goes on in the background."""
        if not self._closed:
            self._invalidate(token)
        elif self._successor is not None:
            self._successor.discard(token)

    # --------------------------------------------------------------------------------------------- what the set sees

    def adopt(self, token: Token, *, which: int = 0, rotated: bool = False, key: str | None = None) -> None:
        """Take over a token from before a reload, before `begin`.

        Args:
            token: the token.
            which: the grant that fetched it.
            rotated: that grant had an older secret: the token serves only until the first fetch brings its successor.
            key: the store's key of the token, unless it is that of the grant.
        """
        self._token = self._last = token
        self._generation = max(self._generation, token.generation)
        self._secrets.settle(which)
        self._key = key or self._secrets.key
        self._report.adopted(token, rotated=rotated)
        self.tried = True

    def follow(self, other: TokenCache) -> None:
        """Continue the counting of the cache that this one replaces, so that its tokens are known as older ones."""
        self._generation = max(self._generation, other._generation)
        self._accepted = other._accepted

    def begin(self, cause: Cause) -> None:
        """Start the life of this cache: fetch if the credential is to be kept warm and has no token of its own."""
        if self._token is not None and cause != "rotated":
            self._plan_refresh()
        elif self._token is not None or self.recipe.credential.keep_warm == "always":
            self._want(cause)

    def retune(self, credential: Credential, token_timeout: float) -> None:
        """Take over settings that changed while the recipe did not: token, fetch and back-off go on as they are."""
        self.token_timeout = token_timeout
        if credential == self.recipe.credential:
            return
        self.recipe = Recipe(credential, self.recipe.sources, self.recipe.keys)
        self._pace.tune(credential.timeout, single_active=credential.single_active_token)
        if self._failure is None and self._fetch is None:
            self._unplan()
            self.begin("startup")

    @property
    def key(self) -> str:
        """The store's key of the token in use."""
        return self._key

    def peek(self) -> Token | None:
        """Return the valid token without counting that as use."""
        return self._token if self._left() > 0 else None

    def close(self, successor: TokenCache | None = None) -> asyncio.Task[None] | None:
        """Stop at once: no timer, no fetch, no token. Who waits is sent on to `successor`, or told that there is none.

        A fetch under way is cancelled and returned: one that began with an old secret must not overwrite what a newer
        one brought.
        """
        self._closed, self._successor = True, successor
        self._unplan()
        fetch, self._fetch, self._token = self._fetch, None, None
        if fetch is not None:
            fetch.cancel()
        self._room.wake()
        return fetch

    def status(self, name: str) -> CredentialStatus:
        """How the credential `name` stands now."""
        token, failure = self.peek(), self._failure
        return CredentialStatus(
            name=name,
            state=self._state(),
            tried=self.tried,
            fingerprint=token.fingerprint if token else None,
            generation=self._generation,
            life=token.life if token else None,
            expires_in=self._left() if token else None,
            expiry_source=token.expiry_source if token else None,
            last_success=self._wall_success,
            last_failure=self._wall_failure,
            reason=(failure.reason or failure.detail) if failure else None,
            consecutive_failures=self._pace.failures if failure else 0,
            next_attempt_in=None if self._planned == math.inf else max(0.0, self._planned - self._now()),
            skew=self._secrets.skew,
            secret=WHICH[self._secrets.works],
        )

    def _state(self) -> State:
        if self._left() > 0:
            return "valid"
        if self._failure is not None:
            return failure_of(self._failure)
        return "idle" if self._fetch is None and self._planned == math.inf else "pending"

    # --------------------------------------------------------------------------------------------------------- planning

    def _want(self, cause: Cause) -> None:
        """Somebody needs a token: start a fetch now, or bring the planned one forward as far as is allowed."""
        self._demand = self._demand or cause in {"demand", "unauthorized"}
        if self._fetch is not None:
            return
        now, at = self._now(), self._earliest()
        if at <= now and self._failure is None:
            self._start(cause)
        elif at < self._planned:
            self._plan(max(at, now), cause)

    def _earliest(self) -> float:
        """When a fetch may start at the earliest while apps are being refused."""
        return self._floor if self._failure is None else max(self._floor, self._eager_at)

    def _plan(self, at: float, cause: Cause) -> None:
        self._unplan()
        self._planned = at
        self._timer = self._clock.call_later(max(0.0, at - self._now()), partial(self._due, cause))

    def _plan_refresh(self) -> None:
        """Plan the fetch of the successor ahead of the token's end, if anybody is to be kept from waiting."""
        token = self._token
        if token is not None and self.recipe.credential.keep_warm != "never":
            self._plan(max(token.expires_at - self._pace.margin(token.life), self._floor), "refresh_ahead")

    def _unplan(self) -> None:
        self._planned = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, cause: Cause) -> None:
        self._unplan()
        if self._fetch is None and not self._closed:
            if self._for_somebody():
                self._start(cause)
            else:
                self._failure = None  # forgotten: the next request may wait for a fetch of its own
                self._report.forgotten()

    def _for_somebody(self) -> bool:
        """Whether the fetch that is due has a purpose; without `keep_warm: always` it needs somebody who asks."""
        keep_warm = self.recipe.credential.keep_warm
        return keep_warm == "always" or self._demand or (keep_warm == "used" and self._used)

    def _invalidate(self, token: Token) -> bool:
        """Drop exactly `token`. False when it has to stay, because no forced fetch is allowed yet."""
        held = self._token
        if held is None or not _same(held, token):
            return True  # replaced or gone already: who asks gets the newer one, and nothing is fetched for it
        now = self._now()
        accepted = held.generation <= self._accepted
        if self._earliest() - now > self.token_timeout or not self._budget.take(now, accepted=accepted):
            return False
        self._token = None
        self._store.remove(self.key, held)
        self._report.invalidated(held, accepted=accepted)
        self._unplan()
        self._want("unauthorized")
        return True

    def _drop_expired(self) -> None:
        if self._token is not None and self._left() <= 0:
            self._report.expired(self._token)
            self._token = None

    def _left(self) -> float:
        return seconds_left(self._token, self._now())

    def _overdue(self) -> TokenError:
        """A waiter's time is up. From now on nobody waits for this fetch, though it goes on to its own time-out."""
        if self._failure is None and self._fetch is not None:
            self._failure = TokenUnavailable(reason=f"no token within {self.token_timeout:g} s, still being fetched")
        return self._refusal()

    def _refusal(self) -> TokenError:
        """Return a fresh error: the last failure, and the time to the next attempt (a second if one is under way)."""
        wait = max(0.0, self._planned - self._now()) if self._planned < math.inf else 1.0
        failure = self._failure or TokenUnavailable(reason="the next token request is not due yet")
        return type(failure)(reason=failure.reason, retry_after=wait)

    # --------------------------------------------------------------------------------------------------------- fetching

    def _start(self, cause: Cause) -> None:
        self._unplan()
        self._started, self._demand = self._now(), False
        name = f"token {self.recipe.credential.name}"
        self._fetch = asyncio.get_running_loop().create_task(self._run(cause), name=name)

    async def _run(self, cause: Cause) -> None:
        """One fetch from start to end. Its outcome is settled here, so that no waiter depends on another."""
        try:
            token = await self._from_endpoint()
        except TokenError as error:
            self._failed(error, cause)
        except Exception as error:  # noqa: BLE001 - the task's border: logged with its traceback, and told to who waits
            self._report.crashed(cause)
            self._failed(TokenUnavailable(reason=f"a defect of the gateway ({type(error).__name__})"), cause)
        else:
            self._succeeded(token, cause)
        if not self.tried:
            self.tried = True
            self._on_tried()
        self._room.wake()

    async def _from_endpoint(self) -> Token:
        """Return a token that lives, asking again shortly when the endpoint still hands out the one that just ended."""
        for pause in _PAUSES:
            within = self._pace.timeout(self._left())
            refused = isinstance(self._failure, CredentialRefused)
            token = await self._secrets.fetch(within, both_refused=refused)
            now = self._now()
            if not ran_out(token, self._last, now):
                held = self.peek()
                if token.expires_at <= now and (held is None or held.value != token.value):
                    raise TokenUnavailable(reason="the token had run out before it arrived")
                return token
            if pause is None or pause < self.recipe.credential.min_interval:
                break
            await self._clock.sleep(pause)
        raise TokenUnavailable(reason="the endpoint hands out a token that has run out")

    def _succeeded(self, fetched: Token, cause: Cause) -> None:
        now, last, attempt = self._now(), self._last, self._pace.failures + 1
        known_end = last.expires_at if last is not None else -math.inf
        held = self._token is not None
        token, outcome = classify(fetched, last, held=held, generation=self._generation, now=now)
        self._fetch = self._failure = None
        self._generation = max(self._generation, token.generation)
        self._wall_success = self._clock.wall()
        self._floor = self._started + self.recipe.credential.min_interval
        self._pace.succeeded(now - fetched.fetched_at)
        self._keep(token)
        self._report.fetched(
            token, outcome, cause=cause, duration=now - fetched.fetched_at, attempt=attempt,
            skew=self._secrets.skew, which=self._secrets.works,
        )  # fmt: skip
        self._plan_after(token, outcome if known_end > now else "ok", now)

    def _keep(self, token: Token) -> None:
        self._token = self._last = token
        self._used = False
        changed = self._secrets.worked()
        self._key = self._secrets.key
        self._store.put(self.key, token)
        if self._secrets.choice:
            self._report.switched(self._secrets.works, changed=changed)

    def _plan_after(self, token: Token, outcome: Outcome, now: float) -> None:
        if outcome == "ok":
            self._pace.changed()
            self._plan_refresh()
            return
        left = token.expires_at - now
        self._pace.unchanged(left)
        if self.recipe.credential.keep_warm != "never":
            self._plan(max(token.expires_at - self._pace.again(left), self._floor), "refresh_ahead")

    def _failed(self, error: TokenError, cause: Cause) -> None:
        now, token, started = self._now(), self.peek(), self._started
        wanted = token is None and (self._demand or len(self._room) > 0)
        self._fetch, self._failure, self._wall_failure = None, error, self._clock.wall()
        self._pace.failed(error, seconds_left(token, now))
        self._floor = max(started + self.recipe.credential.min_interval, now + (error.retry_after or 0.0))
        self._eager_at = started + self._pace.delay(error, eager=True)
        at = self._eager_at if wanted else started + self._pace.delay(error, eager=False)
        if token is not None and not isinstance(error, CredentialRefused):
            at = min(at, token.expires_at)
        self._plan(max(at, self._floor, now), cause)
        self._report.failed(
            error, cause=cause, duration=now - started, attempt=self._pace.failures, next_in=self._planned - now,
            left=seconds_left(token, now), skew=self._secrets.skew,
        )  # fmt: skip
        self._drop_expired()


def _same(held: Token, token: Token) -> bool:
    """Whether both are one token: by generation, and by value too, since the generations of two caches may meet."""
    return held is token or (held.generation == token.generation and held.value == token.value)
