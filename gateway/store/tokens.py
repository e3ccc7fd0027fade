"""`StoredTokens`: tokens in the store, as `model.SharedTokens`. Seals records, and converts times.

Decisions are made elsewhere: by `token_scripts.py` in the store, by `gateway.tokens` in this process.

A slow store never makes a token live longer. A reader counts the remaining lifetime from before it sent its command. A
writer computes the end from an earlier answer's time by the store's clock; it may be early by one time-out at most.
"""

from __future__ import annotations

import json
import math
import secrets
from typing import TYPE_CHECKING, Any

from gateway.errors import Undecryptable
from gateway.model import Held, Lease, NotYet, Reading, Secret, Token
from gateway.store.token_scripts import ACCEPT, ACQUIRE, COMMIT, FAIL, KILL, READ, RENEW, WITHDRAW

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from gateway.model import Again, Bucket, Clock, Demand, FailureKind, Turn
    from gateway.store.client import SharedStore

OWNER_BYTES = 8
LEAST_TIMEOUTS = 2
"""A stored token is used only if it lives longer than this many time-outs of a command."""


class StoredTokens:
    """The tokens that all instances of a store share. A *key* identifies a grant and its secret."""

    def __init__(self, store: SharedStore, clock: Clock) -> None:
        self.instance = store.instance
        self.tried: asyncio.Event = store.tried
        self._store = store
        self._now = clock.monotonic
        self._behind = -math.inf
        """The store's clock minus our monotonic one in seconds, never too large; `-inf` before the first answer."""

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted now."""
        return self._store.is_up

    @property
    def members(self) -> int:
        """The number of live instances at the last heartbeat, at least 1."""
        return self._store.members

    @property
    def rank(self) -> int:
        """The place of this instance among the live ones in the order of their ids, from 0."""
        return self._store.rank

    @property
    def lease(self) -> float:
        """Seconds after which a lease ends unless it is renewed."""
        return self._store.lease

    def wall(self) -> float | None:
        """Return the store's clock, seconds since the epoch; None if the store has never answered."""
        return self._store.wall()

    # ------------------------------------------------------------------------------------------------------- leases

    async def acquire(self, key: str, demand: Demand) -> Turn:
        """Return a newer token, a lease, or how long to wait. Raises StoreAway.

        A stored token that cannot be decrypted does not count: the answer is then as without a token.
        """
        known = demand.known
        while True:
            name, sent, owner = self._name(key), self._now(), secrets.token_hex(OWNER_BYTES)
            least = LEAST_TIMEOUTS * self._store.timeout
            args = (
                owner, _ms(self._store.lease), known, demand.floor, _ms(least), _ms(demand.min_interval),
                int(demand.ahead), int(demand.forced),
            )  # fmt: skip
            answer = await self._store.run(ACQUIRE, _keys(self._store, name), args)
            kind = bytes(answer[0])
            if kind == b"token":
                token = self._open(name, answer[1], answer[2] / 1000, bytes(answer[3]), sent)
                if token is not None:
                    return token
                known = int(answer[1])
            elif kind == b"lease":
                self._note_time(answer[3])
                return Lease(int(answer[1]), owner, int(answer[2]))
            elif kind == b"held":
                return Held(answer[1] / 1000)
            else:
                return NotYet(answer[1] / 1000, _failure(bytes(answer[2]).decode()))

    async def renew(self, key: str, owner: str) -> bool:
        """Renew a lease; return False if it has ended. Raises StoreAway."""
        keys = _keys(self._store, self._name(key))
        return bool(await self._store.run(RENEW, keys, (owner, _ms(self._store.lease))))

    async def commit(self, key: str, owner: str, token: Token, again: float) -> Reading:
        """Store a token if its fence is above every dead and stored one, and end the lease. Raises StoreAway.

        `owner` is that of the lease, or empty; `again`: seconds until an instance with this token may request another.
        Returns the fences that the store has now, without a token.
        """
        name = self._name(key)
        record = {"value": token.value.reveal(), "life": token.life, "source": token.expiry_source, "by": token.by}
        sealed = self._store.seal(json.dumps(record).encode("ascii"), _place(name, token.generation))
        left, end = _ms(token.expires_at - self._now()), _ms(token.expires_at + self._behind)
        waits = _ms(again), _ms(self._store.timeout)
        args = (owner, token.generation, sealed, left, *waits, end, self._store.channel, name)
        stored, dead = await self._store.run(COMMIT, _keys(self._store, name), args)
        return Reading(int(stored), int(dead), None)

    async def fail(self, key: str, owner: str, failure: FailureKind | None, again: Again) -> bool:
        """End a lease without a token; return False if it had already ended. Raises StoreAway."""
        name = self._name(key)
        waits = _ms(again.hard), _ms(again.eager), _ms(again.calm)
        args = (owner, failure or "", *waits, self._store.channel, name)
        return bool(await self._store.run(FAIL, _keys(self._store, name), args))

    # ------------------------------------------------------------------------------------------------------- tokens

    async def kill(self, key: str, fence: int, *, accepted: bool, longest: float, bucket: Bucket) -> bool:
        """Declare a token dead that the vendor rejected; return False if it must stay in use. Raises StoreAway."""
        name = self._name(key)
        args = (
            fence, int(accepted), _ms(longest), bucket.size, _ms(bucket.refill), _ms(bucket.hold), _ms(bucket.most),
            self._store.channel, name,
        )  # fmt: skip
        return bool(await self._store.run(KILL, _keys(self._store, name), args))

    async def accept(self, key: str, fence: int, hold: float) -> None:
        """Record that the vendor accepted a token, for a later `kill`. Raises StoreAway."""
        await self._store.run(ACCEPT, _keys(self._store, self._name(key)), (fence, _ms(hold)))

    async def withdraw(self, key: str, fence: int) -> None:
        """Remove a token that is about to be revoked. Raises StoreAway."""
        name = self._name(key)
        await self._store.run(WITHDRAW, _keys(self._store, name), (fence, self._store.channel, name))

    async def read(self, known: Sequence[tuple[str, int]]) -> list[Reading]:
        """Read each (key, known fence) in one pipeline; return a reading for each. Raises StoreAway."""
        names, sent = [self._name(key) for key, _ in known], self._now()
        calls = [(READ, _keys(self._store, name), (fence,)) for name, (_, fence) in zip(names, known, strict=True)]
        answers = await self._store.run_many(calls) if calls else []
        return [self._reading(name, answer, sent) for name, answer in zip(names, answers, strict=True)]

    def _reading(self, name: str, answer: list[Any], sent: float) -> Reading:
        stored, dead, us, *record = answer
        self._note_time(us)
        token = self._open(name, stored, record[0] / 1000, bytes(record[1]), sent) if record else None
        return Reading(int(stored), int(dead), token)

    def _note_time(self, us: int) -> None:
        """Learn the store's clock from an answer that has just arrived: it showed `us` microseconds before now."""
        self._behind = us / 1e6 - self._now()

    def _open(self, name: str, fence: int, left: float, sealed: bytes, sent: float) -> Token | None:
        """Decrypt a record; return None if no key fits, or if it was written for another place."""
        try:
            record = json.loads(self._store.unseal(sealed, _place(name, fence)))
        except Undecryptable:
            return None
        value, life = Secret(record["value"]), float(record["life"])
        end = sent + min(left, life)
        return Token(
            value, "", end - life, end, record["source"], value.fingerprint, generation=int(fence), by=record["by"]
        )

    # ------------------------------------------------------------------------------------------------- the instances

    async def leave(self) -> int:
        """Stop being a member; return how many members are left. Raises StoreAway."""
        return await self._store.leave()

    def listen(self, key: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when a grant's token may have changed in the store; return a function that stops it."""
        return self._store.listen(self._name(key), changed)

    def on_change(self, changed: Callable[[bool], None]) -> Callable[[], None]:
        """Call `changed(True)` when the store is up, `changed(False)` when it is away; return how to stop it."""
        return self._store.on_change(changed)

    def on_loss(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost` when the store may have lost data; return a function that stops it."""
        return self._store.on_loss(lost)

    def _name(self, key: str) -> str:
        return self._store.name("token", key)


def _keys(store: SharedStore, name: str) -> list[str]:
    """Return the names of a grant's three keys; the braces keep them in one slot of a cluster."""
    return [store.key(f"{{{name}}}", part) for part in ("t", "l", "s")]


def _place(name: str, fence: int) -> bytes:
    """Return what a record is bound to, so that it cannot be moved to another name or fence."""
    return f"{name}|{fence}".encode("ascii")


def _failure(kind: str) -> FailureKind | None:
    return kind if kind in {"unavailable", "refused", "malformed"} else None  # type: ignore[return-value]


def _ms(seconds: float) -> int:
    return math.floor(seconds * 1000) if math.isfinite(seconds) else 0
