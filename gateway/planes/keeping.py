"""Keeps the Unix socket for planes at its path: a deleted or replaced socket file is noticed, logged and made again.

A process that listens on a Unix socket is not told that the socket's file is gone. Only the planes notice, because
their connections are refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.errors import ListenError
from gateway.observe import get_logger
from gateway.planes.listening import identity, listen_unix, remove

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.model import SocketFile

_log = get_logger("gatepass.planes")
INTERVAL: Final = 1.0
"""Seconds between two looks at the socket file, and between two attempts to make it again."""


class KeptSocket:
    """A Unix socket whose file is watched. Call `watch` once, and `release` or `remove` at the end."""

    def __init__(self, file: SocketFile, *, made: bool) -> None:
        """Take note of the file at the path; `made`: this process has created it, and so may remove it."""
        self._file = file
        self._made = made
        self._ours = identity(file.path)
        self._watching: asyncio.Task[None] | None = None

    def watch(self, replace: Callable[[socket.socket], None]) -> None:
        """Look at the file from now on; call `replace` with a new listening socket after the file was lost."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(replace))

    def release(self) -> None:
        """Stop looking, and leave the file to a successor."""
        if self._watching is not None:
            self._watching.cancel()

    def remove(self) -> None:
        """Stop looking, and remove the file if this process has created it."""
        self.release()
        if self._made:
            remove(self._file.path, self._ours)

    async def _watch(self, replace: Callable[[socket.socket], None]) -> None:
        reason: str | None = None
        while True:
            await asyncio.sleep(INTERVAL)
            found = identity(self._file.path)
            if found is not None and found == self._ours:
                reason = None  # also after somebody has moved the file away and back
                continue
            before, reason = reason, await self._listen_again(replace, found)
            if reason != before and reason is not None:
                _log.error("planes_socket_lost", listen=str(self._file), reason=reason)

    async def _listen_again(
        self, replace: Callable[[socket.socket], None], found: tuple[int, int] | None
    ) -> str | None:
        """Make the socket again; return why that is not possible, or None."""
        try:
            sock = await asyncio.to_thread(listen_unix, self._file)
        except ListenError as error:
            return error.reason
        self._ours, self._made = identity(self._file.path), True
        replace(sock)
        _log.warning("planes_socket_made_again", listen=str(self._file), found="nothing" if found is None else "a file")
        return None
