"""Credentials and routes merged over their profiles.

A credential becomes one mapping, or two while a secret is rotated (`next`). Works on trees only, so that every value
keeps its line. Knows the keys that control the merging (`profile`, `next`, `credential`, `inject`, `deny`), no others.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.names import nearest_or_all
from gateway.config.read import profile as profiles
from gateway.config.read.tree import Absent, Node, Path, Problems, merge, without
from gateway.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_KEY = re.compile(
    r"secret|passw|pass$|pwd|token|credential|assertion|auth|cookie|session|signature|^sig$|hmac|^pin$|^otp$|key$",
    re.IGNORECASE,
)
"""Names of request values that are secrets. `summary` hides many more; those here are also redacted in logs."""
PLAIN_KEY = re.compile(r".*_type(?:_hint)?", re.IGNORECASE)
"""Names such as `token_type_hint` and `client_assertion_type`, whose values are not secret."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """A credential merged over its profile: the current mapping and, during a rotation, the next one."""

    current: Node
    next: Node | None = None
    profile: profiles.Profile | None = None
    given: profiles.Given | None = None

    @property
    def params(self) -> frozenset[str]:
        """Return the names of the profile's parameters, which are suggested for mistyped keys."""
        return frozenset(self.profile.params) if self.profile else frozenset()


def expand_credential(node: Node, path: Path, problems: Problems) -> Expanded:
    """Merge a credential over its profile and split off `next`. An unknown profile is a problem."""
    entries = node.entries
    written = entries.get("profile")
    profile: profiles.Profile | None = None
    if written is not None and not isinstance(written.value, str | Absent | None):
        problems.add(written.mark, (*path, "profile"), "must be a profile's name, written out")
        return Expanded(Node(Absent(), node.mark))
    if written is not None and isinstance(written.value, str):
        try:
            profile = profiles.profile(written.value)
        except KeyError:
            problems.add(
                written.mark, (*path, "profile"), f"no such profile{nearest_or_all(written.value, profiles.names())}"
            )
            return Expanded(Node(Absent(), node.mark))
    short = _next_secrets(profile, entries)
    current, given = _apply(profile, without(node, "next", *short), path, problems)
    rotation = _rotation(node, short, path, problems)
    following = None
    if rotation is not None:
        following, _ = _apply(profile, merge(without(node, "next", *short), rotation), path, problems)
    return Expanded(current, following, profile, given)


def _apply(
    profile: profiles.Profile | None, node: Node, path: Path, problems: Problems
) -> tuple[Node, profiles.Given | None]:
    """Merge the user's keys over the profile's credential."""
    if profile is None:
        return masked(node), None
    given = profiles.read_params(profile, node.entries, path, node.mark, problems)
    own = without(node, *profile.params)
    whole = merge(profiles.instantiate(profile, profile.credential, given), own)
    _check_params(whole, profile, given, path, problems)
    return masked(whole), given


def _check_params(
    whole: Node, profile: profiles.Profile, given: profiles.Given, path: Path, problems: Problems
) -> None:
    """Report a required parameter that is used but not given, and one that is given but not used."""
    used: set[str] = set()
    for _, node in whole.walk():
        used |= node.params
        if isinstance(node.value, Absent) and node.value.param is not None:
            param = profile.params[node.value.param]
            problems.add(given.home, (*path, param.name), f"is missing: {param.help}")
    for _, node in profile.route.walk():
        used |= set(profiles.REFERENCE.findall(str(node.value)))
    for name, mark in given.marks.items():
        if name not in used:
            problems.add(mark, (*path, name), "is given, but nothing uses it")


def _next_secrets(profile: profiles.Profile | None, entries: Mapping[str, Node]) -> dict[str, str]:
    """Return the short keys that are written, as `next_client_secret`, and the parameter that each replaces."""
    params = profile.params.values() if profile else ()
    return {f"next_{param.name}": param.name for param in params if param.secret and f"next_{param.name}" in entries}


