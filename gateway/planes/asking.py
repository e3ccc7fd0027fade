"""Answers the questions of planes: identify the plane → read the app's request → admit → token → answer.

The counterpart of `proxy.handler` without a vendor. A request is admitted by the same rules as on the data port, and
counted when its question is answered; the plane then sends it. A failure gets the status that an app would get on the
data port. So the answer to a question is a 200 with every field, or not a 2xx at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import getrandbits
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from gateway.access import SigningKeysNeeded
from gateway.addresses import Networks, forwarded_client
from gateway.errors import (
    BadRequest,
    ClientForbidden,
    ClientUnknown,
    Draining,
    ExchangeError,
    InternalError,
    RouteNotFound,
)
from gateway.observe import get_logger
from gateway.planes.answers import RouteAnswers
from gateway.planes.question import asked, paths, refused, reported, split_question
from gateway.proxy import app_tokens
from gateway.proxy.exchange import UNKNOWN_AFTER
from gateway.proxy.permission import check_permission
from gateway.proxy.problem import date_line, problem
from gateway.proxy.request import read_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access import Admission, Allowance
    from gateway.model import AskPlane, Planes
    from gateway.observe import Metrics, PlaneMetrics
    from gateway.planes.answers import Answer
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.prepared import PreparedRoute, Snapshot
    from gateway.proxy.request import Inbound, RequestHead

_log = get_logger("gatepass.planes")
_ANSWERED: Final = 200
"""The status with which an answered question counts: as a billed call, because the vendor's own status is not known."""
_NOBODY: Final = Networks()
_TOKEN: Final = "token"
"""The outcome of a question that was answered with tokens, in metrics."""


class KnownPlane:
    """A configured plane that asks, with its metrics."""

    __slots__ = ("metrics", "plane")

    def __init__(self, plane: AskPlane, metrics: PlaneMetrics) -> None:
        self.plane = plane
        self.metrics = metrics


class Question:
    """The state of one question, filled in from top to bottom."""

    plane: KnownPlane | None = None
    route: str = ""
    """The name of its route, set only if the plane may ask for it."""
    inbound: Inbound | None = None
    answers: RouteAnswers | None = None
    allowance: Allowance | None = None
    admission: Admission | None = None
    refused: str = ""
    """The generation that the vendor has refused, as the plane says; empty if none."""
    report: bool = False
    """Whether it only reports a refused token, and asks for none."""
    answered: bool = False
    """Whether it got a 200."""

    def __init__(self, client: ClientConnection, request: RequestHead) -> None:
        self.client = client
        self.request = request
        self.started = monotonic()


