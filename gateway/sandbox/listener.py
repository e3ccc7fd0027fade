"""A port that can go away and come back: an `aiohttp.web` application behind a listening socket of its own.

Knows sockets and connections; nothing of vendors. While it refuses, the port stays bound but is not listened on, so
that nobody else can take it and every connection gets ECONNREFUSED.
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
    """Close a connection with RST instead of FIN, dropping what was not sent yet."""
    if transport is None or transport.is_closing():
        return
    own = transport.get_extra_info("socket")
    if own is not None:
        with socket.socket(fileno=socket.dup(own.fileno())) as handle:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]  # every stream transport has it


class Listener:
    """One host and port. `port` 0 takes a free one, which is then kept."""

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
        """Bind and listen. Raises OSError when the port is taken."""
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
        """Close the port and reset every connection that it has."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._reserved = self._bind()
        self.reset_connections()

    def reset_connections(self) -> None:
        """Reset every open connection; the port itself stays as it is."""
        protocol = self._runner.server
        for connection in list(protocol.connections) if protocol else []:
            reset(connection.transport)

    async def stop(self) -> None:
        """Close the port and whatever still runs on it."""
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
