"""A token source that sends a token request only when it is this instance's turn. It wraps the source of one grant.

While the store is up, it returns a newer token of another instance, or takes a lease and renews it during the request.
While the store is away, each instance requests tokens by itself, at times that depend on its rank (`alone.py`). The
cache reports the outcome (`commit`, `fail`), because only the cache knows when the next request is due.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from gateway.errors import CredentialRefused, StoreAway
from gateway.model import Again, Lease, NotYet, Token
from gateway.tokens.failures import NotDue, RefusedElsewhere
from gateway.tokens.pace import JITTER, PROBE_DELAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Demand, FailureKind, Held, SharedTokens
    from gateway.tokens.source import Source

SOONEST, LATEST = 0.05, 0.25
"""Seconds between two reads of the store while another instance fetches; its message usually comes first."""
RENEWALS = 3
"""How often a lease is renewed in the time after which it would end."""
UNFENCED = 10**12
"""A generation below this is not a fence: it was given before the store's clock was known."""
_NOW = Again(0.0, 0.0, 0.0)


class Claimant(Protocol):
    """The methods of a cache that its source needs."""

    def demand(self, key: str) -> Demand:
        """Return what the next token request is for."""

    def alone(self) -> float:
        """Return the seconds until this instance may request a token without the store. Raises NotDue if never."""

    def failed_elsewhere(self, failures: int) -> None:
        """Take the number of token requests of all instances that failed in a row."""


class TurnSource:
    """The source of one grant that several instances share."""

    def __init__(
        self,
        source: Source,
        key: str,
        *,
        shared: SharedTokens,
        clock: Clock,
        claimant: Claimant,
        ended: Callable[[str], None],
    ) -> None:
        """`ended` is called with the outcome of each lease, to count it."""
        self.key = key
        self.adopted: Token | None = None
        """The token that was last read from the store."""
        self._source = source
        self._shared = shared
        self._clock = clock
        self._claimant = claimant
        self._ended = ended
        self._lease: Lease | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        """Since when the store has answered each request for a lease with an error, although it is up; monotonic."""

    def __repr__(self) -> str:
        return f"<TurnSource {'with a lease' if self._lease else 'at rest'}>"

    @property
    def skew(self) -> float | None:
        """Vendor's clock minus ours in seconds, as last measured."""
        return self._source.skew

    async def fetch(self, within: float) -> Token:
        """Return another instance's token, or fetch one within `within` seconds; its generation is a fence.

        Raises:
            NotDue: it is not this instance's turn.
            TokenError: as the wrapped source.
        """
        turn = await self._turn()
        if isinstance(turn, Token):
            self.adopted = turn
            return turn
        lease = self._lease
        try:
            token = await self._source.fetch(within)
        except CredentialRefused:
            delay = PROBE_DELAY * (1 + JITTER * random.random())  # noqa: S311 - spreads requests
            await self._end(lease, "refused", Again(0.0, delay, delay))
            raise
        except asyncio.CancelledError:
            await self._end(lease, None, _NOW)
            raise
        return replace(token, generation=turn, by=self._shared.instance)

    # ------------------------------------------------------------------------------------------------------- turns

    async def _turn(self) -> Token | int:
        """Return another instance's token, or the fence for a token that may be fetched now."""
        if self._lease is not None:
            return self._lease.fence  # a second token request within one fetch
        await self._shared.tried.wait()
        demand = self._claimant.demand(self.key)
        if not self._shared.is_up:
            return self._alone(demand)
        try:
            turn = await self._shared.acquire(self.key, demand)
        except StoreAway as error:
            return self._unanswered(demand, error)
        self._failing_since = None
        return turn if isinstance(turn, Token) else self._fence(turn)

    def _fence(self, turn: Lease | Held | NotYet) -> int:
        if isinstance(turn, Lease):
            self._claimant.failed_elsewhere(turn.failures)
            self._lease = turn
            self._renewing = asyncio.get_running_loop().create_task(self._renew(turn))
            return turn.fence
        if isinstance(turn, NotYet):
            if turn.failure == "refused":
                raise RefusedElsewhere(reason="the vendor refused it to another instance", retry_after=turn.wait)
            reason = (
                "another instance's token request failed"
                if turn.failure
                else "the vendor allows the next token request"
            )
            raise NotDue(reason, turn.wait, failure=turn.failure)
        wait = min(random.uniform(SOONEST, LATEST), turn.wait + SOONEST)  # noqa: S311 - spreads commands
        raise NotDue("another instance is fetching the token", wait, is_held=True)

    def _unanswered(self, demand: Demand, error: StoreAway) -> int:
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if self._shared.is_up and now - self._failing_since < self._shared.lease:
            raise NotDue(f"the shared store: {error}", LATEST, is_held=True) from error
        return self._alone(demand)  # also if the store fails this credential's commands only

    def _alone(self, demand: Demand) -> int:
        wait = self._claimant.alone()
        if wait > 0:
            raise NotDue("the shared store is away, and it is another instance's turn", wait)
        wall = self._shared.wall()
        return max(demand.known, demand.floor, 0 if wall is None else int(wall * 1e6)) + 1

    # ------------------------------------------------------------------------------------------------------ leases

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._clock.sleep(self._shared.lease / RENEWALS)
            try:
                if not await self._shared.renew(self.key, lease.owner):
                    self._ended("lost")
                    return
            except StoreAway:
                continue

    def _close(self, lease: Lease | None) -> str:
        """Stop renewing `lease` if it is held; return its owner, or nothing."""
        if lease is None or self._lease is not lease:
            return ""
        if self._renewing is not None:
            self._renewing.cancel()
        self._lease = self._renewing = None
        return lease.owner

    async def _end(self, lease: Lease | None, failure: FailureKind | None, again: Again) -> None:
        owner = self._close(lease)
        if owner:
            self._ended("failed")
            with suppress(StoreAway):
                await self._shared.fail(self.key, owner, failure, again)

    async def fail(self, failure: FailureKind | None, again: Again) -> None:
        """End the lease, if there is one, after a failed request; `again` says when the next requests may start."""
        await self._end(self._lease, failure, again)

    async def commit(self, fence: int, token: Token, again: float) -> bool:
        """Store the token that the request with `fence` returned, and end its lease.

        Return False if another instance stored a newer one, or if this one was rejected meanwhile. `again`: seconds
        until an instance with this token may request the next one.
        """
        lease = self._lease
        owner = self._close(lease) if lease is not None and lease.fence == fence else ""
        try:
            reading = await self._shared.commit(self.key, owner, token, again)
        except StoreAway:
            return True  # written back later (`SharedTokenCache.consider`)
        is_stored = reading.fence == token.generation and reading.dead < token.generation
        if owner:
            self._ended("committed" if is_stored else "refused")
        return is_stored
