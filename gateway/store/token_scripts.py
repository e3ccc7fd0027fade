"""The scripts by which instances share tokens. The store runs one script at a time, so scripts do not race.

KEYS of each script: the token (hash: `f` fence, `x` end in ms since the epoch, `c` sealed record), the lease (a string:
its owner), the state (hash, see below). Stored times are by the store's clock, in ms.

| state | meaning |
|---|---|
| `f` | highest fence that was given out |
| `d` | tokens with this fence or a lower one are dead: the vendor rejected them, or they were withdrawn |
| `a` | highest fence that the vendor accepted |
| `n`, `r`, `q` | earliest next token request: of any instance · of one without a token · of one with a token |
| `k`, `z` | how the last token request failed · how many failed in a row |
| `bl`, `bt`, `br` | token bucket that limits forced fetches: level, when it was computed, ms per refill |
| `w` | when the state was last written |
| `hu`, `hd` | for tokens that were never accepted: earliest next forced fetch, and ms of the pause after it |
"""

from __future__ import annotations

from gateway.store.script import Script

_HEAD = """
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
local function left_until(at) return at - math.ceil(us / 1000) end
local function num(value) return tonumber(value) or 0 end
local function text(number) return string.format('%.0f', number) end
local function note(...)
  redis.call('HSET', KEYS[3], 'w', text(now), ...)
  redis.call('PEXPIRE', KEYS[3], 172800000)
end
local ahead_by = num(redis.call('HGET', KEYS[3], 'w')) - now
if ahead_by > 1000 then
  for _, field in ipairs({'n', 'r', 'q', 'bt', 'hu'}) do
    local at = redis.call('HGET', KEYS[3], field)
    if at then redis.call('HSET', KEYS[3], field, text(num(at) - ahead_by)) end
  end
  redis.call('HSET', KEYS[3], 'w', text(now))
end
"""
"""Times are rounded so that no reader uses a token longer than its writer. The state expires after two days without a
write. If the store's clock was turned back, all times in the state are moved back, too, so that no instance waits
longer than intended."""

ACQUIRE = Script(
    "acquire",
    _HEAD
    + """
local owner, lease, known, floor, least = ARGV[1], ARGV[2], num(ARGV[3]), num(ARGV[4]), num(ARGV[5])
local interval, ahead, forced = num(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local token = redis.call('HMGET', KEYS[1], 'f', 'x', 'c')
local state = redis.call('HMGET', KEYS[3], 'f', 'd', 'n', 'r', 'q', 'k', 'z')
local stored, dead = num(token[1]), num(state[2])
local remains = left_until(num(token[2]))
if stored > known and stored > dead and remains > least then return {'token', stored, remains, token[3]} end
local held = redis.call('PTTL', KEYS[2])
if held > 0 then return {'held', held} end
local at = num(state[3])
if not forced then
  at = math.max(at, num(state[4]))
  if ahead then at = math.max(at, num(state[5])) end
end
if at > now then return {'wait', at - now, state[6] or ''} end
local fence = math.max(num(state[1]), known, floor, dead, stored, us) + 1
redis.call('SET', KEYS[2], owner, 'PX', lease)
note('f', text(fence), 'n', text(math.max(num(state[3]), now + interval)))
return {'lease', fence, num(state[7]), us}
""",
)
"""ARGV: owner, duration of the lease in ms, highest fence that the instance knows, lower bound of a new fence, shortest
useful lifetime in ms, `min_interval` in ms, whether the instance has a valid token, whether an operator asked.

Returns a newer token, or that another instance has the lease, or how long to wait, or a lease with its fence."""

RENEW = Script(
    "renew",
    """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
""",
)
"""ARGV: owner, duration of the lease in ms. Returns 0 if the lease has ended."""

COMMIT = Script(
    "commit",
    _HEAD
    + """
local owner, fence, sealed, left, again = ARGV[1], num(ARGV[2]), ARGV[3], num(ARGV[4]), num(ARGV[5])
local ends = math.min(now + left, math.max(now + left - num(ARGV[6]), num(ARGV[7])))
if owner ~= '' and redis.call('GET', KEYS[2]) == owner then redis.call('DEL', KEYS[2]) end
local token = redis.call('HMGET', KEYS[1], 'f', 'x')
local stored, dead = num(token[1]), num(redis.call('HGET', KEYS[3], 'd'))
if fence <= dead or fence < stored then return {stored, dead} end
if ends <= now then
  note('r', text(now + again))
  return {stored, dead}
end
if fence > stored then
  redis.call('HSET', KEYS[1], 'f', text(fence), 'x', text(ends), 'c', sealed)
  redis.call('PEXPIRE', KEYS[1], text(ends - now))
end
note('f', text(math.max(fence, num(redis.call('HGET', KEYS[3], 'f')))), 'q', text(now + again))
redis.call('HDEL', KEYS[3], 'r', 'k', 'z')
redis.call('PUBLISH', ARGV[8], ARGV[9])
return {fence, dead}
""",
)
"""ARGV: owner or nothing, fence, record, remaining lifetime in ms when this was sent, ms until instances with this
token may request the next one, a command's time-out in ms, the writer's estimate of the token's end (never too late; ms
by the store's clock), channel, name. Returns the stored fence, and the highest dead one.

The stored end is the estimate, but not later than the remaining lifetime says, and at most one time-out earlier,
because the store's clock may have jumped since. If the fence is the stored one, the vendor returned the same token, and
only the state changes. A token that expires too soon to be shared is not stored, but instances without a token wait as
long before the next request."""

