"""Notifies a service manager (sd_notify(3)): datagrams to the socket that `NOTIFY_SOCKET` names.

Without the variable nothing is sent. A manager that does not listen is not an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 0.1
"""Most seconds for which a message waits for a manager whose queue is full; after that the message is dropped."""


class Notifier:
    """The connection to the service manager, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environ)
        """Seconds after which the manager restarts a silent service (`WatchdogSec`); None: never."""

    def _send(self, *lines: str) -> None:
        if not self._path.startswith(("/", "@")):
            return
        name = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(PATIENCE)  # the event loop waits, and a manager that hangs may never read
            line.connect(name)
            line.send("\n".join(lines).encode())

    def ready(self) -> None:
        """Notify that the ports are open, or after `reloading`, that the reload has ended."""
        self._send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """Notify that the configuration is being reloaded."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Notify that the gateway is draining."""
        self._send("STOPPING=1", "STATUS=draining")

    def succeeded_by(self, pid: int) -> None:
        """Notify that another process is the service from now on."""
        self._send(f"MAINPID={pid}", "READY=1", "STATUS=serving, after an upgrade in place")

    async def keep_watchdog(self) -> None:
        """Answer the watchdog from the event loop, so that a loop that hangs is restarted. Runs until cancelled."""
        while self.watchdog is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's time-out in seconds, if it is meant for this process (sd_watchdog_enabled(3))."""
    text, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or not int(text) or process not in {"", str(os.getpid())}:
        return None
    return int(text) / 1e6