def _rotation(node: Node, short: Mapping[str, str], path: Path, problems: Problems) -> Node | None:
    """Return the mapping to merge over the current one; None without `next` or when it has only empty values."""
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
        problems.add(base.mark, (*path, "next"), "a static key has no rotation: replace it")
        return None
    return whole


def _is_secret(name: str) -> bool:
    return SECRET_KEY.search(name) is not None and PLAIN_KEY.fullmatch(name) is None


def masked(node: Node, name: str = "", *, inside: bool = False) -> Node:
    """Wrap literal secrets of token requests as `Secret`, by the names of their keys."""
    if isinstance(node.value, dict):
        here = (inside or name in {"request", "revoke", "probe", "static"}) and name != "client_certificate"
        return dataclasses.replace(
            node, value={key: masked(child, key, inside=here) for key, child in node.value.items()}
        )
    if isinstance(node.value, list):
        return dataclasses.replace(node, value=[masked(child, name, inside=inside) for child in node.value])
    if inside and isinstance(node.value, str) and _is_secret(name) and "{token}" not in node.value:
        return dataclasses.replace(node, value=Secret(node.value), dynamic=True)
    return node


def hide_proxy_passwords(node: Node, name: str = "") -> Node:
    """Wrap the password of every `egress` as `Secret`, whether it was written literally or came from `${…}`."""
    if isinstance(node.value, dict):
        entries = {key: hide_proxy_passwords(child, key) for key, child in node.value.items()}
        password = entries.get("password")
        if name == "egress" and password is not None and isinstance(password.value, str):
            entries["password"] = dataclasses.replace(password, value=Secret(password.value), dynamic=True)
        return dataclasses.replace(node, value=entries)
    return node


def hide_store_secrets(root: Node) -> Node:
    """Wrap the password and the keys of `store` as `Secret`, whether written literally or from `${…}`."""
    store = root.entries.get("store")
    if store is None or not isinstance(store.value, dict):
        return root
    entries = dict(store.entries)
    if (password := entries.get("password")) is not None:
        entries["password"] = _hidden(password)
    if (keys := entries.get("keys")) is not None and isinstance(keys.value, list):
        entries["keys"] = dataclasses.replace(keys, value=[_hidden(item) for item in keys.items])
    return dataclasses.replace(root, value={**root.entries, "store": dataclasses.replace(store, value=entries)})


def _hidden(node: Node) -> Node:
    return dataclasses.replace(node, value=Secret(node.value), dynamic=True) if isinstance(node.value, str) else node


def expand_route(node: Node, credentials: Mapping[str, Expanded]) -> Node:
    """Merge a route over its profile: that of its credential, or the one that all its injections share.

    The profile's denied paths are added to the user's; an explicit `deny: null` removes them.
    """
    used = [credentials.get(name) for name in credential_names(node)]
    first = used[0] if used else None
    if first is None or first.profile is None or first.given is None:
        return node
    if any(each is None or each.profile is not first.profile for each in used):
        return node
    base = profiles.instantiate(first.profile, first.profile.route, first.given)
    whole = merge(base, node)
    mine, theirs = node.entries.get("deny"), base.entries.get("deny")
    if mine is None or theirs is None or not isinstance(mine.value, list):
        return whole
    both = dataclasses.replace(mine, value=[*mine.items, *theirs.items])
    return dataclasses.replace(whole, value={**whole.entries, "deny": both})


def credential_names(route: Node) -> list[str]:
    """Return the names of the credentials that a route uses, as written."""
    nodes = [route.entries.get("credential")]
    nodes += [item.entries.get("credential") for item in _injections(route)]
    return [node.value for node in nodes if node is not None and isinstance(node.value, str)]


def _injections(route: Node) -> list[Node]:
    node = route.entries.get("inject")
    return list(node.items) if node is not None else []
