"""Reads the app's request from a plane's question. Pure.

A question is `GET /ask/ROUTE`; `GET /report/ROUTE` only reports a refused token. `planes.ask.*.request` says which
fields of the question hold the app's method and target. Any other field may have been written by the app, so it is
never read for that. A question that lacks one of these fields, or has one twice, gets no token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest, RouteNotFound
from gateway.model.http import METHODS
from gateway.proxy.routing import check_path, split_target

if TYPE_CHECKING:
    from gateway.model import AskPlane, Route
    from gateway.proxy.request import RequestHead

_ASK: Final = "/ask/"
_REPORT: Final = "/report/"
_FIELDS: Final[dict[str, tuple[bytes, bytes]]] = {
    "x-forwarded": (b"x-forwarded-method", b"x-forwarded-uri"),
    "x-original": (b"x-original-method", b"x-original-uri"),
}
"""The fields with method and target, by the value of `planes.ask.*.request`."""
REFUSED: Final = b"x-gatepass-refused"
GENERATION: Final = b"x-gatepass-generation"


def split_question(target: str) -> tuple[str, str, bool]:
    """Return the route's name, what follows it, and whether this is only a report. Raises RouteNotFound."""
    report = target.startswith(_REPORT)
    if not report and not target.startswith(_ASK):
        raise RouteNotFound("A question of a plane is GET /ask/ROUTE")
    name, slash, rest = target[len(_REPORT if report else _ASK) :].partition("/")
    return (name, slash + rest, report) if slash else (name.partition("?")[0], "", report)


def asked(request: RequestHead, behind: str, plane: AskPlane) -> tuple[str, str]:
    """Return the method and the target of the app's request.

    `behind` is what follows the route's name in the question's target. Raises BadRequest if the question does not have
    both exactly once.
    """
    if plane.request == "path":
        return request.method, behind or "/"
    if request.method != "GET" or behind:
        raise BadRequest("A question of this plane is GET /ask/ROUTE", reason=f"planes.ask.{plane.name}.request")
    method, target = [_one(request, name) for name in _FIELDS[plane.request]]
    if method not in METHODS:
        raise BadRequest("The app's method is not one of HTTP")
    return method, target


def _one(request: RequestHead, name: bytes) -> str:
    values = request.values(name)
    if len(values) != 1 or not values[0]:
        shown = name.decode("ascii")
        raise BadRequest(
            f"The plane must send the field {shown} exactly once",
            reason=f"{len(values)} fields {shown}: is the plane configured as in deploy/planes?",
        )
    return values[0]


def paths(target: str, plane: AskPlane, route: Route) -> tuple[str, str]:
    """Return the path of the app's request with the route's prefix, and without it.

    Raises PathRefused as on the data port, and RouteNotFound if the plane's paths should have the prefix but lack it.
    """
    path, _ = split_target(target)
    check_path(path)
    prefix = route.prefix
    if not plane.prefix:
        return prefix + path, path
    rest = path[len(prefix) :]
    if not path.startswith(prefix) or (rest and rest[0] != "/"):
        raise RouteNotFound(
            "The path does not begin with the prefix of the route",
            reason=f"no prefix {prefix}: if the plane has paths without it, set planes.ask.{plane.name}.prefix: false",
        )
    return path, rest


def refused(request: RequestHead) -> str:
    """Return the generation that the vendor has refused, or an empty text. Raises BadRequest if there are several."""
    values = request.values(REFUSED)
    if len(values) > 1:
        raise BadRequest("A question names at most one refused generation")
    return values[0] if values else ""


def reported(request: RequestHead) -> str:
    """Return the refused generation of a report, in either field: some planes can only send back the field they got.

    Raises BadRequest unless there is exactly one.
    """
    values = {*request.values(REFUSED), *request.values(GENERATION)} - {""}
    if len(values) != 1:
        raise BadRequest("A report names one generation in X-Gatepass-Refused or X-Gatepass-Generation")
    return values.pop()
