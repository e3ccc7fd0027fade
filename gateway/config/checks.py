"""Checks that need more than one section: routes, credentials, clients, issuers and ports against each other.

Each check adds its problems and returns, so that one run reports all of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.addresses import is_loopback
from gateway.config.keys.guessable import hashes, is_guessable
from gateway.config.keys.identity import GUESSABLE
from gateway.config.names import nearest_or_all
from gateway.model import Money

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.keys.client import ClientSection
    from gateway.config.keys.file import FileSection
    from gateway.config.keys.issuer import IssuerSection
    from gateway.config.keys.route import RouteSection
    from gateway.config.read.tree import Node, Path, Problems


def routes_name_credentials(root: Node, problems: Problems) -> None:
    """Each credential that a route uses must exist."""
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
    problems.add(node.mark, (*path, "credential"), f"there is no credential {shown}{nearest_or_all(node.value, known)}")


def prefixes_differ(root: Node, routes: Mapping[str, RouteSection], problems: Problems) -> None:
    """Two routes must not have the same prefix; one inside another is allowed, the longest wins."""
    owner: dict[str, str] = {}
    for name, keys in routes.items():
        prefix = keys.prefix or f"/{name}"
        if prefix in owner:
            mark = root.mark_at(("routes", name, "prefix"))
            problems.add(mark, ("routes", name, "prefix"), f"is already the prefix of route {owner[prefix]}")
        owner.setdefault(prefix, name)


def hosts_differ(root: Node, routes: Mapping[str, RouteSection], problems: Problems) -> None:
    """A host name selects one route."""
    owner: dict[str, str] = {}
    for name, keys in routes.items():
        for index, host in enumerate(keys.hosts):
            holder = owner.setdefault(host.lower().rstrip("."), name)
            if holder != name:
                path: Path = ("routes", name, "hosts", index)
                problems.add(root.mark_at(path), path, f"is already a host of route {holder}")


def clients_differ(root: Node, clients: Mapping[int, ClientSection], problems: Problems) -> None:
    """Names, keys and names in certificates must be unique, because each must identify one client."""
    names: dict[str, int] = {}
    keys: dict[str, int] = {}
    for index, client in clients.items():
        path: Path = ("clients", index)
        if client.name in names:
            problems.add(
                root.mark_at((*path, "name")), (*path, "name"), f"is already the name of clients[{names[client.name]}]"
            )
        names.setdefault(client.name, index)
        for which in ("key_sha256", "keys_sha256", "keys", "certificates"):
            for key in _digests(client, which):
                if key in keys:
                    what = "a name" if which == "certificates" else "a key"
                    message = f"contains {what} of clients[{keys[key]}]"
                    problems.add(root.mark_at((*path, which)), (*path, which), message)
                keys.setdefault(key, index)


def keys_are_no_names(root: Node, keys: FileSection, clients: Mapping[int, ClientSection], problems: Problems) -> None:
    """No key may be a name from the configuration itself, because names are shown in logs and answers."""
    names = hashes({client.name for client in clients.values()} | _names(root, "routes") | _names(root, "credentials"))
    for index, client in clients.items():
        for which in ("key_sha256", "keys_sha256", "keys"):
            if any(is_guessable(digest, names) for digest in _digests(client, which)):
                path: Path = ("clients", index, which)
                problems.add(root.mark_at(path), path, GUESSABLE)
    if any(is_guessable(digest, names) for digest in keys.admin_keys_sha256):
        problems.add(root.mark_at(("admin_keys_sha256",)), ("admin_keys_sha256",), GUESSABLE)


def _digests(client: ClientSection, which: str) -> list[str]:
    given = getattr(client, which)
    return [
        each if isinstance(each, str) else each.sha256 for each in ((given,) if isinstance(given, str) else given or ())
    ]


def clients_name_routes(root: Node, clients: Mapping[int, ClientSection], problems: Problems) -> None:
    """A client's routes must exist, and its limits and budgets must be for routes that it may use."""
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
                problems.add(root.mark_at(path), path, f"there is no route {shown}{nearest_or_all(name, known)}")
            elif client.routes is not None and name not in client.routes:
                problems.add(root.mark_at(path), path, f"the client may not use the route {shown}: see its `routes`")


