"""An upgrade in place: starts the same command line with the listening sockets, which takes over when it is ready.

Both processes share the kernel's sockets and their one queue of connections, so no connection is lost or refused. (With
SO_REUSEPORT each process would have its own queue, and connections in a closed queue would be lost.) The successor
fetches its tokens before it serves the ports; until it reports that it is ready, the predecessor serves alone.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from gateway.observe import get_logger
from gateway.serving.sockets import INHERIT, passing

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

_log = get_logger("gatepass")
WITHIN = 60.0
"""Seconds for a successor to become ready; after that it is killed, and nothing has changed."""


async def upgrade(listening: Mapping[str, Sequence[socket.socket]]) -> int | None:
    """Start a successor and wait until it serves; return its process id, or None if it failed to start."""
    ours, theirs = os.pipe()
    try:
        value, numbers = passing(listening, theirs)
        successor = await asyncio.to_thread(_start, value, numbers)
    except OSError as error:
        os.close(ours)
        _log.error("upgrade_failed", reason=error.strerror or str(error))
        return None
    finally:
        os.close(theirs)
    _log.info("upgrading", successor=successor.pid)
    if await _says_ready(ours):
        return successor.pid
    successor.kill()
    status = await asyncio.to_thread(successor.wait)
    _log.error("upgrade_failed", reason=f"the successor was not ready in time, or ended (status {status})")
    return None


def _start(value: str, numbers: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, *sys.orig_argv[1:]]
    # The watchdog was for this process; the successor answers it when it is the service.
    environ = {name: text for name, text in os.environ.items() if name != "WATCHDOG_PID"}
    return subprocess.Popen(  # noqa: S603 - our own command line
        command, env={**environ, INHERIT: value}, pass_fds=numbers, stdin=subprocess.DEVNULL
    )


async def _says_ready(number: int) -> bool:
    """Return whether the successor has sent its byte; False after the end of the pipe or a time-out."""
    loop = asyncio.get_running_loop()
    spoken = asyncio.Event()
    os.set_blocking(number, False)
    loop.add_reader(number, spoken.set)
    try:
        async with asyncio.timeout(WITHIN):
            await spoken.wait()
        return os.read(number, 1) == b"1"
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(number)
        os.close(number)
