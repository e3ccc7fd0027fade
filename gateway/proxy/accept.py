"""Accepts connections of apps, within bounds.

A connection counts from the moment it is accepted, its TLS handshake included. The bound on all connections is
`limits.connections`, or less if the process may open fewer descriptors (`room`). Above a bound a connection gets a
503; if many are being refused already, it is reset. A TLS connection costs memory only after its first byte, and only
`_HANDSHAKES` handshakes run at a time. When a bound is reached, handshakes that have stalled make room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, cast

from gateway.addresses import plain_address
from gateway.descriptors import lacks_descriptor
from gateway.errors import BadRequest
from gateway.observe import get_logger
from gateway.proxy.client import ClientConnection
from gateway.proxy.room import REFUSED
from gateway.proxy.wire import RESET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.proxy.server import Server

_log = get_logger("gatepass.proxy")
_AT_A_TIME: Final = 64
"""Connections that one listening socket accepts in one round of the loop."""
_REFUSED_TLS: Final = 16
"""The same over TLS, where a handshake is needed before the answer."""
_HANDSHAKES: Final = 64
"""TLS handshakes that run at the same time."""
_STALLED: Final = 0.5
"""Seconds after which a handshake makes room for others: several round trips to anywhere."""
_NEVER_FIRST: Final = 60.0
"""Seconds by which the event loop's time-out for a TLS handshake is longer than ours, which is logged."""
_OF_ONE_CONNECTION: Final = (errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM)
"""Errors of accept(2) that concern one connection; after any other, accepting pauses until the next sweep."""
_CREDENTIALS: Final = struct.Struct("iII")
"""`struct ucred`: process, user, group."""
_LOG_EVERY: Final = 1.0
"""Seconds between two log lines about failed accepts."""


class Opening:
    """A connection that was accepted and is not open yet."""

    __slots__ = ("connection", "handshaking", "since", "sock", "started", "task")

    def __init__(self, connection: ClientConnection, sock: socket.socket, since: float) -> None:
        self.connection = connection
        self.sock = sock
        self.since = since
        self.task: asyncio.Task[None] | None = None
        """Opens the transport; over TLS, None until the handshake begins."""
        self.started = False
        """The task has run, so that it closes the socket if it is cancelled."""
        self.handshaking = False


