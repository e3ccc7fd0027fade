"""What no single key can show: routes against each other and against credentials, clients against routes, who may call.

Each check adds to the problems and goes on, so that one run tells everything.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.config.keys import net
from gateway.config.read.expand import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.keys.clients import ClientKeys, IssuerKeys
    from gateway.config.keys.file import FileKeys, RouteKeys
    from gateway.config.read.tree import Node, Path, Problems


def routes_name_credentials(root: Node, problems: Problems) -> None:
    """Every credential that a route asks for exists. Names are compared as written, so one mistake stays one."""
    known = _names(root, "credentials")
    for name, route in _mapping(root, "routes").items():
        path: Path = ("routes", name)
        _one_of(route, path, known, problems)
        injections = route.entries.get("inject")
        for index, each in enumerate(injections.items if injections is not None else ()):
            _one_of(each, (*path, "inject", index), known, problems)


def _one_of(holder: Node, path: Path, known: set[str], problems: Problems) -> None:
    node = holder.entries.get("credential")
    if node is None or not isinstance(node.value, str) or node.value in known:
        return
    shown = "of this name" if node.dynamic else repr(node.value)
    problems.add(node.mark, (*path, "credential"), f"there is no credential {shown}{_hint(node.value, known)}")


def prefixes_differ(root: Node, routes: Mapping[str, RouteKeys], problems: Problems) -> None:
    """Two routes with one prefix are a mistake; one inside another is not, the longest wins."""
    owner: dict[str, str] = {}
    for name, keys in routes.items():
        prefix = keys.prefix or f"/{name}"
        if prefix in owner:
            mark = root.mark_at(("routes", name, "prefix"))
            problems.add(mark, ("routes", name, "prefix"), f"is the prefix of route {owner[prefix]} already")
        owner.setdefault(prefix, name)


def clients_differ(root: Node, clients: Mapping[int, ClientKeys], problems: Problems) -> None:
    """Names and keys are unique: the one tells a log line's author, the other a request's."""
    names: dict[str, int] = {}
    keys: dict[str, int] = {}
    for index, client in clients.items():
        path: Path = ("clients", index)
        if client.name in names:
            problems.add(
                root.mark_at((*path, "name")), (*path, "name"), f"is the name of clients[{names[client.name]}] already"
            )
        names.setdefault(client.name, index)
        for which in ("key_sha256", "keys_sha256", "keys", "certificates"):
            given = getattr(client, which)
            for each in (given,) if isinstance(given, str) else given or ():
                key = each if isinstance(each, str) else each.sha256
                if key in keys:
                    what = "a name" if which == "certificates" else "a key"
                    problems.add(root.mark_at((*path, which)), (*path, which), f"holds {what} of clients[{keys[key]}]")
                keys.setdefault(key, index)


def clients_name_routes(root: Node, clients: Mapping[int, ClientKeys], problems: Problems) -> None:
    """A client's routes exist, and its limits and budgets are about routes that it may use."""
    known = _names(root, "routes")
    for index, client in clients.items():
        named: list[tuple[Path, str]] = [(("routes", at), name) for at, name in enumerate(client.routes or ())]
        for at, limit in enumerate(client.limits):
            named += [(("limits", at, "routes", place), name) for place, name in enumerate(limit.routes or ())]
        named += [(("budgets", at, "route"), budget.route) for at, budget in enumerate(client.budgets)]
        for below, name in named:
            path: Path = ("clients", index, *below)
            node = root.at(path)
            shown = "of this name" if node is None or node.dynamic else repr(name)
            if name not in known:
                problems.add(root.mark_at(path), path, f"there is no route {shown}{_hint(name, known)}")
            elif client.routes is not None and name not in client.routes:
                problems.add(root.mark_at(path), path, f"the client may not use the route {shown}: see its `routes`")


def issuers_differ(root: Node, issuers: Mapping[str, IssuerKeys], problems: Problems) -> None:
    """A JWT says by `iss` whose keys it is judged by: of two issuers with one, the tokens of the first fit nothing."""
    names: dict[str, str] = {}
    for name, issuer in issuers.items():
        path: Path = ("issuers", name, "issuer")
        if issuer.issuer in names:
            words = f"is the issuer of issuers.{names[issuer.issuer]} already: give that one both audiences"
            problems.add(root.mark_at(path), path, words)
        names.setdefault(issuer.issuer, name)


def clients_can_be_known(root: Node, clients: Mapping[int, ClientKeys], problems: Problems) -> None:
    """The issuers of a client's JWTs exist, and a port that asks for certificates does."""
    known = _names(root, "issuers")
    for index, client in clients.items():
        for at, each in enumerate(client.jwt):
            path: Path = ("clients", index, "jwt", at, "issuer")
            node = root.at(path)
            if each.issuer not in known:
                shown = "of this name" if node is None or node.dynamic else repr(each.issuer)
                problems.add(root.mark_at(path), path, f"there is no issuer {shown}{_hint(each.issuer, known)}")
        if client.certificates and root.at(("tls", "client_ca")) is None:
            path = ("clients", index, "certificates")
            problems.add(root.mark_at(path), path, "nobody is asked for a certificate: set `tls.client_ca`")


def somebody_may_call(root: Node, keys: FileKeys, problems: Problems) -> None:
    """Fail closed: a port that others can reach wants clients, or the word that it is meant to be open."""
    written = root.at(("clients",))
    if keys.access == "clients" and not (written and written.items) and not net.is_loopback(keys.listen.host):
        problems.add(
            root.mark_at(("listen",)),
            ("listen",),
            "is not loopback, and no client is known: add `clients` (`gatepass keys new NAME` makes a key), "
            "or say `access: open`",
        )


def ports_differ(root: Node, keys: FileKeys, problems: Problems) -> None:
    """Apps must never find the admin port behind the data port's address."""
    if keys.admin is not None and keys.admin.port and keys.admin == keys.listen:
        problems.add(root.mark_at(("admin",)), ("admin",), "is the address of `listen`; give it a port of its own")


def tracing_is_installed(root: Node, keys: FileKeys, problems: Problems) -> None:
    """Spans that nobody sends would be missed only when they are needed."""
    if keys.tracing is not None and find_spec("opentelemetry") is None:
        hint = "needs an extra that is not installed: pip install 'gatepass[tracing]'"
        problems.add(root.mark_at(("tracing",)), ("tracing",), hint)


def there_is_a_route(root: Node, problems: Problems) -> None:
    """A gateway without routes answers 404 to everything: surely a mistake."""
    if not _mapping(root, "routes") and (node := root.at(("routes",))) is None:
        problems.add(root.mark, ("routes",), "is missing: there is nothing to serve")
    elif not _mapping(root, "routes") and node is not None:
        problems.add(node.mark, ("routes",), "is empty: there is nothing to serve")


def _mapping(root: Node, key: str) -> Mapping[str, Node]:
    node = root.entries.get(key)
    return {} if node is None else {name: each for name, each in node.entries.items() if each.value is not None}


def _hint(name: str, known: set[str]) -> str:
    """The nearest name, or all of them."""
    return nearest(name, known) or ("; there are " + ", ".join(sorted(known)) if known else "; there are none")


def _names(root: Node, key: str) -> set[str]:
    return set(_mapping(root, key))
