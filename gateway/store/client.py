"""`SharedStore`: runs scripts in the store, knows whether it is up, and how many instances there are.

Each command is sent once. While the store is away, every call raises StoreAway at once and the instance works alone; a
heartbeat once a second finds out whether the store is back.
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
from gateway.store.rights import rights
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
"""Seconds between a failed heartbeat and the next one, as long as the store does not count as away."""
KEY_ID_DIGITS = 8
"""Hex digits that identify the last of `store.keys`."""
_COMPARE = "compare store.keys of all instances"
REFUSALS = (
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY",
    "TRYAGAIN", "UNKILLABLE", "WRONGPASS",
)  # fmt: skip
"""First words of errors that make the whole server unusable. Any other error concerns one command only."""


class SharedStore:
    """The shared store, as one instance sees it."""

    def __init__(
        self, config: StoreConfig, *, clock: Clock, metrics: Metrics, resolver: Resolver | None = None
    ) -> None:
        self.instance = secrets.token_hex(8)
        """A random id of this process."""
        self.tried = asyncio.Event()
        """Set when the first attempt to reach the store has succeeded or failed."""
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
        """Whether the last record that was read could not be decrypted."""
        self._moved = False
        """Whether a reload has changed the server, the namespace or the keys since the last heartbeat."""
        self._is_doubted = False
        """Whether a command failed since the last heartbeat, so that the next one also tries every right."""
        self._failing: dict[str, str] = {}
        """Why the last call of a script failed, by its name; a script whose last call succeeded is not in it."""
        self._config = config
        self._sealing = Sealing(config.keys, config.namespace)
        self._wires = Wires(config, resolver or Resolver())
        self._subscriber = Subscriber(self, clock)
        self._metrics.watch(self._seen)

    def __repr__(self) -> str:
        return f"<store {self._config.server} {'up' if self.is_up else 'away'}>"

    # -------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to connect, and return at once. A store that is away raises nothing."""
        self._tasks = [asyncio.create_task(self._beat_for_ever()), asyncio.create_task(self._subscriber.run())]

    async def stop(self) -> None:
        """Leave the members, and close all connections. Waits for at most one command."""
        await self._end_tasks()
        if self.is_up and not self._has_left:
            try:
                await self.leave()
            except StoreAway as error:
                _log.warning("store_not_left", reason=str(error))
        await self._wires.close()

    async def leave(self) -> int:
        """Stop being a member; return how many members are left. Call it before `stop`. Raises StoreAway."""
        await self._end_tasks()
        self._has_left = True
        return int(await self.run(LEAVE, [self.key("members")], [self._member, int(LIFE * 1000)]))

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def use(self, config: StoreConfig) -> None:
        """Use another configuration (server, password, keys, time-outs) from now on."""
        if config != self._config:
            before = self._place
            self._config = config
            self._sealing = Sealing(config.keys, config.namespace)
            self._moved = self._moved or self._place != before
            self._wires.use(config)
            self._subscriber.reconnect()

    # ------------------------------------------------------------------------------------------------------- state

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted now."""
        return self._health.is_up

    @property
    def members(self) -> int:
        """The number of live instances at the last heartbeat, this one included."""
        return self._presence.members

    @property
    def rank(self) -> int:
        """The place of this instance among the live ones in the order of their ids, from 0."""
        return self._presence.rank

    @property
    def lease(self) -> float:
        """Seconds after which a lease ends unless it is renewed."""
        return self._config.lease

    @property
    def timeout(self) -> float:
        """Seconds that one command may take."""
        return self._config.timeout

    @property
    def _key_id(self) -> str:
        """Identifies the last of `store.keys` in the list of members, without revealing it."""
        return self._sealing.name("mark")[:KEY_ID_DIGITS]

    @property
    def _place(self) -> tuple[object, ...]:
        """Where tokens and counts are written; after a change they must be written again."""
        return self._config.server, self._config.namespace, self._config.keys

    @property
    def _member(self) -> str:
        return f"{self.instance}:{self._key_id}"

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
        """Return whether this instance shares the store, with how many others, and why not."""
        shared = self._shares()
        reason = "" if shared else "the others have other `store.keys`" if self.is_up else self._reason
        return StoreStatus(
            str(self._config.server), "shared" if shared else "alone", self.members, self.silence(), reason
        )

    def _shares(self) -> bool:
        return self.is_up and not self._undecryptable and not self._presence.is_alone

    def on_change(self, changed: Callable[[bool], None]) -> Callable[[], None]:
        """Call `changed(True)` when the store is up, `changed(False)` when it is away; return how to stop it."""
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def on_loss(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost` when the store may have lost data: flushed, restarted, failed over, or away for long.

        Returns a function that stops it. When a store comes back, `on_change` calls its listeners, too.
        """
        self._lost.append(lost)
        return lambda: self._lost.remove(lost)

    # ---------------------------------------------------------------------------------------------------- commands

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its answer, in one round trip. Raises StoreAway."""
        return (await self.run_many([(script, keys, args)]))[0]

    async def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one pipeline and return their answers, in order. Raises StoreAway if any of them failed."""
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
        errors = self._errors(calls, answers, log=self.is_up and not beat)
        refusals = [each for each in errors if beat or each.startswith(REFUSALS)]
        if errors:
            self._is_doubted = True
            refused = StoreAway((refusals or errors)[0])
            if refusals:
                await self._wires.close()
                self._failed(sent, refused, beat=beat)
            else:
                self._metrics.failed(now - sent)
            raise refused
        self._metrics.answered(now - sent)
        self._change(lambda: self._health.answered(now, beat=beat))
        return answers

    def _errors(self, calls: Sequence[Call], answers: Sequence[Any], *, log: bool) -> list[str]:
        """Return the reasons of the calls that failed; `log` those that are new."""
        reasons = []
        for (script, _, _), answer in zip(calls, answers, strict=True):
            if not isinstance(answer, ResponseError):
                self._failing.pop(script.name, None)
                continue
            reasons.append(reason_of(answer))
            if log and self._failing.get(script.name) != reasons[-1]:
                self._failing[script.name] = reasons[-1]
                _log.warning("store_command_failed", script=script.name, reason=reasons[-1])
        return reasons

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
            except Exception:  # noqa: BLE001 - a defect; without heartbeats this instance would work alone for ever
                _log.exception("store_heartbeat_crashed")
                await self._clock.sleep(INTERVAL)
            else:
                await self._clock.sleep(INTERVAL)

    async def beat(self) -> None:
        """Send one heartbeat, and learn which instances live. Raises StoreAway."""
        channel = self._subscriber.own_channel if self._subscriber.begin() else ""
        args: list[Argument] = [self._member, int(LIFE * 1000), channel]
        sent = self._clock.monotonic()
        moved, self._moved = self._moved, False
        doubted, self._is_doubted = self._is_doubted or not self.is_up, False
        calls: list[Call] = [(BEAT, [self.key("members")], args)]
        calls += [rights(self._config.namespace)] if doubted else []
        try:
            answer = (await self._send(calls, beat=True))[0]
        except StoreAway:
            self._moved = self._moved or moved
            self._is_doubted = self._is_doubted or doubted
            self._subscriber.beaten(ok=False)
            raise
        strangers = self._presence.strangers
        forgotten = self._presence.learn(answer, sent, self._key_id)
        self._subscriber.beaten(ok=True)
        if self._presence.strangers > strangers:
            _log.warning("store_strangers", strangers=self._presence.strangers, hint=_COMPARE)
        if forgotten and not moved:
            _log.warning(
                "store_lost_data", store=str(self._config.server), hint="what this instance knows is written again"
            )
        if forgotten or moved:
            for lost in list(self._lost):
                lost()

    # ----------------------------------------------------------------------------------------------- names, records

    def key(self, *parts: str) -> str:
        """Return the name of a key or a channel: `gp1:NAMESPACE:PART:…`."""
        return ":".join((f"gp1:{self._config.namespace}", *parts))

    def name(self, *parts: str) -> str:
        """Return 32 hex digits that stand for `parts`; they depend on the last of `store.keys`."""
        return self._sealing.name(*parts)

    def other_names(self, *parts: str) -> list[str]:
        """Return the names of `parts` under the other `store.keys`; empty unless keys are being replaced."""
        return self._sealing.other_names(*parts)

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Encrypt a record so that only `unseal` with the same `bound_to` decrypts it."""
        return self._sealing.seal(plain, bound_to)

    def unseal(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Decrypt a record. Raises Undecryptable, and counts it in the metrics."""
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
        """The channel on which scripts publish the name of what has changed."""
        return self.key("ev")

    def listen(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when what `name` stands for may have changed; return a function that stops it.

        Also calls it when a message may have been missed, and each second while no messages can arrive.
        """
        return self._subscriber.listen(name, changed)

    async def connect(self) -> Any:
        """Open a connection that is not pooled, for the subscriber. Raises StoreAway."""
        return await self._wires.open()
