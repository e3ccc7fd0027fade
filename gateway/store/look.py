"""Examines the store for `gatepass check`: engine, latency, members, and whether our keys decrypt its records.

Does not join the members. It writes, reads and deletes one key, because only a write shows that a server is full or
read-only, and tries every right that a gateway needs.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from gateway.errors import StoreAway, Undecryptable
from gateway.resolver import Resolver
from gateway.store.connection import LOST, reason_of
from gateway.store.presence import LIFE
from gateway.store.rights import rights
from gateway.store.script import Script
from gateway.store.sealing import Sealing
from gateway.store.wires import Wires

if TYPE_CHECKING:
    from gateway.model import StoreConfig
    from gateway.store.connection import Argument, Wire

WITHIN = 10.0
"""Seconds for everything."""
TIMES = 5
"""Probes, of which the median latency is taken."""
MOST_SCANS = 200
BATCH = 500
"""Keys that one SCAN looks at."""

PROBE = Script(
    "probe",
    """
redis.call('SET', KEYS[1], 'x', 'PX', 1000)
local kept = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local listed, alive = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), 0
for i = 2, #listed, 2 do
  if math.abs(now - listed[i]) <= tonumber(ARGV[1]) then alive = alive + 1 end
end
return {kept, alive}
""",
)
"""KEYS: a key to write, the members. ARGV: ms without a heartbeat after which a member is gone."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What `look` found."""

    engine: str
    """`Valkey 9.1.2`; `a server` if its user may not ask."""
    latency: float
    """Seconds of a script that reads and writes: the median of a few."""
    members: int
    records: int
    undecryptable: int
    complete: bool
    """Whether all records were examined."""


async def look(config: StoreConfig) -> Findings:
    """Connect to the store of a configuration, and return what was found. Raises StoreAway."""
    wire: Wire | None = None
    try:
        async with asyncio.timeout(WITHIN):
            wire = await Wires(config, Resolver()).open()
            engine = await _engine(wire)
            latency, members = await _probe(wire, config)
            records, undecryptable, complete = await _records(wire, config)
            await wire.subscribe(f"gp1:{config.namespace}:ev:check")  # last: it allows no other command afterwards
            await wire.message(config.timeout)
    except LOST as error:
        raise StoreAway(reason_of(error)) from error
    finally:
        if wire is not None:
            await wire.close()
    return Findings(engine, latency, members, records, undecryptable, complete)


async def _engine(wire: Wire) -> str:
    try:
        text = bytes(await wire.command("INFO", "server")).decode("utf-8", "replace")
    except ResponseError:
        return "a server"  # its user may not ask
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of an unknown version')}"


async def _probe(wire: Wire, config: StoreConfig) -> tuple[float, int]:
    """Return the latency in seconds, and how many members live."""
    prefix = f"gp1:{config.namespace}"
    keys = [f"{prefix}:check", f"{prefix}:members"]
    args: list[Argument] = [int(LIFE * 1000)]
    (tried,) = await wire.calls([rights(config.namespace)])
    if isinstance(tried, ResponseError):
        raise tried
    taken = []
    members = 0
    for _ in range(TIMES):
        began = time.perf_counter()
        (answer,) = await wire.calls([(PROBE, keys, args)])
        taken.append(time.perf_counter() - began)
        if isinstance(answer, ResponseError):
            raise answer
        members = int(answer[1])
    return median(taken), members


async def _records(wire: Wire, config: StoreConfig) -> tuple[int, int, bool]:
    """Return how many tokens are stored, how many of them no key decrypts, and whether all were examined."""
    sealing = Sealing(config.keys, config.namespace)
    records = undecryptable = 0
    cursor: Any = 0
    for _ in range(MOST_SCANS):
        try:
            cursor, found = await wire.command(
                "SCAN", cursor, "MATCH", f"gp1:{config.namespace}:{{*}}:t", "COUNT", BATCH
            )
        except ResponseError:
            return records, undecryptable, False  # its user may not scan
        for key in found:
            fence, sealed = await wire.command("HMGET", key, "f", "c")
            if fence is not None and sealed is not None:
                records += 1
                undecryptable += not _opens(sealing, bytes(key), bytes(fence), bytes(sealed))
        if not int(cursor):
            return records, undecryptable, True
    return records, undecryptable, False


def _opens(sealing: Sealing, key: bytes, fence: bytes, sealed: bytes) -> bool:
    name = key[key.index(b"{") + 1 : key.rindex(b"}")]
    try:
        sealing.unseal(sealed, name + b"|" + fence)
    except Undecryptable:
        return False
    return True
