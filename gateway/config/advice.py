"""Warnings: what is valid but can never have an effect, which is usually a mistake. `gatepass check` prints them.

Like `checks`, but the configuration is still used.
"""

from __future__ import annotations

import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gateway.config.keys.http import RULE
from gateway.config.read.tree import dotted
from gateway.model.http import METHODS, UNSERVED_METHODS
from gateway.mounts import IN_MEMORY, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.config.keys.client import ClientLimitSection, ClientSection
    from gateway.config.keys.file import FileSection
    from gateway.config.keys.planes import PushSection
    from gateway.config.keys.route import RouteSection
    from gateway.config.read.tree import Node, Path

VARIABLE = re.compile(r"(?<!\$)\$[A-Z_][A-Z0-9_]*")
Advice = tuple["Path", str]
"""Where it stands, and the warning."""


def advice(
    root: Node, keys: FileSection, clients: Mapping[int, ClientSection], routes: Mapping[str, RouteSection]
) -> list[str]:
    """Return all warnings, each with its file and line, in the order of the files."""
    collected = [*_variables(root), *_file(root, keys, clients, routes), *_passes(root, keys, clients, routes)]
    for name, route in routes.items():
        collected += [(("routes", name, *path), text) for path, text in _route(route, route.prefix or f"/{name}")]
    prefixes = {name: (route.prefix or f"/{name}", route) for name, route in routes.items()}
    for index, client in clients.items():
        usable = {n: each for n, each in prefixes.items() if client.routes is None or n in client.routes}
        collected += [(("clients", index, *path), text) for path, text in _client(client, usable, prefixes)]
    marked = sorted({(root.mark_at(path), dotted(path), text) for path, text in collected}, key=str)
    return [f"{mark.file}:{mark.line}: {where}: {text}" for mark, where, text in marked]


def _variables(root: Node) -> Iterator[Advice]:
    for path, node in root.walk():
        if isinstance(node.value, str) and not node.dynamic and VARIABLE.search(node.value):
            yield path, "`$` and a name are used as they are written; a variable is written `${NAME}`"


def _file(
    root: Node, keys: FileSection, clients: Mapping[int, ClientSection], routes: Mapping[str, RouteSection]
) -> Iterator[Advice]:
    if keys.access == "open" and clients:
        yield ("clients",), "no client is authenticated, because of `access: open`"
    used = {each.issuer for client in clients.values() for each in client.jwt}
    for name in set(keys.issuers) - used:
        yield ("issuers", name), "no client has a JWT of this issuer"
    named = {name for route in routes.values() for name in _credentials(route)}
    pushed = keys.planes.push if keys.planes is not None else {}
    named |= {name for each in pushed.values() for name in each.credentials}
    yield from _folders(pushed)
    section = root.entries.get("credentials")
    for name, node in (section.entries if section is not None else {}).items():
        if node.value is not None and name not in named:
            yield ("credentials", name), "no route uses this credential"
        elif "revoke" in node.entries and node.entries.get("revoke_on_shutdown") is None and "grant" in node.entries:
            yield ("credentials", name, "revoke"), "is never sent without `revoke_on_shutdown: true`"
    yield from _store(root, keys)
    if keys.admin is None:
        for which in ("admin_keys_sha256", "admin_hosts"):
            if getattr(keys, which):
                yield (which,), "there is no admin port: `admin` is null"
    if not keys.logs.access and keys.logs.sample < 1:
        yield ("logs", "sample"), "requests are not logged at all: `logs.access` is false"


def _folders(pushed: Mapping[str, PushSection]) -> Iterator[Advice]:
    for name, plane in pushed.items():
        # A folder whose parent is missing is that of another machine.
        kind = kind_of(plane.directory) if plane.directory.parent.exists() else None
        if kind is not None and kind not in IN_MEMORY:
            text = f"is on a disk ({kind}), and tokens are written there: use a folder in memory (tmpfs)"
            yield ("planes", "push", name, "directory"), text


def _store(root: Node, keys: FileSection) -> Iterator[Advice]:
    section = root.entries.get("credentials")
    for name, node in (section.entries if section is not None else {}).items():
        if "store_outage" in node.entries and keys.store is None:
            yield ("credentials", name, "store_outage"), "has no effect without `store`"


def _passes(
    root: Node, keys: FileSection, clients: Mapping[int, ClientSection], routes: Mapping[str, RouteSection]
) -> Iterator[Advice]:
    """A pass is signed with something that the gateway and the app alone know; of a JWT the app knows nothing."""
    if keys.app_token_key is not None or keys.access == "open":
        return
    section = root.entries.get("credentials")
    static = {
        name for name, node in (section.entries if section is not None else {}).items() if "static" in node.entries
    }
    served = [name for name, route in routes.items() if route.app_tokens and set(_credentials(route)) - static]
    for index, client in clients.items():
        mine = [name for name in served if client.routes is None or name in client.routes]
        if client.jwt and mine and not (client.key_sha256 or client.keys_sha256 or client.keys):
            text = "set `app_token_key`, or `app_tokens: false` on these routes"
            yield (
                ("clients", index, "jwt"),
                f"an SDK that fetches its own token gets none with a JWT on {', '.join(mine)}: {text}",
            )


