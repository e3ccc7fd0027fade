"""Which instances live, by heartbeats in a sorted set with the store's time. Pure, but for the scripts' text.

A member without a heartbeat for `LIFE` is gone. The number of members rises at once, and falls when a second heartbeat
confirms it, because limits are divided by it and a store whose clock jumps forgets everybody for a moment.
"""

from __future__ import annotations

from typing import Any

from gateway.store.script import Script

LIFE = 2.5
"""Seconds without a heartbeat after which a member is gone."""

BEAT = Script(
    "beat",
    """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local added = redis.call('ZADD', KEYS[1], now, ARGV[1])
local listed, alive = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), {}
for i = 1, #listed, 2 do
  if math.abs(now - listed[i + 1]) > tonumber(ARGV[2]) then
    redis.call('ZREM', KEYS[1], listed[i])
  else
    alive[#alive + 1] = listed[i]
  end
end
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], 'beat') end
return {t[1], t[2], alive, added}
""",
)
"""KEYS: the members. ARGV: this instance, its life in ms, and its own channel if it wants to hear the heartbeat.

A score in the future is as dead as an old one: the store's clock was turned back."""
LEAVE = Script(
    "leave",
    """
local t = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[2])
return redis.call('ZCARD', KEYS[1])
""",
)
"""KEYS: the members. ARGV: this instance, a member's life in ms. Returns how many are left."""


class Presence:
    """What this instance knows of the others."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self.members = 1
        self.rank = 0
        self.names: tuple[str, ...] = (instance,)
        self._fewer = False
        self._known = False
        self._offset: float | None = None

    def learn(self, answer: list[Any], sent: float) -> bool:
        """Take the answer of `BEAT`, which was sent at the instant `sent`; return whether the store has forgotten us.

        It forgets who has not sent heartbeats for a while, and everybody when it is flushed or an old copy takes over.
        """
        seconds, micros, listed, added = answer
        forgotten, self._known = self._known and bool(added), True
        self._offset = int(seconds) + int(micros) / 1e6 - sent
        names = tuple(sorted({bytes(each).decode() for each in listed} | {self._instance}))
        if len(names) < self.members and not self._fewer:
            self._fewer = True
            return forgotten
        self._fewer = False
        self.names, self.members, self.rank = names, len(names), names.index(self._instance)
        return forgotten

    def wall(self, now: float) -> float | None:
        """Return the store's time at the instant `now`, at most a command too late; None before the first answer."""
        return None if self._offset is None else now + self._offset