def budgets_have_prices(
    root: Node, clients: Mapping[int, ClientSection], routes: Mapping[str, RouteSection], problems: Problems
) -> None:
    """A budget in money needs a price of its route, in the same currency and not above the budget."""
    for index, client in clients.items():
        for at, budget in enumerate(client.budgets):
            price = routes[budget.route].price if budget.route in routes else None
            for which in ("soft", "hard", "outage_allowance"):
                limit = getattr(budget, which)
                path: Path = ("clients", index, "budgets", at, which)
                if not isinstance(limit, Money) or budget.route not in routes:
                    continue
                if price is None:
                    problems.add(root.mark_at(path), path, "an amount needs a `price` of the route")
                elif price.currency != limit.currency:
                    problems.add(root.mark_at(path), path, f"the price of the route is in {price.currency}")
                elif price.per_call > limit.amount:
                    problems.add(root.mark_at(path), path, "is less than one call costs")


def issuers_differ(root: Node, issuers: Mapping[str, IssuerSection], problems: Problems) -> None:
    """Two issuers must not share an `iss`, because it decides whose keys verify a JWT."""
    names: dict[str, str] = {}
    for name, issuer in issuers.items():
        path: Path = ("issuers", name, "issuer")
        if issuer.issuer in names:
            words = f"is already the issuer of issuers.{names[issuer.issuer]}: give that one both audiences"
            problems.add(root.mark_at(path), path, words)
        names.setdefault(issuer.issuer, name)


def clients_can_authenticate(root: Node, clients: Mapping[int, ClientSection], problems: Problems) -> None:
    """The issuers of a client's JWTs must exist, and certificates need a port that requests them."""
    known = _names(root, "issuers")
    for index, client in clients.items():
        for at, each in enumerate(client.jwt):
            path: Path = ("clients", index, "jwt", at, "issuer")
            node = root.at(path)
            if each.issuer not in known:
                shown = "of this name" if node is None or node.dynamic else repr(each.issuer)
                problems.add(
                    root.mark_at(path), path, f"there is no issuer {shown}{nearest_or_all(each.issuer, known)}"
                )
        if client.certificates and root.at(("tls", "client_ca")) is None:
            path = ("clients", index, "certificates")
            problems.add(root.mark_at(path), path, "the data port does not request certificates: set `tls.client_ca`")


def somebody_may_call(root: Node, keys: FileSection, problems: Problems) -> None:
    """A port that other machines can reach needs clients, or `access: open`."""
    written = root.at(("clients",))
    local = all(is_loopback(address.host) for address in keys.listen)
    if keys.access == "clients" and not (written and written.items) and not local:
        problems.add(
            root.mark_at(("listen",)),
            ("listen",),
            "is not loopback, and there are no clients: add `clients` (`gatepass keys new NAME` makes a key), "
            "or set `access: open`",
        )


def ports_differ(root: Node, keys: FileSection, problems: Problems) -> None:
    """The data port and the admin port must have different addresses."""
    if keys.admin is not None and keys.admin.port and keys.admin in keys.listen:
        problems.add(root.mark_at(("admin",)), ("admin",), "is the address of `listen`; give it a port of its own")


def extra_missing(name: str) -> str:
    """Return what to do. Not the name alone: an index may have another project of this name."""
    return f"needs packages that are not installed: pip install 'WHEEL[{name}]', with your wheel"


def tracing_is_installed(root: Node, keys: FileSection, problems: Problems) -> None:
    """Tracing needs packages that may not be installed."""
    if keys.tracing is not None and find_spec("opentelemetry") is None:
        problems.add(root.mark_at(("tracing",)), ("tracing",), extra_missing("tracing"))


def store_is_installed(root: Node, keys: FileSection, problems: Problems) -> None:
    """The shared store needs a package that may not be installed."""
    if keys.store is not None and find_spec("redis") is None:
        problems.add(root.mark_at(("store",)), ("store",), extra_missing("store"))


def there_is_a_route(root: Node, problems: Problems) -> None:
    """A gateway without routes would answer 404 to everything; without `planes.push` it would do nothing else."""
    if root.at(("planes", "push")) is not None:
        return
    if not _mapping(root, "routes") and (node := root.at(("routes",))) is None:
        problems.add(root.mark, ("routes",), "is missing: there is nothing to serve")
    elif not _mapping(root, "routes") and node is not None:
        problems.add(node.mark, ("routes",), "is empty: there is nothing to serve")


def _mapping(root: Node, key: str) -> Mapping[str, Node]:
    node = root.entries.get(key)
    return {} if node is None else {name: each for name, each in node.entries.items() if each.value is not None}


def _names(root: Node, key: str) -> set[str]:
    return set(_mapping(root, key))
