"""Answers an app's token request with a pass of the gateway, in the shape of the vendor's own answer.

The vendor is not asked. Rules and budgets of client and route do not apply here: an SDK fetches a token before it
calls anything. Errors have the form that OAuth libraries read (RFC 6749 §5.2), and every unknown secret gets the same
401, as late as any other 401 of the gateway.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson

from gateway.access import SigningKeysNeeded
from gateway.addresses import forwarded_client
from gateway.errors import (
    AppTokenRefused,
    ClientForbidden,
    ClientUnknown,
    ExchangeError,
    IdentityUnavailable,
    MethodNotAllowed,
    PathRefused,
    RateLimited,
)
from gateway.model.http import SERVER_ERROR
from gateway.observe import get_logger
from gateway.proxy.problem import date_line, proxy_status_line, retry_lines
from gateway.proxy.upload import CONTINUE_HEAD, ended_upload

if TYPE_CHECKING:
    from gateway.access import Holder
    from gateway.model import AppTokenEndpoint, Presented, Route
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute

_log = get_logger("gatepass.access")
MAX_REQUEST: Final = 64 * 1024
"""Bytes of a token request's body."""
_HINT: Final = "No client is known by what was sent. Send your Gatepass key as the client secret"


def serves(prepared: PreparedRoute, endpoint: AppTokenEndpoint, x: Exchange) -> bool:
    """Whether this request at the path of a token endpoint is a token request that the route answers."""
    return prepared.route.app_tokens and endpoint.method == x.request.method


def not_served(route: Route, endpoint: AppTokenEndpoint) -> PathRefused | MethodNotAllowed:
    """Return the error for any other request at that path: no app reaches the vendor's token endpoint."""
    if route.app_tokens:
        return MethodNotAllowed(allow=(endpoint.method,))
    return PathRefused("Gatepass fetches tokens itself; send your key in X-Gatepass-Key")


async def serve(x: Exchange, prepared: PreparedRoute, endpoint: AppTokenEndpoint, path: str, *, draining: bool) -> None:
    """Answer a token request. `path` is the endpoint's, below the route's prefix."""
    x.keep_alive = x.inbound.keep_alive and not draining
    x.path = path  # not the target, which may name any authority
    scheme = "Basic"
    try:
        body = await _read_body(x)
        presented = endpoint.read(x.request.values, x.request.target.partition("?")[2], body)
        scheme = presented.scheme
        try:
            holder = _authenticate(x, prepared, presented)
        except SigningKeysNeeded as needed:
            await needed.keys.refetch()
            holder = _authenticate(x, prepared, presented)
        token, life = await x.snapshot.clients.issue(holder, prepared.route)
    except ExchangeError as error:
        if isinstance(error, ClientUnknown):
            await x.hold_401()
        _write_error(x, prepared, scheme, error)
        return
    status, answer = endpoint.answer(token, life, wall=time.time(), scope=presented.scope)
    _write(x, status, answer)
    prepared.metrics.app_token(x.client_name or "", "issued")
    _log.info("app_token_issued", route=prepared.route.name, client=x.client_name, life=life)


def _authenticate(x: Exchange, prepared: PreparedRoute, presented: Presented) -> Holder:
    clients, trusted, remote = x.snapshot.clients, x.snapshot.trusted, x.client.remote
    if trusted is not None and remote in trusted:
        x.forwarded_from = remote = forwarded_client(remote, x.request.values(b"x-forwarded-for"), trusted)
    holder = clients.holder(presented.secrets, prepared.route, x.client.certificate)
    x.allowance, x.client_name = holder.allowance, holder.allowance.name
    holder.allowance.check_address(remote)
    holder.allowance.admit_token_request(x.started)
    return holder


async def _read_body(x: Exchange) -> bytes:
    """Return the whole body. Raises AppTokenRefused when it is too large, and what reading it raises."""
    length = x.inbound.length
    if length is not None and length > MAX_REQUEST:
        raise _too_large()
    if x.inbound.expects_continue and not x.body.ended:
        x.client.write(CONTINUE_HEAD)
    pieces, size = [], 0
    x.client.body_awaited()
    try:
        while piece := await x.body.read():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_REQUEST:
                raise _too_large()
    finally:
        x.client.body_not_awaited()
        x.upload = ended_upload(x.client, x.body.size)
    return b"".join(pieces)


def _too_large() -> AppTokenRefused:
    return AppTokenRefused(f"A token request may hold {MAX_REQUEST} bytes", error="invalid_request")


def _write_error(x: Exchange, prepared: PreparedRoute, scheme: str, error: ExchangeError) -> None:
    """Answer with the error that OAuth has for it; `scheme` is the authentication that the app tried."""
    code, status = _oauth(error)
    detail = _HINT if isinstance(error, ClientUnknown) else error.detail
    body = orjson.dumps({"error": code, "error_description": detail, "message": detail})
    fields = (
        [f'WWW-Authenticate: {scheme} realm="gatepass"'.encode("ascii")] if status == HTTPStatus.UNAUTHORIZED else []
    )
    fields += [proxy_status_line(error), *retry_lines(error)]
    x.code, x.reason = error.code, error.reason or error.detail
    _write(x, status, body, *fields)
    prepared.metrics.app_token(x.client_name or "", code)
    _log.warning("app_token_refused", route=prepared.route.name, client=x.client_name, outcome=code, reason=x.reason)


def _oauth(error: ExchangeError) -> tuple[str, int]:
    """Return the error code and status of RFC 6749 §5.2 for one of ours."""
    if isinstance(error, ClientUnknown):
        return "invalid_client", error.status
    if isinstance(error, ClientForbidden):
        return "unauthorized_client", AppTokenRefused.status
    if isinstance(error, AppTokenRefused):
        return error.error, error.status
    if isinstance(error, RateLimited):
        return "slow_down", error.status
    if isinstance(error, IdentityUnavailable):
        return "temporarily_unavailable", error.status
    return ("invalid_request" if error.status < SERVER_ERROR else "server_error"), error.status


def _write(x: Exchange, status: int, body: bytes, *fields: bytes) -> None:
    x.keep_alive = x.keep_alive and x.body.ended and x.inbound.keep_alive
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode("ascii"),
        date_line(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"Pragma: no-cache",
        b"X-Request-Id: " + x.request_id.encode("latin-1"),
        *fields,
    ]
    if not x.keep_alive:
        lines.append(b"Connection: close")
    x.status, x.bytes_out = status, len(body)
    x.client.write(b"\r\n".join((*lines, b"", b"" if x.is_head else body)))
