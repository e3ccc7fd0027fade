"""Decides whether a request is let in: who is calling, and whether that client may do this. All of it in memory.

Only three requests wait: one with a JWT whose key must be fetched first, one at the edge of a budget that instances
share, and a rejected caller, so that the time does not tell why.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from gateway.access import EscrowNeeded, SigningKeysNeeded
from gateway.addresses import forwarded_client
from gateway.errors import BodyTooLarge, ClientForbidden, ClientUnknown, ExchangeError, Overloaded, RouteNotFound
from gateway.proxy import app_tokens
from gateway.proxy.local import check_local
from gateway.proxy.permission import check_permission
from gateway.proxy.routing import split_target

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.prepared import PreparedRoute, Snapshot


_MOST_ROUND_TRIPS: Final = 64
"""Round trips for which a call waits while others take what the store grants; each grant is a part of the budget."""


def admit(x: Exchange, prepared: PreparedRoute, path: str, rest: str) -> None:
    """Authenticate the client and check that it may send this request.

    EscrowNeeded leaves it at the last step, the limits.
    """
    route, inbound, snapshot = prepared.route, x.inbound, x.snapshot
    if prepared.templates is not None:
        x.path = prepared.templates.match(rest)
    client, clients = x.client, snapshot.clients
    remote = client.remote
    if snapshot.trusted is not None and remote in snapshot.trusted:
        given = x.request.values(b"x-forwarded-for")
        x.forwarded_from = remote = forwarded_client(remote, given, snapshot.trusted)
    token = _token(x, prepared) if inbound.key is None else None
    x.allowance = allowance = clients.identify(inbound.key, token, route, client.certificate, client.last_key)
    x.client_name = allowance.name
    if clients.local_only:
        check_local(x.request, snapshot.hosts)
    if prepared.passes_logins:
        clients.reject_our_keys(x.request.values(b"authorization"))
    if rest in prepared.endpoints:
        raise app_tokens.not_served(route, prepared.endpoints[rest])
    check_permission(
        allowance,
        route,
        prepared.rules,
        method=x.request.method,
        path=path,
        rest=rest,
        remote=remote,
        plain=x.plain,
    )
    if inbound.length is not None and route.max_body is not None and inbound.length > route.max_body:
        raise BodyTooLarge(route.max_body)
    x.admission = allowance.admit(x.started)


def _token(x: Exchange, prepared: PreparedRoute) -> bytes | None:
    """Return the key, JWT or pass that the app sends where the vendor's token goes."""
    inbound = x.inbound
    if inbound.bearer is None and inbound.injected and not x.client.certificate:
        return prepared.app_token(inbound.injected)
    return inbound.bearer


def reason_to_end(x: Exchange, snapshot: Snapshot) -> str:
    """Return why a tunnel must end: its request would be refused now, or sent elsewhere. Empty if it may go on.

    Counts nothing.
    """
    assert x.prepared is not None  # noqa: S101 - a tunnel has a route
    before, method = x.prepared.route, x.request.method
    try:
        prepared, path, rest = snapshot.match(split_target(x.request.target)[0], x.request)
        route = prepared.route
        if route.name != before.name or route.upstream != before.upstream or not route.websocket:
            return f"the route {before.name} was changed"
        client, key = x.client, x.inbound.key
        token = _token(x, prepared) if key is None else None
        allowance = snapshot.clients.identify(key, token, route, client.certificate, client.last_key)
        if allowance.name != x.client_name:
            return "its key belongs to another client now"
        check_permission(allowance, route, prepared.rules, method=method, path=path, rest=rest, remote=x.remote)
    except SigningKeysNeeded:
        return ""
    except ExchangeError as error:
        return error.reason or error.code
    return ""


async def _admit_at_the_edge(x: Exchange, needed: EscrowNeeded) -> None:
    """Admit a call after the shared store has said whether something is left of its budget.

    Usually that is one round trip. Raises as `Allowance.admit`.
    """
    allowance = x.allowance
    assert allowance is not None  # noqa: S101 - set by `admit`
    for _ in range(_MOST_ROUND_TRIPS):
        await needed.wait()
        try:
            x.admission = allowance.admit(x.started)
        except EscrowNeeded as still:
            needed = still
        else:
            return
    raise Overloaded(retry_after=1.0)


async def admit_later(x: Exchange, error: ClientUnknown | RouteNotFound | SigningKeysNeeded | EscrowNeeded) -> None:
    """Check a JWT again after the key that it names was fetched; reject an unknown caller after a fixed time.

    At the edge of a budget that instances share, wait for the store, and admit again.

    Every 401 leaves `UNKNOWN_AFTER` seconds after its request, however long the check took. Only a JWT that waits for
    its issuer's keys is answered later, and which keys an issuer has is no secret (docs/access.md).
    """
    if isinstance(error, EscrowNeeded):
        return await _admit_at_the_edge(x, error)
    try:
        if isinstance(error, RouteNotFound):
            _authenticate(x)
        elif isinstance(error, SigningKeysNeeded):
            return await _after_refetch(x, error, error)
    except SigningKeysNeeded as needed:
        return await _after_refetch(x, needed, error)
    except ClientUnknown as unknown:
        error = unknown
    if isinstance(error, ClientUnknown):
        await x.hold_401()
    raise error


async def _after_refetch(
    x: Exchange, needed: SigningKeysNeeded, error: ClientUnknown | RouteNotFound | SigningKeysNeeded
) -> None:
    await needed.keys.refetch()
    try:
        if not isinstance(error, RouteNotFound):
            path, _ = split_target(x.request.target)
            return admit(x, *x.snapshot.match(path, x.request))
        _authenticate(x)
    except EscrowNeeded as edge:
        return await _admit_at_the_edge(x, edge)
    except ClientUnknown:
        await x.hold_401()
        raise
    raise error


def _authenticate(x: Exchange) -> None:
    """Authenticate a caller whose path has no route, as a route would: an unknown one gets the same 401.

    Otherwise unknown callers could tell the paths of routes from others. Raises ClientUnknown, IdentityUnavailable,
    SigningKeysNeeded.
    """
    inbound = x.inbound
    with contextlib.suppress(ClientForbidden):  # a known client: it may learn that there is no such route
        x.snapshot.clients.identify(inbound.key, inbound.bearer, x.snapshot.routes[0].route, x.client.certificate)
