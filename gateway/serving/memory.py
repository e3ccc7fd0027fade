"""What a process that runs for years does with its memory: when garbage is looked for, when free memory is given back.

Both are done once a minute, aside from the requests; a request pays for neither.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

TIDY_EVERY = 60.0
"""Seconds between two looks for all garbage and all free memory."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PIECE = 2**20
"""Larger than any piece of a body: smaller blocks come from the heap, and are not mapped one by one."""
_KEPT_FREE = 2**27
"""Bytes at the end of the heap that may lie free for a minute: more than all replay buffers may hold by default."""


def tune_collector() -> None:
    """Have garbage collected as a gateway makes it, once all that lives for ever is there.

    That is never walked again. A request makes dozens of objects and no cycles, and the default threshold would cost it
    5 to 8 % of its CPU. Connections and cancelled exchanges are cycles, though, and those that lived for long are
    garbage of the oldest generation: it is collected after a quarter of a million new objects, some 50 MiB at most.
    """
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)
    gc.enable()


def tune_allocator() -> None:
    """Keep free memory for the next large pieces of bodies (mallopt(3), glibc only; nothing happens elsewhere).

    Left alone, glibc gives the end of its heap back whenever half a megabyte of it is free: every piece of a body
    would be mapped, zeroed and unmapped by the kernel, which costs a download a third of its CPU. Kept free is what
    the bodies of concurrent uploads take, too: they are held for a replay and are freed together.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _PIECE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)


async def tidy() -> None:
    """Free what has grown old before it died, however little is made, and give the kernel back what nobody uses.

    Where only now and then an exchange is cancelled, the collector's thresholds alone would leave it in memory for half
    an hour. Takes 11 ms with 10,000 connections open, and up to 5 ms more where 40 MiB are given back.
    """
    while True:
        await asyncio.sleep(TIDY_EVERY)
        gc.collect()
        _give_back()


def _give_back() -> None:
    """Give free memory back (malloc_trim(3), glibc only; nothing happens elsewhere)."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim(0)
