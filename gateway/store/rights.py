"""A script that runs every command which our other scripts run, so that a right which is missing shows at once.

Without it a server whose ACL lacks one command would count as up, because heartbeats succeed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.script import Script

if TYPE_CHECKING:
    from gateway.store.connection import Call

RIGHTS = Script(
    "rights",
    """
local key = KEYS[1]
redis.call('TIME')
redis.call('DEL', key)
redis.call('HSET', key, 'a', '1')
redis.call('PEXPIRE', key, 1000)
redis.call('PTTL', key)
redis.call('HINCRBY', key, 'a', 1)
redis.call('HGET', key, 'a')
redis.call('HMGET', key, 'a')
redis.call('HGETALL', key)
redis.call('HDEL', key, 'a')
redis.call('SET', key, 'a', 'PX', 1000)
redis.call('GET', key)
redis.call('DEL', key)
redis.call('ZADD', key, 1, 'a')
redis.call('ZCARD', key)
redis.call('ZRANGE', key, 0, -1)
redis.call('ZREM', key, 'a')
redis.call('ZREMRANGEBYSCORE', key, '-inf', 0)
redis.call('PUBLISH', ARGV[1], 'probe')
return 1
""",
)
"""KEYS: a key that nothing else uses; it does not exist afterwards. ARGV: a channel."""


def rights(namespace: str) -> Call:
    """Return the call of `RIGHTS` in a namespace."""
    prefix = f"gp1:{namespace}"
    return RIGHTS, [f"{prefix}:check"], [f"{prefix}:ev:check"]
