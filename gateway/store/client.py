"""`SharedStore`: runs scripts in the store, knows whether it is up, and how many instances there are.

Never repeats a command, and never lets a request wait. While the store is away every call fails at once, and the
instance goes on alone; once a second the store is asked whether it is back.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from gateway.errors import StoreAway, Undecryptable
from gateway.model import StoreStatus
from gateway.observe import StoreState, get_logger
from gateway.resolver import Resolver
from gateway.store.connection import reason_of
from gateway.store.health import Health
from gateway.store.presence import BEAT, LEAVE, LIFE, Presence
from gateway.store.sealing import Sealing
from gateway.store.subscriber import Subscriber
from gateway.store.wires import Wires

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.model import Clock, StoreConfig
    from gateway.observe import Metrics
    from gateway.store.connection import Argument, Call
    from gateway.store.script import Script

_log = get_logger("gatepass.store")
INTERVAL = 1.0
"""Seconds between two heartbeats."""
AGAIN = 0.05
"""Seconds after a failed heartbeat, until the store is away."""
MARK_DIGITS = 8
_COMPARE = "compare store.keys of all instances"
REFUSALS = (
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY",
    "TRYAGAIN", "UNKILLABLE", "WRONGPASS",
)  # fmt: skip
"""First words of errors with which a server says that it serves nobody; any other is about one command."""


class SharedStore:
    """The store of one instance."""

    def __init__(
        self, config: StoreConfig, *, clock: Clock, metrics: Metrics, resolver: Resolver | None = None
    ) -> None:
        self.instance = secrets.token_hex(8)
        """A random id of this process."""
        self.tried = asyncio.Event()
        """Set when the first attempt to reach the store has ended, well or not."""
        self._clock = clock
        self._metrics = metrics.store()
        self._health = Health()
        self._presence = Presence(self.instance)
        self._changed: list[Callable[[bool], None]] = []
        self._lost: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._has_left = False
        self._reason = "it was not reached yet"
        self._undecryptable = False
        """Whether the last record could not be opened."""
        self._config = config
        self._sealing = Sealing(config.keys, config.namespace)
        self._wires = Wires(config, resolver or Resolver())
        self._subscriber = Subscriber(self, clock)
        self._metrics.watch(self._seen)

    def __repr__(self) -> str:
        return f"<store {self._config.server} {'up' if self.is_up else 'away'}>"

    # -------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to connect, and return at once. An outage is no error."""
        self._tasks = [asyncio.create_task(self._beat_for_ever()), asyncio.create_task(self._subscriber.run())]

    async def stop(self) -> None:
        """Leave the members and close all connections; takes one command's time at most."""
        await self._rest()
        if self.is_up and not self._has_left:
            try:
                await self.leave()
            except StoreAway as error:
                _log.warning("store_not_left", reason=str(error))
        await self._wires.close()

    async def leave(self) -> int:
        """Stop being a member, before `stop`; return how many members are left. Raises StoreAway."""
        await self._rest()
        self._has_left = True
        return int(await self.run(LEAVE, [self.key("members")], [self._member, int(LIFE * 1000)]))

    async def _rest(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def use(self, config: StoreConfig) -> None:
        """Go on with another configuration: keys, server, password, time-outs."""
        if config != self._config:
            self._config = config
            self._sealing = Sealing(config.keys, config.namespace)
            self._wires.use(config)
            self._subscriber.reconnect()

    # ------------------------------------------------------------------------------------------------------- state

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted now."""
        return self._health.is_up

    @property
    def members(self) -> int:
        """How many instances there are as far as is known, this one included."""
        return self._presence.members

    @property
    def rank(self) -> int:
        """The place of this instance among them, from 0."""
        return self._presence.rank

    @property
    def lease(self) -> float:
        """Seconds of a lease."""
        return self._config.lease

    @property
    def timeout(self) -> float:
        """Seconds of one command."""
        return self._config.timeout

    @property
    def _mark(self) -> str:
        """What stands for the last key in the list of members; it tells nothing about the key."""
        return self._sealing.name("mark")[:MARK_DIGITS]

    @property
    def _member(self) -> str:
        return f"{self.instance}:{self._mark}"

    def _seen(self) -> StoreState:
        return StoreState(self.is_up, self._shares(), self.silence(), self.members, self._presence.strangers)

    def silence(self) -> float:
        """Return the seconds since the store's last answer; 0 before the first one."""
        at = self._health.answered_at
        return 0.0 if at is None else self._clock.monotonic() - at

    def wall(self) -> float | None:
        """Return the store's time in seconds since the epoch, as last known; None before the first answer."""
        return self._presence.wall(self._clock.monotonic())

    def status(self) -> StoreStatus:
        """Return how this instance stands to the store."""
        shared = self._shares()
        reason = "" if shared else "the others have other `store.keys`" if self.is_up else self._reason
        return StoreStatus(
            str(self._config.server), "shared" if shared else "alone", self.members, self.silence(), reason
        )

    def _shares(self) -> bool:
        return self.is_up and not self._undecryptable and not self._presence.is_alone

    def on_change(self, changed: Callable[[bool], None]) -> Callable[[], None]:
        """Call `changed` with True when the store is up, with False when it is away; return how to stop that."""
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def on_loss(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost` when the store may have lost data: flushed, restarted, failed over, or away for long.

        Returns how to stop that. A store that comes back is told by `on_change`.
        """
        self._lost.append(lost)
        return lambda: self._lost.remove(lost)

    # ---------------------------------------------------------------------------------------------------- commands

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its answer, in one round trip. Raises StoreAway."""
        return (await self.run_many([(script, keys, args)]))[0]

    async def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one pipeline and return their answers. Raises StoreAway if one of them has none."""
        if not self.is_up:
            raise StoreAway("the store is away")
        return await self._send(calls)

    async def _send(self, calls: Sequence[Call], *, beat: bool = False) -> list[Any]:
        sent = self._clock.monotonic()
        try:
            answers = await self._wires.calls(calls)
        except StoreAway as error:
            self._failed(sent, error, beat=beat)
            raise
        now = self._clock.monotonic()
        errors = [answer for answer in answers if isinstance(answer, ResponseError)]
        refusals = [each for each in errors if beat or reason_of(each).startswith(REFUSALS)]
        if errors:
            refused = StoreAway(reason_of((refusals or errors)[0]))
            if refusals:
                await self._wires.close()
                self._failed(sent, refused, beat=beat)
            raise refused
        self._metrics.answered(now - sent)
        self._change(lambda: self._health.answered(now, beat=beat))
        return answers

    def _failed(self, sent: float, error: StoreAway, *, beat: bool) -> None:
        now = self._clock.monotonic()
        self._metrics.failed(now - sent)
        self._change(lambda: self._health.failed(sent, now, beat=beat), str(error))

    def _change(self, update: Callable[[], None], reason: str = "") -> None:
        tried, before = self._health.tried, self._health.is_up
        update()
        after = self._health.is_up
        self._reason = reason or self._reason
        self.tried.set()
        if after == before and tried:
            return
        server = str(self._config.server)
        if after:
            _log.info("store_up", store=server, members=self.members)
        else:
            _log.warning("store_away", store=server, reason=reason, hint="this instance goes on alone")
        for changed in list(self._changed):
            changed(after)

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                await self.beat()
            except StoreAway:
                await self._clock.sleep(AGAIN if self.is_up else INTERVAL)
            except Exception:  # noqa: BLE001 - a defect; without heartbeats this instance would be alone for ever
                _log.exception("store_heartbeat_crashed")
                await self._clock.sleep(INTERVAL)
            else:
                await self._clock.sleep(INTERVAL)

    async def beat(self) -> None:
        """Tell the other instances that this one lives, and learn of them. Raises StoreAway."""
        channel = self._subscriber.own_channel if self._subscriber.begin() else ""
        args: list[Argument] = [self._member, int(LIFE * 1000), channel]
        sent = self._clock.monotonic()
        try:
            (answer,) = await self._send([(BEAT, [self.key("members")], args)], beat=True)
        except StoreAway:
            self._subscriber.beaten(ok=False)
            raise
        strangers = self._presence.strangers
        forgotten = self._presence.learn(answer, sent, self._mark)
        self._subscriber.beaten(ok=True)
        if self._presence.strangers > strangers:
            _log.warning("store_strangers", strangers=self._presence.strangers, hint=_COMPARE)
        if forgotten:
            _log.warning(
                "store_lost_data", store=str(self._config.server), hint="what this instance knows is written again"
            )
            for lost in list(self._lost):
                lost()

    # ----------------------------------------------------------------------------------------------- names, records

    def key(self, *parts: str) -> str:
        """Return the name of a key or a channel: `gp1:NAMESPACE:PART:…`."""
        return ":".join((f"gp1:{self._config.namespace}", *parts))

    def name(self, *parts: str) -> str:
        """Return the name that stands for `parts`: 32 hex digits, different with other `store.keys`."""
        return self._sealing.name(*parts)

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Encrypt a record so that it opens only with the same `bound_to`."""
        return self._sealing.seal(plain, bound_to)

    def unseal(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Return what was sealed. Raises Undecryptable, which is counted."""
        try:
            plain = self._sealing.unseal(sealed, bound_to)
        except Undecryptable:
            if not self._undecryptable:
                _log.warning("store_record_not_opened", store=str(self._config.server), hint=_COMPARE)
            self._undecryptable = True
            self._metrics.undecryptable()
            raise
        self._undecryptable = False
        return plain

    # --------------------------------------------------------------------------------------------------------- news

    @property
    def channel(self) -> str:
        """The channel on which scripts publish the name that has news."""
        return self.key("ev")

    def listen(self, name: str, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard` when `name` may have news; return how to stop that.

        Also called when news may have been missed, and each second while no news can arrive.
        """
        return self._subscriber.listen(name, heard)

    async def connect(self) -> Any:
        """Return a connection of its own, for the subscriber. Raises StoreAway."""
        return await self._wires.open()
