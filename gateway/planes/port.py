"""The port for planes: a listener of its own, with the connections, time-outs and limits of the data port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.planes.reports import REPORT
from gateway.proxy.port import Port

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.errors import ExchangeError
    from gateway.model import Limits
    from gateway.planes.asking import Asker
    from gateway.planes.reports import Reports
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.request import RequestHead

_MOST: Final = 1.0
"""Most seconds between two sweeps."""
_LEAST: Final = 0.02
"""Fewest seconds between two sweeps."""


class AskPort(Port):
    """Accepts connections of planes; passes questions to an `Asker`, and reports about pushed tokens to `Reports`."""

    def __init__(self, asker: Asker, reports: Reports, limits: Limits) -> None:
        super().__init__(limits)
        self.asker = asker
        self.reports = reports

    def exchange(self, connection: ClientConnection, request: RequestHead) -> Awaitable[bool]:
        """Answer one question or report; the result is whether the connection may be used again."""
        if request.target.startswith(REPORT):
            return self.reports.exchange(connection, request)
        return self.asker.exchange(connection, request)

    def refuse(self, connection: ClientConnection, error: ExchangeError) -> None:
        """Answer bytes that are not a valid request."""
        self.asker.reject(connection, error)

    def sweep(self, now: float) -> float:
        """Return the seconds to the next sweep: a quarter of the shortest time-out, from 20 ms to 1 s."""
        del now  # there are no vendor connections to sweep
        limits = self.limits
        shortest = min(limits.header_timeout, limits.keepalive_timeout, limits.body_timeout)
        return max(_LEAST, min(_MOST, shortest / 4))

    def begin_drain(self) -> None:
        """Send `Connection: close` with each answer from now on."""
        self.asker.draining = self.reports.draining = True

    def refuse_new(self) -> None:
        """Answer new questions and reports with 503 from now on."""
        self.asker.closing = self.reports.closing = True
