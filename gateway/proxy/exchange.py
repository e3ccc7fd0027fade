"""One request and its answer: the state of an exchange, and what its access event reports at the end.

Default values are class attributes, because most exchanges never change most of them.
"""

from __future__ import annotations

import asyncio
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.proxy.body import NO_BODY
from gateway.proxy.request import UNREAD
from gateway.proxy.upload import NO_UPLOAD

if TYPE_CHECKING:
    from gateway.access import Admission, Allowance
    from gateway.model import Token
    from gateway.observe import ClientMetrics, Trace
    from gateway.proxy.body import Body
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.echo import BodyGuard
    from gateway.proxy.prepared import PreparedRoute, Snapshot
    from gateway.proxy.request import Inbound, RequestHead
    from gateway.proxy.upload import NoUpload, Upload


UNKNOWN_AFTER: Final = 0.01
"""Seconds from a request to its 401: longer than any check takes, so that the time does not tell why."""


class Exchange:
    """The state of one exchange, filled in by `handler.Handler.exchange` from top to bottom."""

    prepared: PreparedRoute | None = None
    inbound: Inbound = UNREAD
    """The parsed fields of the request's head, from the moment when the body is open, too."""
    body: Body = NO_BODY
    client_name: str | None = None
    request_id: str = ""
    id_given: bool = False
    """The app sent an `X-Request-Id` of its own."""
    written_id: bytes = b""
    """The same as bytes, for the fields."""
    plain: bool = False
    """The path has only one reading."""
    target: bytes = b""
    """Outbound path and query."""
    upload: Upload | NoUpload = NO_UPLOAD
    tokens: tuple[Token, ...] = ()
    """The tokens that were sent last, in the order of the route's injections."""
    attempts: int = 0
    """How often the request was sent to the vendor."""
    resent: bool = False
    """Sent again because a reused connection had been closed by the vendor."""
    replayed: bool = False
    """Sent again with another token."""
    sent_at: float = 0.0
    upstream_seconds: float | None = None
    prefetched: bytes = b""
    """The beginning of the vendor's body, read to decide whether the answer refuses the token."""
    head_sent: bool = False
    chunked: bool = False
    """The answer's body is chunked towards the app."""
    keep_alive: bool = False
    status: int = 0
    code: str = ""
    """Empty for the vendor's own answer, else the gateway's error code."""
    reason: str = ""
    allowance: Allowance | None = None
    """What the client may do on this route; None until the client is identified."""
    client_metrics: ClientMetrics | None = None
    """Of a known client that has no allowance on the route."""
    admission: Admission | None = None
    """What the exchange has used of the allowance; released when the exchange ends."""
    forwarded_from: str = ""
    """The app's address as a trusted proxy reported it; empty without one."""
    path: str | None = None
    """The route's path template that matches the path."""
    guard: BodyGuard | None = None
    bytes_out: int = 0
    vendor_status: int = 0
    """Status of the vendor's last answer; 0 before there is one."""
    trace: Trace | None = None
    """None unless requests are traced."""

    def __init__(self, client: ClientConnection, request: RequestHead, snapshot: Snapshot) -> None:
        self.client = client
        self.request = request
        self.snapshot = snapshot
        self.started = monotonic()
        self.is_head = request.method == "HEAD"
        """The answer has no body whatever its fields say (RFC 9110 §9.3.2)."""

    @property
    def remote(self) -> str:
        """Address of the app."""
        return self.forwarded_from or self.client.remote

    async def hold_401(self) -> None:
        """Wait until a 401 for this request may leave: every 401 leaves `UNKNOWN_AFTER` seconds after its request."""
        await asyncio.sleep(max(0.0, self.started + UNKNOWN_AFTER - monotonic()))

    def identify(self) -> None:
        """Use the app's request id if it is valid, else generate one (128 random bits, hex)."""
        given = self.inbound.request_id
        if given is not None:
            self.id_given = True
        self.written_id = name = b"%032x" % getrandbits(128) if given is None else given
        self.request_id = name.decode("ascii")
