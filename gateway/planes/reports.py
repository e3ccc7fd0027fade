"""Answers reports: `POST /replace/CREDENTIAL` says that the vendor refused a token that was pushed to the plane.

`X-Gatepass-Sent` may hold the value of the field that was sent to the vendor. The answer is 204 when the plane's file
has another token, so that the plane sends the request again, and an error if there is none, so that it does not.
"""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    BadRequest,
    ClientForbidden,
    Draining,
    ExchangeError,
    InternalError,
    MethodNotAllowed,
    TokenUnavailable,
)
from gateway.observe import get_logger
from gateway.proxy.fields import verdicts_nowhere
from gateway.proxy.problem import date_line, problem
from gateway.proxy.request import read_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Planes, PushPlane
    from gateway.observe import Metrics
    from gateway.planes.pushes import Pushes
    from gateway.proxy import Snapshot
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.request import RequestHead

_log = get_logger("gatepass.planes")
REPORT: Final = "/replace/"
SENT: Final = b"x-gatepass-sent"
_FIELDS: Final = verdicts_nowhere()
_LATER: Final = 1.0
"""`Retry-After` of the answer to a report that changed nothing, in seconds."""


class Reports:
    """Answers the reports of planes that tokens are pushed to."""

    def __init__(self, pushes: Pushes, snapshot: Callable[[], Snapshot], metrics: Metrics) -> None:
        self._pushes = pushes
        self._snapshot = snapshot
        self._metrics = metrics
        self._planes: tuple[PushPlane, ...] = ()
        self.draining = False
        """Whether answers have `Connection: close`."""
        self.closing = False
        """Whether new reports are rejected."""

    def use(self, planes: Planes | None) -> None:
        """Answer the planes of this configuration from now on, and no others."""
        self._planes = planes.push if planes is not None else ()

    async def exchange(self, client: ClientConnection, request: RequestHead) -> bool:
        """Answer one report; return whether the plane's connection may be used again."""
        credential = request.target[len(REPORT) :]
        plane, keep_alive = None, False
        try:
            keep_alive = self._read(client, request)
            plane = self._plane(client, credential)
            await self._take(plane, credential, request)
        except ExchangeError as error:
            keep_alive = keep_alive and not error.close
            self._refuse(client, error, plane, credential, keep_alive=keep_alive)
        except Exception as error:  # noqa: BLE001 - a defect ends one report, not the gateway
            _log.exception("report_crashed", error=type(error).__name__)
            self._refuse(client, InternalError(reason=type(error).__name__), plane, credential, keep_alive=keep_alive)
        else:
            end = b"\r\n\r\n" if keep_alive else b"\r\nConnection: close\r\n\r\n"
            client.write(b"HTTP/1.1 204 No Content\r\n" + date_line() + end)
        return keep_alive

    def _read(self, client: ClientConnection, request: RequestHead) -> bool:
        """Read a report's head; return whether the connection may be used again. Raises ExchangeError."""
        inbound = read_request(request, _FIELDS, self._snapshot().limits)
        if inbound.chunked or inbound.length:
            raise BadRequest("A report has no body")
        client.open_body(inbound)
        if self.closing:
            raise Draining(retry_after=1.0)
        return inbound.keep_alive and not self.draining

    def _plane(self, client: ClientConnection, credential: str) -> PushPlane:
        """Return the connection's plane to which this credential is pushed. Raises ClientForbidden if there is none."""
        for plane in self._planes:
            is_known = client.remote == f"uid:{plane.uid}" or not frozenset(plane.certificates).isdisjoint(
                client.certificate
            )
            if is_known and credential in plane.credentials:
                return plane
        raise ClientForbidden(
            "No plane on this connection gets this credential",
            reason=f"no uid or certificates in planes.push: {client.remote}",
        )

    async def _take(self, plane: PushPlane, credential: str, request: RequestHead) -> None:
        """Wait until the plane's file has another token. Raises ExchangeError if none comes."""
        if request.method != "POST":
            raise MethodNotAllowed("A report is POST /replace/CREDENTIAL", allow=("POST",))
        values = request.values(SENT)
        if len(values) > 1:
            raise BadRequest("A report has the refused value in one field X-Gatepass-Sent")
        sent = "".join(values).encode("utf-8", "surrogateescape")
        result = await self._pushes.refused(plane.name, credential, sent)
        if result == "unknown":
            reason = "a value that was not pushed: does the plane send the app's own field?"
            raise BadRequest("The field holds no token of this credential", reason=reason)
        if result in {"limited", "unavailable"}:
            raise TokenUnavailable(reason=f"no other token: {result}", retry_after=_LATER)

    def _refuse(
        self, client: ClientConnection, error: ExchangeError, plane: PushPlane | None, credential: str, *,
        keep_alive: bool,
    ) -> None:  # fmt: skip
        request_id = f"{getrandbits(128):032x}"
        client.write(problem(error, route=None, request_id=request_id, close=not keep_alive, head=False))
        if plane is None:
            self._metrics.refused(error.code)
        _log.warning(
            "report_refused",
            plane=plane.name if plane is not None else None,
            credential=credential if plane is not None else None,
            status=error.status,
            code=error.code,
            reason=error.reason or error.detail,
            request_id=request_id,
        )
