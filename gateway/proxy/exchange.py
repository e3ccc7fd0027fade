"""One request and its answer: what is known so far, and what the access event says at the end."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from gateway.model import Token
    from gateway.proxy.body import Upload
    from gateway.proxy.headers import Inbound
    from gateway.proxy.lane import Lane, Snapshot
    from gateway.proxy.server import ClientConnection


class Exchange:
    """Filled in from top to bottom of `handler.Handler.exchange`."""

    __slots__ = (
        "attempts",
        "body",
        "bytes_out",
        "client",
        "client_name",
        "code",
        "head_sent",
        "inbound",
        "keep_alive",
        "lane",
        "message",
        "prefetched",
        "reason",
        "replayed",
        "request_id",
        "resent",
        "sent_at",
        "snapshot",
        "started",
        "status",
        "target",
        "tokens",
        "upload",
        "upstream_seconds",
    )

    def __init__(
        self,
        client: ClientConnection,
        message: RawRequestMessage,
        body: StreamReader,
        snapshot: Snapshot,
        started: float,
    ) -> None:
        self.client = client
        self.message = message
        self.body = body
        self.snapshot = snapshot
        self.started = started
        self.lane: Lane | None = None
        self.inbound: Inbound | None = None
        self.client_name: str | None = None
        self.request_id = ""
        self.target = b""
        """Outbound path and query."""
        self.upload: Upload | None = None
        self.tokens: tuple[Token, ...] = ()
        """The tokens that were sent last, in the order of the route's injections."""
        self.attempts = 0
        """How often the request was sent to the vendor."""
        self.resent = False
        """Sent again because a kept connection turned out to be closed."""
        self.replayed = False
        """Sent again with another token."""
        self.sent_at = 0.0
        self.upstream_seconds: float | None = None
        self.prefetched = b""
        """The beginning of the vendor's body, read to see whether it refuses the token."""
        self.head_sent = False
        self.keep_alive = False
        self.status = 0
        self.code = ""
        """Empty for the vendor's own answer, else the gateway's error code."""
        self.reason = ""
        self.bytes_out = 0

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body whatever its fields say (RFC 9110 §9.3.2)."""
        return self.message.method == "HEAD"

    def identify(self) -> None:
        """Take the app's request id if it is sane, else make one (128 random bits, hex)."""
        given = self.inbound.request_id if self.inbound is not None else None
        self.request_id = given.decode("ascii") if given is not None else f"{getrandbits(128):032x}"
