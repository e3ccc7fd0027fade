"""The scripts by which instances share tokens. Each runs alone in the store, so none of them races with another.

KEYS of each script: the token (hash: `f` fence, `x` end in ms, `c` sealed record), the lease (its owner), the state
(hash, below). All times are of the store's clock; only durations are passed in and out.

| state | what |
|---|---|
| `f` | last fence given out |
| `d` | fences up to this one are dead |
| `a` | last fence that a vendor accepted |
| `n`, `r`, `q` | next token request: whatever its cause · for an instance without a token · for one with a token |
| `k`, `z` | how the last token request failed · how many failed in a row |
| `bl`, `bt`, `br` | bucket of forced fetches: level, when it was counted, ms per refill |
| `w` | when this was written |
| `hu`, `hd` | forced fetches for tokens that were never accepted: none before, and how long the next pause is |
"""

from __future__ import annotations

from gateway.store.script import Script

_HEAD = """
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
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
"""A state is forgotten after two days: no token lives longer than one. If the store's clock was turned back, all
instants of the state are, too, so that nobody waits for longer than was meant."""

ACQUIRE = Script(
    "acquire",
    _HEAD
    + """
local owner, lease, known, floor, least = ARGV[1], ARGV[2], num(ARGV[3]), num(ARGV[4]), num(ARGV[5])
local interval, ahead, forced = num(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local token = redis.call('HMGET', KEYS[1], 'f', 'x', 'c')
local state = redis.call('HMGET', KEYS[3], 'f', 'd', 'n', 'r', 'q', 'k', 'z')
local stored, dead = num(token[1]), num(state[2])
if stored > known and stored > dead and num(token[2]) - now > least then
  return {'token', stored, num(token[2]) - now, token[3]}
end
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
"""ARGV: owner, its lease in ms, known fence, lower bound of the new one, shortest useful lifetime in ms,
`min_interval` in ms, whether a valid token is held, whether an operator asked."""

RENEW = Script(
    "renew",
    """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
""",
)
"""ARGV: owner, lease in ms."""

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
token may ask again, ms of a command's time-out, the token's end in ms by the store's clock as the writer estimates it
(never too late), channel, name.

The end is the estimate, within one time-out of what the remaining lifetime says, because the clock may have jumped
since. With the fence that is stored, only the state changes: the vendor returned the same token. A token that lives too
shortly to be shared is not stored, but nobody asks for the next one before its end."""

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
"""ARGV: owner, how the request failed or nothing, ms until the next request (of any, without a token, with one),
channel, name."""

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
"""ARGV: fence, whether the vendor had accepted it, longest useful wait in ms, the bucket's size, ms per refill, ms of
the first pause and of the longest one, channel, name. While a lease is held, a token is on its way already, and
nothing is taken from the bucket."""

ACCEPT = Script(
    "accept",
    _HEAD
    + """
if num(ARGV[1]) <= num(redis.call('HGET', KEYS[3], 'a')) then return 0 end
note('a', ARGV[1], 'hd', ARGV[2], 'hu', '0')
return 1
""",
)
"""ARGV: fence, ms of the first pause."""

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
"""ARGV: fence, channel, name."""

READ = Script(
    "read",
    _HEAD
    + """
local token = redis.call('HMGET', KEYS[1], 'f', 'x')
local stored, dead = num(token[1]), num(redis.call('HGET', KEYS[3], 'd'))
if stored <= num(ARGV[1]) or stored <= dead then return {stored, dead, us} end
return {stored, dead, us, num(token[2]) - now, redis.call('HGET', KEYS[1], 'c')}
""",
)
"""ARGV: known fence. The record is returned only above it."""
