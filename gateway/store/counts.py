"""Counts of all instances together: budgets as escrow, and the usage of each day. Implements `model.Tally`.

Each budget and period is one hash. It has a field for each instance with the *absolute* number of calls that were
granted to the instance, so a request that arrives twice or late changes nothing. No field ever falls. The sum of the
fields is at most the hard limit as long as the store keeps its data. The hash of a day holds calls by client and route,
unencrypted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.model import EscrowReply, Field
from gateway.store.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.model import EscrowRequest
    from gateway.store.client import SharedStore
    from gateway.store.connection import Call

ESCROW: Final = Script(
    "escrow",
    """
local key, me, calls, used, known = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local want, hard, back = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[9] == '1'
local function raise(field, value)
  local old = tonumber(redis.call('HGET', key, field) or '0')
  if value <= old then return old end
  redis.call('HSET', key, field, string.format('%.0f', value))
  return value
end
local before = redis.call('HGETALL', key)
local own = tonumber(redis.call('HGET', key, 'g' .. me) or '0')
for i = 12, #ARGV, 3 do
  raise('g' .. ARGV[i], tonumber(ARGV[i + 1]))
  raise('u' .. ARGV[i], tonumber(ARGV[i + 2]))
end
if back or own >= known then
  local granted = math.max(known, calls)
  if want > 0 and hard >= 0 then
    local others, all = 0, redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 1) == 'g' and all[i] ~= 'g' .. me then others = others + tonumber(all[i + 1]) end
    end
    granted = math.max(granted, math.min(calls + want, hard - others))
  end
  own = raise('g' .. me, granted)
end
raise('u' .. me, used)
if ARGV[8] == '1' then redis.call('HSET', key, 'w', '1') end
redis.call('PEXPIRE', key, ARGV[7])
if back then redis.call('PUBLISH', ARGV[10], ARGV[11]) end
return {string.format('%.0f', own), before}
""",
)
"""KEYS: the hash of a budget and period. ARGV: own field, calls, used, granted as known here, want, hard (-1: none),
lifetime in ms, whether the soft limit was logged, whether other instances' fields follow to be written back, the
channel, the message for it; then field, granted and used of each instance. Returns our own grant, and the hash as it
was before."""

REPORT: Final = Script(
    "report",
    """
for i = 2, #ARGV, 2 do
  local old = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if tonumber(ARGV[i + 1]) > old then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
""",
)
"""KEYS: the hash of a day. ARGV: its lifetime in ms; then fields and their numbers, which never fall."""

MERGE: Final = Script(
    "merge",
    """
local from, to = redis.call('HGETALL', KEYS[1]), {}
if #from == 0 then return 0 end
local there = redis.call('HGETALL', KEYS[2])
for i = 1, #there, 2 do to[there[i]] = tonumber(there[i + 1]) end
for i = 1, #from, 2 do
  if tonumber(from[i + 1]) > (to[from[i]] or 0) then redis.call('HSET', KEYS[2], from[i], from[i + 1]) end