def _credentials(route: RouteSection) -> tuple[str, ...]:
    named = (route.credential, *(each.credential for each in route.inject or ()))
    return tuple(name for name in named if name is not None)


def _route(route: RouteSection, prefix: str) -> Iterator[Advice]:
    for which in ("allow", "deny"):
        patterns = getattr(route, which)
        yield from _repeated(which, patterns)
        for index, pattern in enumerate(patterns):
            if pattern == prefix or pattern.startswith(f"{prefix}/"):
                yield (which, index), f"begins with the route's prefix {prefix}; patterns are for the path below it"
    for index, pattern in enumerate(route.allow):
        if pattern in route.deny:
            yield ("allow", index), "never applies, because `deny` has the same pattern"
    for index, method in enumerate(route.methods or ()):
        if method not in METHODS:
            yield ("methods", index), f"there is no method {method}; such a request gets 400"


def _client(
    client: ClientSection, usable: Mapping[str, tuple[str, RouteSection]], all_: Mapping[str, tuple[str, RouteSection]]
) -> Iterator[Advice]:
    for which in ("allow", "deny"):
        yield from _repeated(which, getattr(client, which))
        for index, rule in enumerate(getattr(client, which)):
            for text in _rule(rule, usable, all_, fold=which == "deny"):
                yield (which, index), text
    for index, rule in enumerate(client.allow):
        if rule in client.deny:
            yield ("allow", index), "never applies, because `deny` has the same rule"
    yield from _limits(client.limits, usable)
    for index, key in enumerate(client.keys):
        if key.expires is not None and key.expires <= time.time():
            yield ("keys", index, "expires"), "the key has expired"


def _repeated(which: str, items: Iterable[str]) -> Iterator[Advice]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        if item in seen:
            yield (which, index), f"is the same as {which}[{seen[item]}]"
        seen.setdefault(item, index)


def _rule(
    rule: str,
    usable: Mapping[str, tuple[str, RouteSection]],
    all_: Mapping[str, tuple[str, RouteSection]],
    *,
    fold: bool,
) -> Iterator[str]:
    match = RULE.fullmatch(rule)
    pattern = match["pattern"] if match else rule
    methods = {each.strip() for each in rule.removesuffix(pattern).split(",")} - {"", "*"}
    for method in sorted(methods - METHODS):
        yield f"there is no method {method}; such a request gets 400"
    for method in sorted(methods & UNSERVED_METHODS):
        yield f"no route takes {method}"
    if methods and not methods & METHODS - UNSERVED_METHODS:
        return
    reached = {name: route for name, (prefix, route) in usable.items() if _reaches(pattern, prefix, fold=fold)}
    if not reached:
        others = [name for name, (prefix, _) in all_.items() if _reaches(pattern, prefix, fold=fold)]
        why = f"the client may not use {', '.join(others)}" if others else "a rule includes the route's prefix"
        yield f"matches no path of the client's routes; {why}"
    elif methods and all(each.methods is not None and not methods & set(each.methods) for each in reached.values()):
        yield f"no request gets so far: {', '.join(reached)} takes other methods"


def _reaches(pattern: str, prefix: str, *, fold: bool) -> bool:
    """Return whether a pattern can match a path at or below a prefix."""
    if fold:
        pattern, prefix = pattern.lower(), prefix.lower()
    wanted, given = pattern.split("/")[1:], prefix.split("/")[1:]
    for index, segment in enumerate(given):
        if index >= len(wanted):
            return False
        head, deep, _ = wanted[index].partition("**")
        if deep:
            return fnmatchcase(segment, f"{head}*")
        if not fnmatchcase(segment, wanted[index].replace("[", "[[]").replace("?", "[?]")):
            return False
    return True


def _limits(limits: tuple[ClientLimitSection, ...], usable: Mapping[str, object]) -> Iterator[Advice]:
    """Later entries win field by field, and a burst is nothing without a rate."""
    for index, limit in enumerate(limits):
        mine = [name for name in usable if limit.routes is None or name in limit.routes]
        for field in ("rate", "burst", "in_flight"):
            if getattr(limit, field) is None or not mine:
                continue
            later = {
                name
                for other in limits[index + 1 :]
                for name in mine
                if getattr(other, field) is not None and (other.routes is None or name in other.routes)
            }
            if later == set(mine):
                yield ("limits", index, field), "never applies, because later entries set it for the same routes"
        rated = {
            name
            for other in limits
            for name in mine
            if other.rate is not None and (other.routes is None or name in other.routes)
        }
        if limit.burst is not None and not rated:
            yield ("limits", index, "burst"), "has no effect without `rate`"
