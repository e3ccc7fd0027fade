"""From what the user wrote to what is meant: each credential and route with its profile beneath it.

A credential becomes one mapping, or two while a secret is rotated (`next`). Works on trees only, so that every value
keeps the line that it came from; knows the few keys that steer the expansion and none of the others.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.keys.credential import CredentialKeys
from gateway.config.read import profile as profiles
from gateway.config.read.tree import Absent, Node, Path, Problems, merge, without
from gateway.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECRET_KEY = re.compile(r"secret|password|passwd|token|credential|assertion|key$", re.IGNORECASE)
KEYS = frozenset(field.alias or name for name, field in CredentialKeys.model_fields.items())


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing when nothing is near."""
    found = difflib.get_close_matches(name, sorted(candidates), n=1)
    return f"; did you mean {found[0]}?" if found else ""


@dataclass(frozen=True, slots=True)
class Expanded:
    """A credential with its profile applied: today's mapping, the next one during a rotation, and their parts."""

    today: Node
    next: Node | None = None
    found: profiles.Profile | None = None
    given: profiles.Given | None = None
    params: frozenset[str] = frozenset()
    """Names of the profile's parameters: they are keys too, for suggestions."""


def expand_credential(node: Node, path: Path, problems: Problems) -> Expanded:
    """Apply the profile and split off `next`. A profile that does not exist is a problem and applies nothing."""
    entries = node.entries
    written = entries.get("profile")
    found: profiles.Profile | None = None
    if written is not None and not isinstance(written.value, str | Absent | None):
        problems.add(written.mark, (*path, "profile"), "must be a profile's name, written out")
        return Expanded(Node(Absent(), node.mark))
    if written is not None and isinstance(written.value, str):
        try:
            found = profiles.profile(written.value)
        except KeyError:
            hint = nearest(written.value, profiles.names()) or f"; there are {', '.join(profiles.names())}"
            problems.add(written.mark, (*path, "profile"), "no such profile" + hint)
            return Expanded(Node(Absent(), node.mark))
    short = _next_secrets(found, entries)
    today, given = _apply(found, without(node, "next", *short), path, problems)
    rotation = _rotation(node, short, path, problems)
    following = None
    if rotation is not None:
        following, _ = _apply(found, merge(without(node, "next", *short), rotation), path, problems)
    return Expanded(today, following, found, given, frozenset(found.params) if found else frozenset())


def _apply(
    found: profiles.Profile | None, node: Node, path: Path, problems: Problems
) -> tuple[Node, profiles.Given | None]:
    """Lay the user's keys over the profile's credential."""
    if found is None:
        return masked(node), None
    given = profiles.read_params(found, node.entries, path, node.mark, problems)
    own = without(node, *found.params)
    whole = profiles.lay_over(found, found.credential, given, own)
    _check_params(whole, found, given, path, problems)
    return masked(whole), given


def _check_params(whole: Node, found: profiles.Profile, given: profiles.Given, path: Path, problems: Problems) -> None:
    """A required parameter is missing only where its value still stands; one that is given must stand somewhere."""
    used: set[str] = set()
    for _, node in whole.walk():
        used |= node.params
        if isinstance(node.value, Absent) and node.value.param is not None:
            param = found.params[node.value.param]
            problems.add(given.home, (*path, param.name), f"is missing: {param.help}")
    for _, node in found.route.walk():
        used |= set(profiles.REFERENCE.findall(str(node.value)))
    for name, mark in given.marks.items():
        if name not in used:
            problems.add(mark, (*path, name), "is given, but nothing uses it any more")


def _next_secrets(found: profiles.Profile | None, entries: Mapping[str, Node]) -> dict[str, str]:
    """`next_client_secret` is short for `next: {client_secret: …}`: key → parameter, for those that are written."""
    params = found.params.values() if found else ()
    return {f"next_{param.name}": param.name for param in params if param.secret and f"next_{param.name}" in entries}


def _rotation(node: Node, short: Mapping[str, str], path: Path, problems: Problems) -> Node | None:
    """The mapping to lay over today's; None when there is no rotation (no `next`, or only empty values in it)."""
    written = node.entries.get("next")
    if written is not None and written.value is not None and not isinstance(written.value, dict):
        problems.add(written.mark, (*path, "next"), "must be a mapping: {client_secret: …}")
        return None
    base = written if written is not None and isinstance(written.value, dict) else Node({}, node.mark)
    entries = dict(base.entries) | {param: node.entries[key] for key, param in short.items()}
    whole = dataclasses.replace(base, value=entries)
    if not any(child.value or isinstance(child.value, Absent) for _, child in whole.walk()):
        return None
    if "static" in node.entries:
        problems.add(base.mark, (*path, "next"), "a static key is not rotated: replace it")
        return None
    return whole


def masked(node: Node, name: str = "", *, inside: bool = False) -> Node:
    """Wrap literal secrets of token requests too: what is called a secret is one, wherever it was written."""
    if isinstance(node.value, dict):
        here = (inside or name in {"request", "revoke", "probe", "static"}) and name != "client_certificate"
        return dataclasses.replace(
            node, value={key: masked(child, key, inside=here) for key, child in node.value.items()}
        )
    if isinstance(node.value, list):
        return dataclasses.replace(node, value=[masked(child, name, inside=inside) for child in node.value])
    if inside and isinstance(node.value, str) and SECRET_KEY.search(name) and "{token}" not in node.value:
        return dataclasses.replace(node, value=Secret(node.value), dynamic=True)
    return node


def expand_route(node: Node, credentials: Mapping[str, Expanded]) -> Node:
    """Lay a route over its profile's: that of its credential, or the one that all its injections share.

    The profile's denied paths stay denied beside the user's; an explicit `deny: null` takes them back.
    """
    used = [credentials.get(name) for name in credential_names(node)]
    first = used[0] if used else None
    if first is None or first.found is None or first.given is None:
        return node
    if any(each is None or each.found is not first.found for each in used):
        return node
    base = profiles.instantiate(first.found, first.found.route, first.given)
    whole = merge(base, node)
    mine, theirs = node.entries.get("deny"), base.entries.get("deny")
    if mine is None or theirs is None or not isinstance(mine.value, list):
        return whole
    both = dataclasses.replace(mine, value=[*mine.items, *theirs.items])
    return dataclasses.replace(whole, value={**whole.entries, "deny": both})


def credential_names(route: Node) -> list[str]:
    """Names of the credentials that a route asks for, as written."""
    nodes = [route.entries.get("credential")]
    nodes += [item.entries.get("credential") for item in _injections(route)]
    return [node.value for node in nodes if node is not None and isinstance(node.value, str)]


def _injections(route: Node) -> list[Node]:
    node = route.entries.get("inject")
    return list(node.items) if node is not None else []
