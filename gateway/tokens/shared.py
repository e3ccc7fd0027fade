"""`SharedTokenCache`: a credential's token when several instances share a store.

It behaves as `TokenCache`, and beyond that: a token request needs a lease (`turn.py`), tokens of other instances are
adopted, and a rejected token is declared dead in the store. While the store is away, the instance works alone; when the
store is back, all instances use the token with the highest fence. No request with a valid token waits for the store.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.errors import StoreAway, TokenUnavailable
from gateway.model import Again, Bucket, Demand
from gateway.observe import register
from gateway.tokens.alone import alone_wait
from gateway.tokens.cache import TokenCache
from gateway.tokens.failures import NotDue, RefusedElsewhere
from gateway.tokens.outcome import is_same
from gateway.tokens.pace import ForcedBudget
from gateway.tokens.report import failure_of
from gateway.tokens.source import Recipe
from gateway.tokens.turn import UNFENCED, TurnSource
from gateway.tokens.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from gateway.errors import TokenError
    from gateway.model import Clock, CredentialStatus, Reading, SharedTokens, Token
    from gateway.observe import CredentialMetrics
    from gateway.tokens.report import Cause
    from gateway.tokens.rotation import Fetched
    from gateway.tokens.store import Store

CLOSED_PAUSE = 1.0
"""Seconds between two attempts while the store is away and `store_outage: closed` allows no token request."""
EARLY = 0.05
"""Seconds before this instance's planned renewal from which other instances may renew the token."""
BUCKET = Bucket(ForcedBudget.SIZE, ForcedBudget.REFILL, ForcedBudget.HOLD, ForcedBudget.MOST_HOLD)