class Asker:
    """Answers questions by the current snapshot."""

    def __init__(self, snapshot: Callable[[], Snapshot], metrics: Metrics) -> None:
        self._current = snapshot
        self._metrics = metrics
        self._snapshot: Snapshot | None = None
        self._answers: dict[str, RouteAnswers] = {}
        self._by_user: dict[str, KnownPlane] = {}
        self._by_certificate: dict[str, KnownPlane] = {}
        self.draining = False
        """Whether answers have `Connection: close`."""
        self.closing = False
        """Whether new questions are rejected."""

    def use(self, planes: Planes | None) -> None:
        """Answer the planes of this configuration from now on, and no others."""
        known = [KnownPlane(plane, self._metrics.plane(plane.name)) for plane in (planes.ask if planes else ())]
        self._by_user = {f"uid:{each.plane.uid}": each for each in known if each.plane.uid is not None}
        self._by_certificate = {name: each for each in known for name in each.plane.certificates}

    async def exchange(self, client: ClientConnection, request: RequestHead) -> bool:
        """Answer one question; return whether the plane's connection may be used again."""
        q = Question(client, request)
        try:
            try:
                self._admit(q)
            except SigningKeysNeeded as needed:
                await needed.keys.refetch()
                self._admit(q)
            answers = q.answers
            assert answers is not None  # noqa: S101 - set by _admit
            if q.report:
                await self._replace(q, answers)
                return self._note(q)
            tokens = answers.prepared.current_tokens() if not q.refused else None
            if tokens is None:
                if q.refused:
                    await self._replace(q, answers)
                tokens = answers.prepared.current_tokens() or await answers.prepared.get_tokens()
            return self._write(q, answers.answer(tokens, monotonic()))
        except ClientUnknown as error:
            # As on the data port: every 401 leaves the same time after its request.
            await asyncio.sleep(max(0.0, q.started + UNKNOWN_AFTER - monotonic()))
            return self._refuse(q, error)
        except ExchangeError as error:
            return self._refuse(q, error)
        except Exception as error:  # noqa: BLE001 - a defect ends one question, not the gateway
            _log.exception("question_crashed", error=type(error).__name__)
            return self._refuse(q, InternalError(reason=type(error).__name__))
        finally:
            if q.admission is not None:
                q.admission.release(_ANSWERED if q.answered else 0)

    # ------------------------------------------------------------------------------------------------------- admitting

    def _admit(self, q: Question) -> None:
        """Identify the plane, read the app's request, authenticate the app and admit its call. Raises ExchangeError."""
        if self.closing:
            raise Draining(retry_after=1.0)
        snapshot = self._current()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._answers = {prepared.route.name: RouteAnswers(prepared) for prepared in snapshot.routes}
        q.plane = known = self._who(q.client)
        plane, request = known.plane, q.request
        name, behind, q.report = split_question(request.target)
        answers = self._answers.get(name)
        if answers is None or name not in plane.routes:
            raise ClientForbidden("The plane may not ask for this route", reason=f"planes.ask.{plane.name}.routes")
        q.route, q.answers, prepared = name, answers, answers.prepared
        q.inbound = inbound = read_request(request, prepared.verdicts, snapshot.limits)
        if inbound.chunked or inbound.length:
            raise BadRequest("A question has no body", reason="a plane that sends the app's Content-Length or body")
        q.client.open_body(inbound)
        if q.report:
            q.refused = reported(request)
            return
        method, target = asked(request, behind, plane)
        try:
            path, rest = paths(target, plane, prepared.route)
        except RouteNotFound:
            with contextlib.suppress(ClientForbidden):  # only authenticated clients learn of routes
                _identify(q, inbound, prepared, snapshot)
            raise
        q.allowance = allowance = _identify(q, inbound, prepared, snapshot)
        if rest in prepared.endpoints:
            raise app_tokens.not_served(prepared.route, prepared.endpoints[rest])
        remote = _address(request, plane, allowance, snapshot)
        check_permission(allowance, prepared.route, prepared.rules, method=method, path=path, rest=rest, remote=remote)
        q.refused = refused(request)
        if not q.refused or not answers.repeats(q.refused, allowance):
            q.admission = allowance.admit(q.started)

    def _who(self, client: ClientConnection) -> KnownPlane:
        """Return the plane of a connection. Raises ClientForbidden if none, or more than one, fits."""
        known = self._by_user.get(client.remote)
        if known is not None:
            return known
        shown = {name: self._by_certificate[name] for name in client.certificate if name in self._by_certificate}
        found = {each.plane.name: each for each in shown.values()}
        if len(found) != 1:
            who = client.remote.replace(":", " ") if client.remote.startswith("uid:") else "its certificate"
            raise ClientForbidden("No plane is configured for this connection", reason=f"no plane in planes.ask: {who}")
        return next(iter(found.values()))

    async def _replace(self, q: Question, answers: RouteAnswers) -> None:
        """Invalidate the refused tokens, and wait until the next ones are fetched or the fetch has failed."""
        assert q.plane is not None  # noqa: S101 - set by _admit
        q.plane.metrics.refused_token(q.route)
        if await answers.refused(q.refused):
            # No forced fetch is allowed now: the plane sends the same token again; the app gets the vendor's answer.
            answers.prepared.metrics.token_refused(401, replayed=False)

    # ------------------------------------------------------------------------------------------------------- answering

    def _write(self, q: Question, answer: Answer) -> bool:
        inbound, allowance, plane = q.inbound, q.allowance, q.plane
        assert inbound is not None  # noqa: S101 - set by _admit
        assert allowance is not None  # noqa: S101 - as above
        assert plane is not None  # noqa: S101 - as above
        request_id = inbound.request_id if inbound.request_id is not None else b"%032x" % getrandbits(128)
        keep_alive = inbound.keep_alive and not self.draining
        end = b"\r\n\r\n" if keep_alive else b"\r\nConnection: close\r\n\r\n"
        q.client.write(b"".join([answer.head, request_id, b"\r\n", date_line(), end]))
        q.answered = True
        if q.admission is not None:
            answer.handed[allowance] = answer.handed.get(allowance, 0) + 1
        plane.metrics.asked(q.route, _TOKEN, time())
        return keep_alive

    def _note(self, q: Question) -> bool:
        """Answer a report with 204, without a token."""
        keep_alive = q.inbound is not None and q.inbound.keep_alive and not self.draining
        end = b"\r\n\r\n" if keep_alive else b"\r\nConnection: close\r\n\r\n"
        q.client.write(b"".join([b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n", date_line(), end]))
        return keep_alive

    def _refuse(self, q: Question, error: ExchangeError) -> bool:
        inbound = q.inbound
        given = inbound.request_id if inbound is not None else None
        request_id = (given if given is not None else b"%032x" % getrandbits(128)).decode("ascii")
        keep_alive = inbound is not None and not error.close and inbound.keep_alive and not self.draining
        known = q.allowance is not None
        route = q.route if known else None
        head = q.request.method == "HEAD"
        q.client.write(problem(error, route=route, request_id=request_id, close=not keep_alive, head=head))
        if q.plane is None:
            self._metrics.refused(error.code)
        else:
            q.plane.metrics.asked(q.route, error.code, time())
        _log.info(
            "question_refused",
            plane=q.plane.plane.name if q.plane is not None else None,
            route=q.route or None,
            client=q.allowance.name if q.allowance is not None else None,
            status=error.status,
            code=error.code,
            reason=error.reason or error.detail,
            request_id=request_id,
        )
        return keep_alive

    def reject(self, client: ClientConnection, error: ExchangeError) -> None:
        """Answer bytes that are not a valid request."""
        request_id = f"{getrandbits(128):032x}"
        client.write(problem(error, route=None, request_id=request_id, close=True, head=False))
        self._metrics.refused(error.code)
        _log.warning(
            "plane_connection_rejected",
            code=error.code,
            reason=error.reason or error.detail,
            request_id=request_id,
            remote=client.remote,
        )


def _identify(q: Question, inbound: Inbound, prepared: PreparedRoute, snapshot: Snapshot) -> Allowance:
    """Return what the app may do on the route, by its key, JWT or pass; the plane's certificate does not count.

    Raises ClientUnknown, ClientForbidden, SigningKeysNeeded.
    """
    token = inbound.bearer
    if token is None and inbound.injected:
        token = prepared.app_token(inbound.injected)
    clients = snapshot.clients
    allowance = clients.identify(inbound.key, token, prepared.route, last=q.client.last_key)
    if clients.local_only:
        raise ClientForbidden("Without clients, only programs on this machine may call, and directly")
    if prepared.route.authorization == "pass":
        clients.reject_our_keys(q.request.values(b"authorization"))
    return allowance


def _address(request: RequestHead, plane: AskPlane, allowance: Allowance, snapshot: Snapshot) -> str | None:
    """Return the app's address as the plane reports it, or None if the client has no `addresses`.

    The plane adds the last entry of `X-Forwarded-For`; entries to its left count only behind `trusted_proxies`.
    Raises ClientForbidden if the address is needed and the plane does not report it.
    """
    if not allowance.names_addresses:
        return None
    given = request.values(b"x-forwarded-for")
    if not plane.addresses or not given:
        raise ClientForbidden(
            f"The client {allowance.name} may not call from this address",
            reason=f"clients.{allowance.name}.addresses, and the plane does not send the app's address: "
            f"see planes.ask.{plane.name}.addresses",
        )
    hops = [hop.strip() for value in given for hop in value.split(",")]
    return forwarded_client(hops[-1], hops[:-1], snapshot.trusted or _NOBODY)
