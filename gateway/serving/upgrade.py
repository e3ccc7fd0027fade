"""An upgrade in place: starts the same command line with the listening sockets, which takes over when it is ready.

Both processes share the kernel's sockets and their one queue of connections, so no connection is lost or refused. (With
SO_REUSEPORT each process would have its own queue, and connections in a closed queue would be lost.) The successor
fetches its tokens before it serves the ports; until it reports that it is ready, the predecessor serves alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from gateway.observe import get_logger
from gateway.serving.sockets import BOUND, INHERIT, passing

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

_log = get_logger("gatepass")
WITHIN = 60.0
"""Seconds for a successor to become ready; after that it is ended, and nothing has changed."""
_ENDS_WITHIN: Final = 2.0
"""Seconds for a successor to end after SIGTERM; after that it is killed."""
_STOPPED: Final = "the gateway was told to stop"


async def upgrade(listening: Mapping[str, Sequence[socket.socket]], bound: Mapping[str, str]) -> int | None:
    """Start a successor and wait until it serves; return its process id, or None if it failed to start.

    `bound` has the configured addresses for which the sockets were opened, by key.
    If this is cancelled, the successor is ended, because a gateway that was told to stop must not go on in another
    process.
    """
    ours, theirs = os.pipe()
    try:
        value, numbers = passing(listening, theirs)
        successor = await _started({INHERIT: value, BOUND: json.dumps(dict(bound))}, numbers)
    except OSError as error:
        os.close(ours)
        _log.error("upgrade_failed", reason=error.strerror or str(error))
        return None
    except asyncio.CancelledError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    _log.info("upgrading", successor=successor.pid)
    try:
        if await _says_ready(ours):
            return successor.pid
    except asyncio.CancelledError:
        await asyncio.to_thread(_end, successor)
        _log.error("upgrade_failed", reason=_STOPPED)
        raise
    status = await asyncio.to_thread(_end, successor)
    _log.error("upgrade_failed", reason=f"the successor was not ready in time, or ended (status {status})")
    return None


async def _started(passed: Mapping[str, str], numbers: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a successor on a thread. If this is cancelled, wait for the thread and end the successor."""
    starting = asyncio.ensure_future(asyncio.to_thread(_start, passed, numbers))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.to_thread(_end, await starting)
        _log.error("upgrade_failed", reason=_STOPPED)
        raise


def _end(successor: subprocess.Popen[bytes]) -> int:
    """End a successor and return its status. SIGTERM first, so that it ends the programs that it runs for secrets."""
    successor.terminate()
    try:
        return successor.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        successor.kill()
        return successor.wait()


def _start(passed: Mapping[str, str], numbers: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, *sys.orig_argv[1:]]
    # The watchdog was for this process; the successor answers it when it is the service.
    environ = {name: text for name, text in os.environ.items() if name != "WATCHDOG_PID"}
    return subprocess.Popen(  # noqa: S603 - our own command line
        command, env={**environ, **passed}, pass_fds=numbers, stdin=subprocess.DEVNULL
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