FAIL = Script(
    "fail",
    _HEAD
    + """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[2] ~= '' then
  local n = num(redis.call('HGET', KEYS[3], 'n'))
  note('n', text(math.max(n, now + num(ARGV[3]))), 'r', text(now + num(ARGV[4])), 'q', text(now + num(ARGV[5])),
    'k', ARGV[2])
  redis.call('HINCRBY', KEYS[3], 'z', 1)
end
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
""",
)
"""ARGV: owner, how the request failed or nothing, ms until the next request (of any instance, of one without a token,
of one with a token), channel, name. Returns 0 if the lease had ended."""

KILL = Script(
    "kill",
    _HEAD
    + """
local fence, accepted, longest = num(ARGV[1]), ARGV[2] == '1', num(ARGV[3])
local size, refill, hold, most = num(ARGV[4]), num(ARGV[5]), num(ARGV[6]), num(ARGV[7])
local state = redis.call('HMGET', KEYS[3], 'd', 'a', 'n', 'r', 'bl', 'bt', 'br', 'hu', 'hd')
local stored = num(redis.call('HGET', KEYS[1], 'f'))
if stored > fence or num(state[1]) >= fence then return 1 end
if redis.call('PTTL', KEYS[2]) <= 0 then
  if math.max(num(state[3]), num(state[4])) - now > longest then return 0 end
  if accepted or num(state[2]) >= fence then
    local level, per = size, refill
    if state[5] then
      per = num(state[7])
      level = num(state[5]) + (now - num(state[6])) / per
      if level >= size then level, per = size, refill end
    end
    local enough = level >= 1
    if enough then
      level = level - 1
      if level < 1 then per = math.min(per * 2, most) end
    end
    note('bl', string.format('%.6f', level), 'bt', text(now), 'br', text(per))
    if not enough then return 0 end
  else
    if num(state[8]) > now then return 0 end
    local pause = state[9] and num(state[9]) or hold
    note('hu', text(now + pause), 'hd', text(math.min(pause * 2, most)))
  end
end
if stored == fence then redis.call('DEL', KEYS[1]) end
if stored == 0 or stored == fence then note('d', text(fence)) end
redis.call('HDEL', KEYS[3], 'q')
redis.call('PUBLISH', ARGV[8], ARGV[9])
return 1
""",
)
"""ARGV: fence, whether the vendor had accepted the token, longest useful wait in ms, the bucket's size, ms per refill,
ms of the first and of the longest pause, channel, name. Returns 0 if the token must stay in use.

While an instance has the lease, the next token is already being requested, so nothing is taken from the bucket."""

ACCEPT = Script(
    "accept",
    _HEAD
    + """
if num(ARGV[1]) <= num(redis.call('HGET', KEYS[3], 'a')) then return 0 end
note('a', ARGV[1], 'hd', ARGV[2], 'hu', '0')
return 1
""",
)
"""ARGV: fence, ms of the first pause. Returns 0 if a fence at least as high was accepted before."""

WITHDRAW = Script(
    "withdraw",
    _HEAD
    + """
local stored = num(redis.call('HGET', KEYS[1], 'f'))
if stored > num(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
note('d', text(math.max(num(ARGV[1]), num(redis.call('HGET', KEYS[3], 'd')))))
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
""",
)
"""ARGV: fence, channel, name. Returns 0 if a newer token is stored."""

READ = Script(
    "read",
    _HEAD
    + """
local token = redis.call('HMGET', KEYS[1], 'f', 'x')
local stored, dead = num(token[1]), num(redis.call('HGET', KEYS[3], 'd'))
if stored <= num(ARGV[1]) or stored <= dead then return {stored, dead, us} end
return {stored, dead, us, left_until(num(token[2])), redis.call('HGET', KEYS[1], 'c')}
""",
)
"""ARGV: the highest fence that the instance knows. Returns the stored and the highest dead fence and the store's time
in microseconds; with a newer token that is not dead, also its remaining ms and its record."""