class SharedTokenCache(TokenCache):
    """The `model.Tokens` of one recipe that several instances share."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        clock: Clock,
        metrics: CredentialMetrics,
        store: Store,
        token_timeout: float,
        shared: SharedTokens,
        tried: Callable[[], object] = lambda: None,
        changed: Callable[[], object] = bool,
    ) -> None:
        """Take the arguments of `TokenCache`, and the store (`shared`)."""
        self._shared = shared
        self._metrics = metrics
        self._cause: Cause = "startup"
        self._fences: dict[str, int] = {}
        self._rejected: tuple[str, Token] | None = None
        self._not_due: NotDue | RefusedElsewhere | None = None
        self._bare_since = clock.monotonic()
        self._renews = False
        self._turns = [
            TurnSource(source, key, shared=shared, clock=clock, claimant=self, ended=metrics.lease)
            for source, key in zip(recipe.sources, recipe.keys, strict=True)
        ]
        super().__init__(
            Recipe(recipe.credential, self._turns, recipe.keys), clock=clock, metrics=metrics, store=store,
            token_timeout=token_timeout, tried=tried, changed=changed,
        )  # fmt: skip
        crashed = self._report.sharing_crashed
        self._watch = Watch(shared, self.known, consider=self.consider, crashed=crashed)

    # ------------------------------------------------------------------------------- what `TokenCache` does, and more

    def begin(self, cause: Cause) -> None:
        """Listen for changes in the store, and begin as `TokenCache.begin`."""
        self._watch.listen()
        super().begin(cause)

    def listen(self) -> None:
        """Listen for changes of each grant in the store; call it again after a reload, which may change the names."""
        self._watch.listen()

    def close(self, successor: TokenCache | None = None) -> list[asyncio.Task[None] | asyncio.Task[Fetched]]:
        """Stop as `TokenCache.close`; also return the tasks of commands to the store that are under way."""
        self._watch.close()
        return [*super().close(successor), *self._watch.commands]

    async def fetch_now(self) -> None:
        """Fetch now, or adopt a token that another instance fetches. Raises TokenError, as `TokenCache.fetch_now`."""
        await super().fetch_now()
        if self._not_due is not None:
            wait = self._not_due.retry_after or 0.0
            raise TokenUnavailable(reason=f"{self._not_due.reason} in {wait:.0f} s", retry_after=wait)

    def accepted(self, token: Token) -> None:
        """Note that the vendor accepted `token`, and tell the other instances once."""
        if token.generation > self._accepted:
            super().accepted(token)
            if self._shared.is_up and self._token is token:
                self._watch.spawn(self._shared.accept(self._key, token.generation, BUCKET.hold))

    def status(self, name: str) -> CredentialStatus:
        """Return the state of the credential `name`; also which instance fetched its token."""
        status, token = super().status(name), self.peek()
        if token is None:
            return status
        is_own = token.by == self._shared.instance
        return replace(status, origin="fetched" if is_own else "adopted", instance=token.by or None)

    def adopt(self, token: Token, *, which: int = 0, rotated: bool = False, key: str | None = None) -> None:
        """Use a token that was in use before a reload."""
        super().adopt(token, which=which, rotated=rotated, key=key)
        self._remember(token)

    def _keep(self, token: Token, which: int) -> None:
        super()._keep(token, which)
        self._remember(token)

    def _remember(self, token: Token) -> None:
        self._fences[self._key] = max(token.generation, self._fences.get(self._key, 0))
        self._renews = token.by == self._shared.instance
        self._bare_since = math.inf
        self._metrics.origin("fetched" if self._renews else "adopted")

    # --------------------------------------------------------------------------------------------- this instance's turn

    def demand(self, key: str) -> Demand:
        """Return what the next token request is for."""
        return Demand(
            known=self._fences.get(key, 0),
            floor=self._generation,
            min_interval=self.recipe.credential.min_interval,
            ahead=self.peek() is not None and self._key in self.recipe.keys,
            forced=self._cause == "manual",
        )

    def alone(self) -> float:
        """Return the seconds until this instance may request a token without the store. Raises NotDue if never."""
        if self.recipe.credential.store_outage == "closed":
            reason = "the shared store is away, and store_outage is closed"
            raise NotDue(reason, CLOSED_PAUSE, failure="unavailable")
        now, token = self._now(), self.peek()
        if token is None and self._bare_since == math.inf:
            self._bare_since = now
        is_asked = self._cause == "manual"  # waits for `min_interval`, but not for this rank's turn
        return alone_wait(
            self.recipe.credential, members=self._shared.members, rank=self._shared.rank, wall=self._shared.wall(),
            left=0.0 if is_asked else self._left(), margin=self._pace.margin(token.life) if token is not None else 0.0,
            bare=max(0.0, now - self._bare_since), renews=self._renews or is_asked,
        )  # fmt: skip

    def failed_elsewhere(self, failures: int) -> None:
        """Continue the back-off after failures that other instances had."""
        self._pace.failures = max(self._pace.failures, failures)

    async def _run(self, cause: Cause) -> None:
        self._cause = cause
        if not await self._bury():
            self._fetch = None
            self._waiters.wake()
        elif cause == "manual" or len(self._turns) == 1 or not await self._adopt_newer():
            await super()._run(cause)

    async def _adopt_newer(self) -> bool:
        """Adopt a newer token of either secret from the store; return False if there is none to adopt."""
        await self._shared.tried.wait()
        try:
            readings = await self._shared.read(self.known())
        except StoreAway:
            return False
        fetch, self._fetch = self._fetch, None
        if not self._adopt_newest(readings):
            self._fetch = fetch
            return False
        return True

    def _ended(self) -> None:
        if not self._is_held():
            super()._ended()

    def _is_held(self) -> bool:
        """Return whether another instance was fetching the token when this one last asked."""
        return self._not_due is not None and self._not_due.is_held

    def _is_fetching(self) -> bool:
        return super()._is_fetching() or self._is_held()

    def _succeeded(self, result: Fetched, cause: Cause) -> None:
        fetched, held = result.token, self.peek()
        self._not_due = None
        if fetched is self._turns[result.which].adopted:
            self._fetch = None
            self._take(fetched, result.which)
        elif held is not None and held.generation > fetched.generation:
            self._fetch = None
            self._report.superseded(fetched, cause=cause, duration=self._now() - fetched.fetched_at)
            self._schedule.adopted(held, self.recipe.credential)
            self._watch.spawn(self._turns[result.which].fail(None, Again(0.0, 0.0, 0.0)))
        else:
            super()._succeeded(result, cause)
            self._watch.spawn(self._commit(result.which, fetched.generation))

    async def _commit(self, which: int, fence: int) -> None:
        token = self._token
        if token is None:
            await self._turns[which].fail(None, Again(0.0, 0.0, 0.0))
        elif not await self._turns[which].commit(fence, token, self._until_refresh()):
            await self._watch.read()

    def _until_refresh(self) -> float:
        """Return the seconds until this instance renews its token."""
        return max(0.0, min(self._schedule.planned - self._now(), self._left()) - EARLY)

    def _failed(self, error: TokenError, cause: Cause) -> None:
        if isinstance(error, NotDue | RefusedElsewhere):
            self._postpone(error, cause)
            return
        self._not_due = None
        super()._failed(error, cause)
        now = self._now()
        eager = max(0.0, self._schedule.retry_at - now)
        calm = max(eager, self._pace.delay(error, eager=False))
        again = Again(max(0.0, self._schedule.not_before - now), eager, calm)
        for turn in self._turns:
            self._watch.spawn(turn.fail(failure_of(error), again))

    def _postpone(self, error: NotDue | RefusedElsewhere, cause: Cause) -> None:
        """Plan the next attempt; no request was sent. Waiting callers fail if another instance's request has failed."""
        self._fetch, self._not_due = None, error
        at = self._now() + (error.retry_after or 0.0)
        token = self.peek()
        if isinstance(error, RefusedElsewhere):
            self._outage.fetch_failed(error, goes_on=False)
        else:
            if error.failure is not None:
                self._outage.fetch_failed(error.as_failure(), goes_on=False)
            if token is not None:
                at = min(at, token.expires_at)
        self._demand = self._demand or cause in {"demand", "unauthorized", "manual"}
        self._schedule.postpone(at, cause)
        self._drop_expired()

    # -------------------------------------------------------------------------------------------------- rejected tokens

    def _invalidate(self, token: Token) -> bool:
        held = self._token
        if not self._shared.is_up or held is None or not is_same(held, token):
            return super()._invalidate(token)
        if self._schedule.not_before - self._now() > self.token_timeout:
            return False
        self._token, self._rejected = None, (self._key, held)
        self._store.remove(self._key, held)
        self._demand = True
        if self._fetch is None:
            self._start("unauthorized")
            self._demand = True
        else:
            self._watch.spawn(self._bury_during_fetch())
        return True

    async def _bury_during_fetch(self) -> None:
        if not await self._bury():
            self._waiters.wake()

    async def _bury(self) -> bool:
        """Declare the rejected token dead for all instances; return False if it must stay in use."""
        if self._rejected is None:
            return True
        (key, token), self._rejected = self._rejected, None
        accepted = token.generation <= self._accepted
        try:
            dead = await self._shared.kill(
                key, token.generation, accepted=accepted, longest=self.token_timeout, bucket=BUCKET
            )
        except StoreAway:
            dead = self._budget.take(self._now(), accepted=accepted)
        if dead:
            self._report.invalidated(token, accepted=accepted)
        elif self._token is None and not self._closed and self._now() < token.expires_at:
            self._token, self._demand = token, False
            self._store.put(key, token)
            self._schedule.refresh(token, self.recipe.credential)
        return dead

    # ------------------------------------------------------------------------------------------ what other instances do

    def known(self) -> list[tuple[str, int]]:
        """Return the key of each grant, and the highest fence that this instance knows of it."""
        return [(key, self._fences.get(key, 0)) for key in self.recipe.keys]

    def heed(self, readings: Sequence[Reading]) -> None:
        """Do as `consider`, but never raise, because other caches come after this one."""
        try:
            self.consider(readings)
        except Exception as error:  # noqa: BLE001 - a defect of one cache must not stop the others
            self._report.sharing_crashed(error)

    def consider(self, readings: Sequence[Reading]) -> None:
        """Compare with the store: adopt a newer token, drop a dead one, write back one that the store has lost."""
        if self._closed or self._adopt_newest(readings):
            return
        token = self.peek()
        if token is None:
            if self._fetch is None and self._is_held():
                self._schedule.postpone(self._now(), self._cause)
            return
        if self._key not in self.recipe.keys:
            return
        reading = readings[self.recipe.keys.index(self._key)]
        if reading.dead >= token.generation:
            self._drop(token)
        elif reading.fence < token.generation and self._fetch is None:
            self._watch.spawn(self._write_back(token))

    def _adopt_newest(self, readings: Sequence[Reading]) -> bool:
        """Adopt the newest token of the readings, unless the token in use is newer."""
        found = [(reading.token, which) for which, reading in enumerate(readings) if reading.token is not None]
        if self._closed or not found:
            return False
        token, which = max(found, key=lambda each: each[0].generation)
        held = self.peek()
        if held is not None and self._key in self.recipe.keys and held.generation >= token.generation:
            return False
        self._take(token, which)
        self._ended()
        return True

    def _take(self, token: Token, which: int) -> None:
        """Use a token that another instance fetched."""
        token = replace(token, credential=self.recipe.credential.name)
        register(token.value)
        self._not_due = None
        self._outage.end()
        self._pace.failures = 0
        self._generation = max(self._generation, token.generation)
        self._keep(token, which)
        self._report.adopted(token, by=token.by, is_own=token.by == self._shared.instance)
        if self._fetch is None:
            self._schedule.adopted(token, self.recipe.credential)

    def _drop(self, token: Token) -> None:
        """Stop using a token that another instance has declared dead, and fetch the next one."""
        self._token = None
        self._store.remove(self._key, token)
        self._report.invalidated(token, accepted=token.generation <= self._accepted, elsewhere=True)
        self._schedule.cancel()
        self._request_fetch("unauthorized")

    async def _write_back(self, token: Token) -> None:
        wall = self._shared.wall()
        if token.generation < UNFENCED and wall is not None and self._token is token:
            fence = int((wall - self._now() + token.fetched_at) * 1e6)
            self._token = self._last = token = replace(token, generation=fence)
            self._generation = max(self._generation, fence)
            self._remember(token)
            self._store.put(self._key, token)
        reading = await self._shared.commit(self._key, "", token, self._until_refresh())
        if reading.fence > token.generation:
            self._watch.changed()
