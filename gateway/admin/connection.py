"""The admin port's connections: bounded in number and in time, and aiohttp's own error answers without request text.

aiohttp answers a request that it cannot parse by itself, outside of any middleware; `Connection.handle_error` replaces
that answer. Uses only public names of `aiohttp.web` (`Server`, `RequestHandler`). Knows nothing of pages.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.admin.answers import COMMON_FIELDS
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_request import BaseRequest

CONNECTIONS = 64
"""Open connections at a time. One more closes the connection that has been idle for longest."""
IDLE_TIMEOUT = 20.0
"""Seconds from the opening of a connection, or from its last answer, to the end of the next request head."""
WRITE_TIMEOUT = 10.0
"""Seconds for which a client may read nothing of an answer."""
CONTINUE = "100-continue"
"""The only expectation that HTTP defines (RFC 9110 §10.1.1)."""
SERVER_FIELD = "gatepass"
"""Value of the `Server` field in answers that aiohttp makes itself, instead of the versions of Python and aiohttp."""

_log = get_logger("gatepass.admin")


class Connection(web.RequestHandler):
    """One connection of the admin port."""

    __slots__ = ("_write_timer", "busy", "server")

    def __init__(self, server: Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self.server = server
        self.busy = False
        """Whether a handler runs for a request of this connection."""
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, and make room for it."""
        super().connection_made(transport)
        self.server.make_room(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time-out of a client that does not read."""
        super().pause_writing()
        self._write_timer = asyncio.get_running_loop().call_later(WRITE_TIMEOUT, self.abort)

    def resume_writing(self) -> None:
        """Stop the time-out."""
        self._stop_timer()
        super().resume_writing()

    def abort(self) -> None:
        """Close the connection at once, unsent bytes included."""
        if self.transport is not None:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer a request that cannot be parsed, or whose handler failed: JSON, with nothing of the request in it."""
        del message
        if status >= web.HTTPInternalServerError.status_code and exc is not None:
            _log.error("admin_request_crashed", remote=request.remote, exc_info=exc)
        else:
            _log.warning("admin_request_malformed", remote=request.remote, status=status)
        if request.writer.output_size:
            raise ConnectionError("a part of the answer has been sent already")
        answer = web.Response(
            text=f'{{"status":{status}}}\n',
            status=status,
            content_type="application/json",
            headers={**COMMON_FIELDS, "Server": SERVER_FIELD},
        )
        answer.force_close()
        return answer


class Server(web.Server):
    """Makes the connections; a protocol factory for `loop.create_server`. `application` is a runner's own server."""

    def __init__(self, application: web.Server) -> None:
        super().__init__(_marked(application.request_handler), request_factory=application.request_factory)
        self._settings: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # nothing that the port reads is ever compressed
            "keepalive_timeout": IDLE_TIMEOUT,
            "lingering_time": 1.0,
        }

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._settings)

    def make_room(self, newest: Connection) -> None:
        """Close connections over the bound: idle ones first, the oldest of them before the others."""
        over = len(self.connections) - CONNECTIONS
        if over <= 0:
            return
        others = [each for each in self.connections if isinstance(each, Connection) and each is not newest]
        victims = sorted(others, key=lambda each: each.busy)[:over]
        for each in victims:
            each.abort()
        _log.warning("admin_connections_closed", count=len(victims), bound=CONNECTIONS)


def _marked(handler: Callable[[BaseRequest], Awaitable[web.StreamResponse]]) -> Any:
    """Return a request handler that marks its connection as busy while it runs."""

    async def handle(request: BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, Connection):
            if request.headers.get("Expect", CONTINUE).lower() != CONTINUE:  # aiohttp's answer would contain it
                return connection.handle_error(request, web.HTTPExpectationFailed.status_code)
            connection.busy = True
        try:
            return await handler(request)
        finally:
            if isinstance(connection, Connection):
                connection.busy = False

    return handle
