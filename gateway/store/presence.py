"""Which instances live, by heartbeats in a sorted set with the store's time. Pure, but for the scripts' text.

A member without a heartbeat for `LIFE` is gone. The number of members rises at once, and falls when a second heartbeat
confirms it, because limits are divided by it and a store whose clock jumps forgets everybody for a moment.

A member is written as `INSTANCE:MARK`. The mark stands for the last of `store.keys`: members with different marks give
different names to the same things, so they share nothing, and nothing else would tell.
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
        self.strangers = 0
        """Members with another mark."""
        self._fewer = False
        self._known = False
        self._offset: float | None = None

    @property
    def is_alone(self) -> bool:
        """Whether there are other members, and all of them are strangers."""
        return 0 < self.strangers == self.members - 1

    def learn(self, answer: list[Any], sent: float, mark: str = "") -> bool:
        """Take the answer of `BEAT`, which was sent at the instant `sent`; return whether the store has forgotten us.

        It forgets who has not sent heartbeats for a while, and everybody when it is flushed or an old copy takes over.
        """
        seconds, micros, listed, added = answer
        forgotten, self._known = self._known and bool(added), True
        self._offset = int(seconds) + int(micros) / 1e6 - sent
        marks: dict[str, set[str]] = {self._instance: {mark}}
        for each in listed:
            name, _, its = bytes(each).decode("ascii", "replace").partition(":")
            marks.setdefault(name, set()).add(its)  # two for a moment, when its keys were replaced
        names = tuple(sorted(marks))
        if len(names) < self.members and not self._fewer:
            self._fewer = True
            return forgotten
        self._fewer = False
        self.names, self.members, self.rank = names, len(names), names.index(self._instance)
        self.strangers = sum(mark not in its for its in marks.values())
        return forgotten

    def wall(self, now: float) -> float | None:
        """Return the store's time at the instant `now`, at most a command too late; None before the first answer."""
        return None if self._offset is None else now + self._offset
