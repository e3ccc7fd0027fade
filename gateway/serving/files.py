"""Watches whether the process can still open files, because running out of them has no other log line.

Connections that cannot be accepted or opened fail one by one, with an error that names only the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.descriptors import open_one
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 1.0
"""Seconds between two checks."""
_log = get_logger("gatepass")


def _can_open() -> bool:
    try:
        open_one()
    except OSError:
        return False
    return True


async def watch_files(can_open: Callable[[], bool] = _can_open) -> None:
    """Log when no file can be opened any more, and when files can be opened again. Runs until cancelled."""
    exhausted = False
    while True:
        await asyncio.sleep(INTERVAL)
        if can_open() == exhausted:
            exhausted = not exhausted
            if exhausted:
                _log.error("files_exhausted", limit=_limit(), hint="raise LimitNOFILE or ulimit -n, or lower limits")
            else:
                _log.info("files_available")


def _limit() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