end
local life = redis.call('PTTL', KEYS[1])
if life > redis.call('PTTL', KEYS[2]) then redis.call('PEXPIRE', KEYS[2], life) end
return 1
""",
)
"""KEYS: two hashes. Raises the numbers of the second one to those of the first one."""

DAY: Final = Script("day", "return redis.call('HGETALL', KEYS[1])")
"""KEYS: the hash of a day."""
SEPARATOR: Final = "\x1f"
NEWS: Final = "counts"
"""The name that stands for all counts on the channel."""


class StoreTally:
    """The counts of all instances in the store, as `model.Tally`."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.instance = store.instance
        self._checks: list[Callable[[], None]] = []
        self._news = ""
        """The name of our messages on the channel; it depends on `store.keys`."""
        self._stop_listening: Callable[[], None] = _nothing
        store.on_change(self._changed)
        store.on_loss(self._doubt)

    @property
    def is_up(self) -> bool:
        """Whether the store is trusted now."""
        return self._store.is_up

    @property
    def part(self) -> tuple[int, int]:
        """The place of this instance among the live ones, from 0, and how many there are."""
        return self._store.rank, self._store.members

    async def tried(self) -> None:
        """Wait until the first attempt to reach the store has succeeded or failed."""
        await self._store.tried.wait()

    async def ask(self, questions: Sequence[EscrowRequest]) -> list[EscrowReply]:
        """Request grants for several budgets in one round trip; return a reply for each. Raises StoreAway."""
        self._listen()
        calls: list[Call] = []
        places = []
        for each in questions:
            into, out = self._merges("budget", *each.key)
            places.append(len(calls) + len(into))
            calls += [*into, (ESCROW, [self._key("budget", *each.key)], self._arguments(each)), *out]
        answers = await self._store.run_many(calls)
        return [_answer(answers[place], each.field) for place, each in zip(places, questions, strict=True)]

    def _arguments(self, question: EscrowRequest) -> list[str | int]:
        found: list[str | int] = [
            question.field,
            question.calls,
            question.mine.used,
            question.mine.granted,
            question.want,
            -1 if question.hard is None else question.hard,
            max(1, int(question.life * 1000)),
            int(question.warned),
            int(question.back is not None),
            self._store.channel,
            self._news,
        ]
        for name, field in (question.back or {}).items():
            found += (name, field.granted, field.used)
        return found

    async def report(self, day: str, field: str, used: Mapping[tuple[str, str], tuple[int, int]], life: float) -> None:
        """Store how often this instance was used on a day. Raises StoreAway.

        Args:
            day: as `2026-11-29`.
            field: this instance's field.
            used: calls and billed calls by client and route, counted from the beginning of the day.
            life: seconds for which the store keeps the day.
        """
        arguments: list[str | int] = [max(1, int(life * 1000))]
        for (client, route), (calls, billed) in used.items():
            arguments += (SEPARATOR.join((field, client, route, "calls")), calls)
            arguments += (SEPARATOR.join((field, client, route, "billed")), billed)
        into, out = self._merges("usage", day)
        await self._store.run_many([*into, (REPORT, [self._key("usage", day)], arguments), *out])

    async def carry_over(self, days: Iterable[str]) -> None:
        """While `store.keys` are being replaced, give each day's usage the same numbers under every key's name.

        Raises StoreAway.
        """
        for day in days:
            into, out = self._merges("usage", day)
            if into:
                await self._store.run_many([*into, *out])

    async def usage(self, days: Sequence[str], field: str) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Return calls and billed calls by client, route and day, of all instances but `field`. Raises StoreAway."""
        answers = await self._store.run_many([(DAY, [self._key("usage", day)], ()) for day in days])
        found: dict[tuple[str, str, str], tuple[int, int]] = {}
        for day, answer in zip(days, answers, strict=True):
            for name, number in _pairs(answer):
                whose, client, route, kind = name.split(SEPARATOR)
                if whose != field:
                    calls, billed = found.get((client, route, day), (0, 0))
                    more = int(number)
                    found[client, route, day] = (calls + more, billed) if kind == "calls" else (calls, billed + more)
        return found

    def on_doubt(self, check: Callable[[], None]) -> Callable[[], None]:
        """Call `check` when the store may have lost counts; return a function that stops it.

        That is: when it is up again or lost data, or when another instance wrote counts back.
        """
        self._checks.append(check)
        self._listen()
        return lambda: self._checks.remove(check)

    def _listen(self) -> None:
        """Listen on the channel; listen again if a reload has changed the name."""
        news = self._store.name(NEWS)
        if news != self._news:
            self._stop_listening()
            self._news, self._stop_listening = news, self._store.listen(news, self._doubt)

    def _changed(self, up: bool) -> None:
        if up:
            self._doubt()

    def _doubt(self) -> None:
        for check in list(self._checks):
            check()

    def _key(self, kind: str, *parts: str) -> str:
        return self._keyed(kind, self._store.name(kind, *parts))

    def _keyed(self, kind: str, name: str) -> str:
        return self._store.key("{" + name + "}", kind[0])

    def _merges(self, kind: str, *parts: str) -> tuple[list[Call], list[Call]]:
        """Return calls that raise the numbers under our name to those under other keys' names, and the reverse.

        Both are empty unless `store.keys` are being replaced. Without them an instance that starts with the new key
        alone would find no counts.
        """
        own = self._key(kind, *parts)
        others = [self._keyed(kind, name) for name in self._store.other_names(kind, *parts)]
        return [(MERGE, [each, own], ()) for each in others], [(MERGE, [own, each], ()) for each in others]


def _nothing() -> None:
    """Do nothing: no listener is registered yet."""


def _pairs(flat: Sequence[Any]) -> list[tuple[str, bytes]]:
    return [(bytes(flat[at]).decode("utf-8", "surrogateescape"), bytes(flat[at + 1])) for at in range(0, len(flat), 2)]


def _answer(answer: Sequence[Any], field: str) -> EscrowReply:
    granted: dict[str, int] = {}
    used: dict[str, int] = {}
    warned = False
    for name, number in _pairs(answer[1]):
        if name == "w":
            warned = True
        else:
            (granted if name[0] == "g" else used)[name[1:]] = int(number)
    fields = {name: Field(granted.get(name, 0), used.get(name, 0)) for name in granted.keys() | used.keys()}
    return EscrowReply(int(answer[0]), granted.get(field, 0), fields, warned)
