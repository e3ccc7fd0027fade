"""Which instances live: a sorted set in the store has the time of each one's last heartbeat. Pure: no I/O.

A member without a heartbeat for `LIFE` is gone. The number of members rises at once, and falls only when a second
heartbeat confirms it: limits are divided by it, and a store whose clock jumps forgets all members for a moment.

A member is written as `INSTANCE:KEYID`. The key id identifies the last of `store.keys`. Members with another key id
(*strangers*) give other names to the same things, so nothing is shared with them, and only the key id shows that.
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
"""KEYS: the members. ARGV: this member, `LIFE` in ms, and the channel on which to publish the heartbeat, or nothing.
Returns the store's time (seconds, microseconds), the live members, and 1 if this member was not in the list.

A member whose score is too far in the future is removed, too: the store's clock was turned back."""
LEAVE = Script(
    "leave",
    """
local t = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[2])
return redis.call('ZCARD', KEYS[1])
""",
)
"""KEYS: the members. ARGV: this member, `LIFE` in ms. Returns how many members are left."""


class Presence:
    """The live members, as this instance knows them."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self.members = 1
        self.rank = 0
        self.names: tuple[str, ...] = (instance,)
        self.strangers = 0
        """Members with another key id."""
        self._fewer = False
        self._known = False
        self._offset: float | None = None

    @property
    def is_alone(self) -> bool:
        """Whether there are other members and all of them are strangers."""
        return 0 < self.strangers == self.members - 1

    def learn(self, answer: list[Any], sent: float, key_id: str = "") -> bool:
        """Take an answer of `BEAT`; return whether the store had forgotten this instance.

        The store forgets a member that sends no heartbeats, and all members when it is flushed or when a replica
        without them becomes master.

        Args:
            answer: what `BEAT` returned.
            sent: monotonic instant at which it was sent.
            key_id: this instance's key id.
        """
        seconds, micros, listed, added = answer
        forgotten, self._known = self._known and bool(added), True
        self._offset = int(seconds) + int(micros) / 1e6 - sent
        key_ids: dict[str, set[str]] = {self._instance: {key_id}}
        for each in listed:
            name, _, its = bytes(each).decode("ascii", "replace").partition(":")
            key_ids.setdefault(name, set()).add(its)  # two for a moment, after its keys were replaced
        names = tuple(sorted(key_ids))
        if len(names) < self.members and not self._fewer:
            self._fewer = True
            return forgotten
        self._fewer = False
        self.names, self.members, self.rank = names, len(names), names.index(self._instance)
        self.strangers = sum(key_id not in its for its in key_ids.values())
        return forgotten

    def wall(self, now: float) -> float | None:
        """Return the store's time at `now`, ahead by at most one command's duration; None before the first answer."""
        return None if self._offset is None else now + self._offset
