"""Memory of a long-running process: when garbage is collected and when free memory is returned to the system.

Both happen once a minute, outside of requests.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

TIDY_EVERY = 60.0
"""Seconds between two full collections."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PIECE = 2**20
"""Size from which a block is mapped separately: larger than any piece of a body."""
_KEPT_FREE = 2**27
"""Free bytes at the end of the heap that are kept for a minute: more than all replay buffers hold by default."""


def tune_collector() -> None:
    """Set the collector's thresholds; call once everything permanent has been created.

    Permanent objects are not visited again. A request creates dozens of objects and no cycles, and the default
    threshold would cost 5 to 8 % of its CPU. Connections and cancelled exchanges are cycles. Those that lived long are
    in the oldest generation, which is collected after 250,000 new objects, about 50 MiB at most.
    """
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)
    gc.enable()


def tune_allocator() -> None:
    """Keep free memory for the next large pieces of bodies (mallopt(3); does nothing without glibc).

    By default glibc returns the end of its heap to the system whenever half a megabyte of it is free. The kernel would
    then map, clear and unmap every piece of a body, which costs a third of a download's CPU. The limit also covers the
    bodies of concurrent uploads, which are kept for a replay and freed together.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _PIECE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)


async def tidy() -> None:
    """Collect all garbage and return free memory to the system, once a minute.

    If exchanges are seldom cancelled, the thresholds alone would leave their garbage in memory for half an hour. Takes
    11 ms with 10,000 open connections, plus up to 5 ms for returning 40 MiB.
    """
    while True:
        await asyncio.sleep(TIDY_EVERY)
        gc.collect()
        _give_back()


def _give_back() -> None:
    """Return free memory to the system (malloc_trim(3); does nothing without glibc)."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim(0)
