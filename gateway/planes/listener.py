"""The port on which planes ask and report: opened at the start, reloaded, drained and closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.model import SocketFile
from gateway.observe import get_logger
from gateway.planes.asking import Asker
from gateway.planes.keeping import KeptSocket
from gateway.planes.listening import KEY, is_at, listen_unix
from gateway.planes.port import AskPort
from gateway.proxy import open_port
from gateway.tls import server_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from gateway.model import Config, Limits, Planes
    from gateway.observe import Metrics
    from gateway.planes.reports import Reports
    from gateway.proxy import Snapshot

_log = get_logger("gatepass.planes")
_CONNECTIONS: Final = 1024
"""Most connections of planes; each serves many questions."""


class Listener:
    """Serves the planes that ask, and those that report refused tokens."""

    def __init__(self, snapshot: Callable[[], Snapshot], metrics: Metrics, reports: Reports) -> None:
        self._asker = Asker(snapshot, metrics)
        self._reports = reports
        self._port: AskPort | None = None
        self._planes: Planes | None = None
        """The configuration in force."""
        self._kept: KeptSocket | None = None
        """The Unix socket at `planes.listen`; one that was passed to this process is watched, but not removed."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, for a successor."""
        return self._port.sockets if self._port is not None else ()

    async def start(self, config: Config, sockets: Sequence[socket.socket]) -> None:
        """Open the port, or serve `sockets`. Raises ListenError, or OSError for TLS files that cannot be used."""
        planes = self._planes = config.planes
        if planes is None or planes.listen is None:
            for sock in sockets:
                sock.close()
            return
        self._use(planes)
        port = AskPort(self._asker, self._reports, _limits(config))
        if sockets:
            self._adopt(planes, sockets)
        else:
            sockets = await self._open(planes)
        port.serve(sockets, tls=planes.tls)
        self._port = port
        if self._kept is not None:
            self._kept.watch(lambda sock: port.replace([sock]))
        _log.info("planes_served", listen=str(planes.listen), planes=_connecting(planes))

    def _use(self, planes: Planes | None) -> None:
        self._asker.use(planes)
        self._reports.use(planes)

    async def _open(self, planes: Planes) -> Sequence[socket.socket]:
        listen = planes.listen
        if isinstance(listen, SocketFile):
            sock = await asyncio.to_thread(listen_unix, listen)
            self._kept = KeptSocket(listen, made=True)
            return [sock]
        return await open_port(KEY, listen) if listen is not None else []

    def _adopt(self, planes: Planes, sockets: Sequence[socket.socket]) -> None:
        """Take note of a Unix socket that was passed to this process, if it is the one at `planes.listen`."""
        listen = planes.listen
        if isinstance(listen, SocketFile) and len(sockets) == 1 and is_at(sockets[0], listen.path):
            self._kept = KeptSocket(listen, made=False)

    def check(self, planes: Planes | None) -> None:
        """Raise OSError if the TLS files of a configuration cannot be used."""
        if planes is not None and planes.tls is not None:
            server_context(planes.tls)

    def reload(self, config: Config) -> None:
        """Serve the planes of another configuration; the listening socket stays."""
        before, planes = self._planes, config.planes
        self._planes = planes
        self._use(planes)
        if self._port is not None:
            self._port.use_limits(_limits(config), None)
            if planes is not None and planes.tls is not None and planes.tls != (before.tls if before else None):
                self._port.use_tls(planes.tls)

    def stop_listening(self) -> None:
        """Stop accepting connections, because a successor has the same sockets."""
        if self._kept is not None:
            self._kept.release()
        if self._port is not None:
            self._port.stop_listening()

    async def drain(self, timeout: float, *, succeeded: bool = False) -> None:  # noqa: ASYNC109 - a bound on waiting
        """Stop accepting, answer what is under way within `timeout` seconds, close; keep the socket if `succeeded`."""
        port = self._port
        if port is None:
            return
        kept, self._kept = self._kept, None
        if kept is not None and succeeded:
            kept.release()
        elif kept is not None:
            kept.remove()  # first, so that planes notice at once that the gateway stops
        await port.drain(timeout)


def _connecting(planes: Planes) -> list[str]:
    return [plane.name for plane in planes.ask] + [plane.name for plane in planes.push if plane.reports]


def _limits(config: Config) -> Limits:
    limits = config.limits
    return replace(limits, connections=min(limits.connections, _CONNECTIONS))
