"""Whether a client may send a request: one pure function for the hot path and for `gatepass routes --client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import MethodNotAllowed
from gateway.model.http import IDEMPOTENT_METHODS, UNSERVED_METHODS

if TYPE_CHECKING:
    from gateway.access import Allowance
    from gateway.model import Route
    from gateway.proxy.routing import PathRules


def check_permission(
    allowance: Allowance,
    route: Route,
    rules: PathRules,
    *,
    method: str,
    path: str,
    rest: str,
    remote: str | None,
    plain: bool = False,
) -> None:
    """Check the client's addresses and rules, then the route's methods and rules. Counts nothing.

    Args:
        allowance: of the client on the route.
        route: the route.
        rules: the route's `allow` and `deny`.
        method: of the request.
        path: its path, with the route's prefix.
        rest: the same path without the prefix.
        remote: the app's address; None if it is not known, and then it is not checked.
        plain: the path is known to have only one reading; then it costs less.

    Raises:
        ClientForbidden: the client may not do this, or not from this address.
        MethodNotAllowed: the route does not allow the method.
        PathRefused: the route does not allow the path.
    """
    allowance.check(method, path, remote, plain=plain)
    if method in UNSERVED_METHODS or (route.methods is not None and method not in route.methods):
        raise MethodNotAllowed(allow=tuple(sorted(route.methods or IDEMPOTENT_METHODS | {"POST", "PATCH"})))
    rules.check(rest, plain=plain)
