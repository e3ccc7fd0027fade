"""A port that can be closed and opened again: an `aiohttp.web` application with its own listening socket.

Knows nothing about vendors. While the port is closed it stays bound but does not listen, so that no other program can
take it, and every connection is refused.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from asyncio import BaseTransport


def reset(transport: BaseTransport | None) -> None:
    """Close a connection with RST instead of FIN, and discard what was not sent yet."""
    if transport is None or transport.is_closing():
        return
    own = transport.get_extra_info("socket")
    if own is not None:
        with socket.socket(fileno=socket.dup(own.fileno())) as handle:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]  # every stream transport has it


class Listener:
    """One host and port. With `port` 0 a free port is chosen and then kept."""

    def __init__(self, app: web.Application, host: str, port: int = 0) -> None:
        self.host = host
        self.port = port
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1, auto_decompress=False
        )
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None

    @property
    def url(self) -> str:
        """`http://host:port`, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def refusing(self) -> bool:
        """Whether the port is closed on purpose."""
        return self._server is None

    async def start(self) -> None:
        """Bind and listen. Raises OSError if the port is in use."""
        self._reserved = self._bind()
        self.port = self._reserved.getsockname()[1]
        await self._runner.setup()
        await self.accept()

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None and self._reserved is not None:
            loop = asyncio.get_running_loop()
            protocol = self._runner.server
            if protocol is None:
                raise RuntimeError("the listener was stopped")
            self._server = await loop.create_server(protocol, sock=self._reserved, backlog=1024)
            self._reserved = None

    def refuse(self) -> None:
        """Close the port and reset all its connections."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._reserved = self._bind()
        self.reset_connections()

    def reset_connections(self) -> None:
        """Reset all open connections; the port stays open or closed."""
        protocol = self._runner.server
        for connection in list(protocol.connections) if protocol else []:
            reset(connection.transport)

    async def stop(self) -> None:
        """Close the port and everything that still runs on it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        await self._runner.cleanup()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, self.port))
        except OSError:
            bound.close()
            raise
        return bound
