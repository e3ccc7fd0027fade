"""Hears on a channel of the store which names have news. An accelerator: nothing depends on it.

Every other heartbeat is published to this instance's own channel. If it was not heard when the next one is sent, no
news can be heard, whatever the connection looks like: a new connection is opened, and until it works everybody is told
at each heartbeat that there may be news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import StoreAway
from gateway.store.connection import LOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock
    from gateway.store.connection import Wire

PAUSE = 1.0
"""Seconds between two attempts to subscribe."""
READING = 1.0
"""Seconds of one read; a reconnection is noticed after it."""


class _Home(Protocol):
    """What the subscriber needs of the store."""

    instance: str

    @property
    def channel(self) -> str:
        """The channel of news."""

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted."""

    async def connect(self) -> Wire:
        """Return a connection of its own."""


class Subscriber:
    """Calls those who listen for a name."""

    def __init__(self, home: _Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._heard: dict[str, list[Callable[[], None]]] = {}
        self._unheard = False
        """Whether the last published heartbeat has not come back."""
        self._stale = False
        self._subscribed = False
        self._published = False
        self.is_deaf = True
        """Whether news cannot be heard now."""

    @property
    def own_channel(self) -> str:
        """The channel of this instance's heartbeats."""
        return f"{self._home.channel}:{self._home.instance}"

    def listen(self, name: str, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard` when `name` may have news; return how to stop that."""
        self._heard.setdefault(name, []).append(heard)

        def stop() -> None:
            listeners = self._heard.get(name, [])
            if heard in listeners:
                listeners.remove(heard)
            if not listeners:
                self._heard.pop(name, None)

        return stop

    def reconnect(self) -> None:
        """Subscribe again with a new connection."""
        self.is_deaf = self._stale = True
        self._subscribed = self._unheard = False

    def begin(self) -> bool:
        """Say whether the heartbeat that begins now should be published."""
        if self._unheard:
            self.reconnect()
        self._published = self._subscribed and (self.is_deaf or not self._published)
        self._unheard = self._published
        return self._published

    def beaten(self, *, ok: bool) -> None:
        """A heartbeat has ended; one that failed need not be heard."""
        if not ok:
            self._unheard = False
        elif self.is_deaf:
            self._tell_everybody()

    def _tell_everybody(self) -> None:
        for listeners in list(self._heard.values()):
            for heard in list(listeners):
                heard()

    async def run(self) -> None:
        """Subscribe, and again after each failure, until cancelled."""
        while True:
            if self._home.is_up:
                try:
                    await self._follow(await self._home.connect())
                except (StoreAway, *LOST):
                    pass
                else:
                    continue
            await self._clock.sleep(PAUSE)

    async def _follow(self, wire: Wire) -> None:
        """Take messages until a reconnection is wanted. Raises StoreAway if the subscription is not confirmed."""
        self._stale = False
        try:
            await wire.subscribe(self._home.channel, self.own_channel)
            for _ in range(2):
                if await wire.message(READING) is None:
                    raise StoreAway("the subscription was not confirmed")
            self._subscribed = True
            while not self._stale:
                message = await wire.message(READING)
                if message is not None:
                    self._take(message)
        finally:
            self.reconnect()
            await wire.close()

    def _take(self, message: list[object]) -> None:
        kind, channel, data = message[0], message[1], message[2]
        if kind != b"message" or not isinstance(data, bytes):
            return
        self._unheard = False
        if self.is_deaf:
            self.is_deaf = False
            self._tell_everybody()  # of what was published before the subscription
        if channel == self._home.channel.encode():
            for heard in list(self._heard.get(data.decode("ascii", "replace"), ())):
                heard()
