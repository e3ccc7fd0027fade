"""Telling a service manager how it goes (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.

Knows nothing but words. Without the variable nothing is sent; a manager that does not listen is no reason to fail.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """The line to the service manager, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")

    def _send(self, *lines: str) -> None:
        if not self._path.startswith(("/", "@")):
            return
        name = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto("\n".join(lines).encode(), name)

    def ready(self) -> None:
        """The ports are open; after `reloading`: the configuration has been read."""
        self._send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """The configuration is being read again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Going down."""
        self._send("STOPPING=1", "STATUS=draining")

    def succeeded_by(self, pid: int) -> None:
        """Another process is the service from now on."""
        self._send(f"MAINPID={pid}", "READY=1", "STATUS=serving, after an upgrade in place")
