"""What an app's connection needs of the server that accepted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.proxy.unparsed import UnparsedBudget

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.errors import ExchangeError
    from gateway.model import Limits
    from gateway.proxy.request import RequestHead
    from gateway.proxy.wire import Outbox

Connection = TypeVar("Connection")


class Server(Generic[Connection]):
    """Base class of the data port."""

    def __init__(self, limits: Limits, outbox: Outbox) -> None:
        self.limits = limits
        """May be replaced while connections are open; the head size limit applies from the next connection."""
        self.outbox = outbox
        self.unparsed = UnparsedBudget()
        self.leaving = False
        """Whether every connection closes after its current exchange."""

    def opened(self, connection: Connection) -> None:
        """Take note of an open connection, or refuse it."""
        raise NotImplementedError

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        raise NotImplementedError

    def counted(self) -> None:
        """Take note that the number of accepted connections has changed."""
        raise NotImplementedError

    def not_accepted(self) -> None:
        """Take note that a connection could not be accepted, because no file descriptor was left."""
        raise NotImplementedError

    def relieve(self) -> None:
        """Make the connections that hold most unparsed bytes give them up."""
        raise NotImplementedError

    def exchange(self, connection: Connection, request: RequestHead) -> Awaitable[bool]:
        """Serve one request; the result says whether the connection may serve another."""
        raise NotImplementedError

    def refuse(self, connection: Connection, error: ExchangeError) -> None:
        """Write the answer to bytes that are not a request."""
        raise NotImplementedError
