"""Subscribes to the store's channel, and calls the listeners of each name that is published there.

Messages only make changes known sooner: without them, everything is read again every few seconds.

Every other heartbeat is also published to this instance's own channel. If that message has not arrived when the next
heartbeat is sent, the subscription does not work, whatever the connection looks like. Then a new connection is opened,
and until messages arrive again, all listeners are called at each heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from redis.exceptions import ResponseError

from gateway.errors import StoreAway
from gateway.observe import get_logger
from gateway.store.connection import LOST, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock
    from gateway.store.connection import Wire

_log = get_logger("gatepass.store")
PAUSE = 1.0
"""Seconds between two attempts to subscribe."""
READING = 1.0
"""Seconds that one read waits for a message; a wanted reconnection is noticed only after that."""


class _Home(Protocol):
    """The methods of `SharedStore` that the subscriber needs."""

    instance: str

    @property
    def channel(self) -> str:
        """The channel of all instances."""

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted."""

    async def connect(self) -> Wire:
        """Open a connection that is not pooled. Raises StoreAway."""


class Subscriber:
    """Calls the listeners of a name when a message with that name arrives."""

    def __init__(self, home: _Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._is_awaited = False
        """Whether the last published heartbeat has not arrived yet."""
        self._stale = False
        """Whether the present connection is to be replaced."""
        self._subscribed = False
        self._published = False
        """Whether the last heartbeat was published."""
        self.is_cut_off = True
        """Whether messages cannot arrive now."""
        self._refusal = ""
        """Why the server refused the last subscription; empty if it did not."""

    @property
    def own_channel(self) -> str:
        """The channel of this instance's heartbeats."""
        return f"{self._home.channel}:{self._home.instance}"

    def listen(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when what `name` stands for may have changed; return a function that stops it."""
        self._listeners.setdefault(name, []).append(changed)

        def stop() -> None:
            listeners = self._listeners.get(name, [])
            if changed in listeners:
                listeners.remove(changed)
            if not listeners:
                self._listeners.pop(name, None)

        return stop

    def reconnect(self) -> None:
        """Subscribe again with a new connection."""
        self.is_cut_off = self._stale = True
        self._subscribed = self._is_awaited = False

    def begin(self) -> bool:
        """Return whether the heartbeat that is sent now should be published to `own_channel`."""
        if self._is_awaited:
            self.reconnect()
        self._published = self._subscribed and (self.is_cut_off or not self._published)
        self._is_awaited = self._published
        return self._published

    def beaten(self, *, ok: bool) -> None:
        """Note that a heartbeat has ended; the message of one that failed is not awaited."""
        if not ok:
            self._is_awaited = False
        elif self.is_cut_off:
            self._call_all()

    def _call_all(self) -> None:
        for listeners in list(self._listeners.values()):
            for changed in list(listeners):
                changed()

    async def run(self) -> None:
        """Subscribe, and subscribe again after each failure, until cancelled."""
        while True:
            if self._home.is_up:
                try:
                    await self._follow(await self._home.connect())
                except ResponseError as error:
                    self._log_refusal(reason_of(error))
                except (StoreAway, *LOST):
                    pass
                else:
                    continue
            await self._clock.sleep(PAUSE)

    async def _follow(self, wire: Wire) -> None:
        """Handle messages until a reconnection is wanted. Raises StoreAway if the subscription is not confirmed."""
        self._stale = False
        try:
            await wire.subscribe(self._home.channel, self.own_channel)
            for _ in range(2):
                if await wire.message(READING) is None:
                    raise StoreAway("the subscription was not confirmed")
            self._subscribed, self._refusal = True, ""
            while not self._stale:
                message = await wire.message(READING)
                if message is not None:
                    self._take(message)
        finally:
            self.reconnect()
            await wire.close()

    def _log_refusal(self, reason: str) -> None:
        if reason != self._refusal:
            self._refusal = reason
            _log.warning("store_not_subscribed", reason=reason, hint="changes are noticed within 4 s")

    def _take(self, message: list[object]) -> None:
        kind, channel, data = message[0], message[1], message[2]
        if kind != b"message" or not isinstance(data, bytes):
            return
        self._is_awaited = False
        if self.is_cut_off:
            self.is_cut_off = False
            self._call_all()  # what was published before the subscription was missed
        if channel == self._home.channel.encode():
            for changed in list(self._listeners.get(data.decode("ascii", "replace"), ())):
                changed()
