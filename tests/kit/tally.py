"""Counts in a real store without heartbeats, for tests that decide themselves when it answers."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from gateway.errors import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store import Script

Call = tuple["Script", "Sequence[str]", "Sequence[bytes | str | int]"]


class DirectStore:
    """What `StoreTally` needs of a `SharedStore`: one connection to a port of loopback.

    `is_up` and the members are what the test says. `sent` has every call, so that a test can send one again, late.
    """

    def __init__(self, instance: str, port: int, namespace: str) -> None:
        self.instance = instance
        self.is_up = True
        self.rank, self.members = 0, 1
        self.tried = asyncio.Event()
        self.tried.set()
        self.sent: list[Call] = []
        self.channel = "news"
        self.keys = ["key"]
        """As `store.keys`: the last one makes the names."""
        self._namespace = namespace
        self._connection = Connection(host="127.0.0.1", port=port, protocol=2, driver_info=None, socket_timeout=30)
        self._one = asyncio.Lock()
        self._changed: list[Callable[[bool], None]] = []
        self.listeners: list[Callable[[], None]] = []

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:
        return (await self.run_many([(script, keys, args)]))[0]

    async def run_many(self, calls: Sequence[Call]) -> list[Any]:
        if not self.is_up:
            raise StoreAway("away")
        self.sent += calls
        return [await self.repeat(each) for each in calls]

    async def repeat(self, call: Call) -> Any:
        """Send a call, again perhaps."""
        script, keys, args = call
        async with self._one:
            try:
                await self._connection.send_command("EVAL", script.text, len(keys), *keys, *args)
                return await self._connection.read_response()
            except RedisError as error:
                raise StoreAway(str(error)) from error

    def key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def name(self, *parts: str) -> str:
        return _name(self.keys[-1], parts)

    def other_names(self, *parts: str) -> list[str]:
        return [_name(key, parts) for key in self.keys[:-1]]

    def listen(self, _name: str, changed: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(changed)
        return lambda: self.listeners.remove(changed)

    def on_change(self, changed: Callable[[bool], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def on_loss(self, forgot: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(forgot)
        return lambda: self.listeners.remove(forgot)

    def come_back(self, up: bool = True) -> None:
        """Be up, or away."""
        self.is_up = up
        for changed in self._changed:
            changed(up)

    async def close(self) -> None:
        await self._connection.disconnect()


def _name(key: str, parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join((key, *parts)).encode()).hexdigest()[:32]