class Acceptor:
    """Accepts on all listening sockets of the data port, and counts."""

    def __init__(self, server: Server[ClientConnection], room: int | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self.tls: ssl.SSLContext | None = None
        """May be replaced; open connections keep theirs."""
        self.room = room
        """Connections, refused ones included, for which there are descriptors; None: any number."""
        self.count = 0
        """Connections that were accepted and are not closed."""
        self.by_address: Counter[str] = Counter()
        self.sockets: list[socket.socket] = []
        self._opening: dict[ClientConnection, Opening] = {}
        """By age."""
        self._waiting: deque[Opening] = deque()
        """Whose first byte has arrived, and whose handshake may not begin yet."""
        self._running = 0
        """TLS handshakes that run."""
        self._paused = False
        self._logged_at = -_LOG_EVERY

    # ------------------------------------------------------------------------------------------------------- listening

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these sockets."""
        self.sockets = list(sockets)
        self._paused = False
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def stop(self, *, take_queued: bool) -> None:
        """Close the sockets; if `take_queued`, first accept what the kernel has already accepted."""
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError, ValueError):  # the socket failed
                self._loop.remove_reader(sock.fileno())
                while take_queued and self._accept(sock):
                    pass
            sock.close()

    def abort(self) -> None:
        """Give up every connection that is not open yet."""
        for opening in tuple(self._opening.values()):
            self._give_up(opening)

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            if self._must_wait():
                self._pause()
                return
            if not self._accept(sock):
                return

    def _must_wait(self) -> bool:
        """Whether there is no descriptor for another connection, but a handshake that still moves may free one."""
        short = self.room is not None and self.count >= self.room - self._refusals
        return short and bool(self._opening) and not self._evict(None)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            for sock in self.sockets:
                self._loop.remove_reader(sock.fileno())

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            for sock in self.sockets:
                self._loop.add_reader(sock.fileno(), self._readable, sock)

    # ------------------------------------------------------------------------------------------------------- accepting

    @property
    def _refusals(self) -> int:
        most = REFUSED if self.tls is None else _REFUSED_TLS
        return most if self.room is None else min(most, max(1, self.room // 8))

    @property
    def _bound(self) -> int:
        connections = self._server.limits.connections
        return connections if self.room is None else max(1, min(connections, self.room - self._refusals))

    def _accept(self, listening: socket.socket) -> bool:
        """Accept one connection; return False if there is none."""
        try:
            sock, peer = listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            self._failed(error)
            return False
        sock.setblocking(False)
        self._take(sock, plain_address(str(peer[0])) if peer else peer_user(sock))
        return True

    def _failed(self, error: OSError) -> None:
        """Log at most once a second, and try again then."""
        now = self._loop.time()
        if lacks_descriptor(error):
            self._server.not_accepted()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
            _log.warning("accept_failed", reason=reason, connections=self.count)
        if error.errno not in _OF_ONE_CONNECTION:
            self._pause()

    def _take(self, sock: socket.socket, address: str) -> None:
        limits = self._server.limits
        if self.by_address[address] >= limits.connections_per_address:
            self._evict(address)
        elif self.count >= self._bound:
            self._evict(None)
        self.count += 1
        self.by_address[address] += 1
        self._server.counted()
        over = max(self.count - self._bound, self.by_address[address] - limits.connections_per_address)
        if over > self._refusals:
            self._forget(address)
            _reset(sock)
            return
        connection = ClientConnection(self._loop, self._server, address)
        connection.surplus = over > 0
        self._opening[connection] = opening = Opening(connection, sock, self._loop.time())
        if self.tls is None:
            opening.task = self._loop.create_task(self._open(opening, None))
        else:
            self._loop.add_reader(sock.fileno(), self._begin_handshake, opening)

    def _begin_handshake(self, opening: Opening) -> None:
        """The first byte of a TLS connection has arrived."""
        self._loop.remove_reader(opening.sock.fileno())
        self._waiting.append(opening)
        self._begin_handshakes()

    def _begin_handshakes(self) -> None:
        while self._waiting and (self._running < _HANDSHAKES or self._evict(None, running=True)):
            opening = self._waiting.popleft()
            if opening.connection in self._opening:
                opening.handshaking = True
                self._running += 1
                opening.task = self._loop.create_task(self._open(opening, self.tls))

    async def _open(self, opening: Opening, tls: ssl.SSLContext | None) -> None:
        """Give the socket a transport; over TLS after its handshake."""
        connection, sock, opening.started = opening.connection, opening.sock, True
        timeout = self._server.limits.header_timeout + _NEVER_FIRST if tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: cast("asyncio.Protocol", connection), sock, ssl=tls, ssl_handshake_timeout=timeout
            )
        except ssl.SSLError as error:
            _report_failed(connection, _handshake_reason(error))
            sock.close()
        except (OSError, asyncio.CancelledError):  # the handshake was given up, or the app is gone
            sock.close()
        finally:
            self._not_opened(connection)
            self._end_handshake(opening)
            self._begin_handshakes()

    def _end_handshake(self, opening: Opening) -> None:
        if opening.handshaking:
            opening.handshaking = False
            self._running -= 1

    # ------------------------------------------------------------------------------------------------------- counting

    def opened(self, connection: ClientConnection) -> bool:
        """Note that a connection is open; return False if it was given up in the moment when it opened."""
        known = self._opening.pop(connection, None) is not None
        self._resume()
        return known

    def _not_opened(self, connection: ClientConnection) -> None:
        if self._opening.pop(connection, None) is not None:
            self._forget(connection.remote)

    def closed(self, connection: ClientConnection) -> None:
        """Note that an open connection was closed."""
        self._forget(connection.remote)

    def _forget(self, address: str) -> None:
        self.count -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]
        self._server.counted()
        self._resume()

    def _evict(self, address: str | None, *, running: bool = False) -> bool:
        """Give up the oldest stalled handshake, of `address` if given; return whether there was one."""
        now = self._loop.time()
        for opening in self._opening.values():
            if now - opening.since < _STALLED:
                return False
            if address in {None, opening.connection.remote} and (opening.task is not None or not running):
                self._give_up(opening)
                return True
        return False

    def _give_up(self, opening: Opening) -> None:
        if opening.task is None:
            self._loop.remove_reader(opening.sock.fileno())
        else:
            opening.task.cancel()
        if not opening.started:
            opening.sock.close()
        self._end_handshake(opening)
        self._not_opened(opening.connection)

    def sweep(self, now: float) -> None:
        """Give up handshakes that take longer than `header_timeout`, and stalled ones above a bound."""
        self._resume()
        self._begin_handshakes()
        for opening in tuple(self._opening.values()):
            longest = _STALLED if opening.connection.surplus else self._server.limits.header_timeout
            if now - opening.since >= longest:
                if opening.handshaking and not opening.connection.surplus:
                    _report_failed(opening.connection, "the handshake did not end in time")
                self._give_up(opening)


def peer_user(sock: socket.socket) -> str:
    """Return which user has connected to a Unix socket, as `uid:33` (unix(7), SO_PEERCRED)."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"uid:{uid}"


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def _report_failed(connection: ClientConnection, reason: str) -> None:
    _log.warning("handshake_failed", reason=reason, remote=connection.remote, code=BadRequest.code)


def _handshake_reason(error: ssl.SSLError) -> str:
    """Return why a TLS handshake failed, in OpenSSL's words unless there are better ones."""
    reason = getattr(error, "reason", None) or "the connection broke off"
    if reason in {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"}:
        return "plain HTTP on a port with TLS"
    return str(reason).lower().replace("_", " ")
