"""One pass over the files: read, merge, resolve `${…}`, apply profiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.names import NAME, NAME_RULE
from gateway.config.read.expand import (
    Expanded,
    credential_names,
    expand_credential,
    expand_route,
    hide_proxy_passwords,
    hide_store_secrets,
)
from gateway.config.read.interpolate import Interpolation, variables, whole_file
from gateway.config.read.placeholder import without_missing_files
from gateway.config.read.tree import Mark, Node, Problems, merge
from gateway.config.read.words import MAPPING
from gateway.config.read.yaml import read_file
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.config.read.command import Commands


ADDRESSES = {"listen": "GATEPASS_LISTEN", "admin": "GATEPASS_ADMIN"}
"""Keys whose default is in the environment; the container image sets both variables."""


@dataclass(slots=True)
class Draft:
    """The merged tree of all files, with profiles applied, and the mistakes so far."""

    root: Node
    problems: Problems
    files: tuple[Path, ...] = ()
    """Files that `${file:…}` names, readable or not."""
    credentials: dict[str, Expanded] = field(default_factory=dict)
    routes: dict[str, Node] = field(default_factory=dict)
    missing: tuple[str, ...] | None = None
    """What placeholders stand for; None when none are allowed."""
    store_password_file: Path | None = None
    """The file that is the whole of `store.password`."""


def read(paths: Sequence[Path], environ: Mapping[str, str], commands: Commands, *, placeholders: bool = False) -> Draft:
    """Read, merge, resolve and expand the files. Raises ConfigError when a file is not readable as YAML."""
    problems = Problems()
    trees = read_files(paths, problems)
    root = _with_addresses(merge_all(trees, paths, problems), environ)
    unresolved = Problems()
    missing: list[str] | None = [] if placeholders else None
    interpolation = Interpolation(environ, unresolved, commands=commands, missing=missing)
    commands.begin(frozenset().union(*(variables(tree) for tree in trees)))
    password_file = whole_file(root.at(("store", "password")))
    root = hide_store_secrets(hide_proxy_passwords(interpolation.resolve(root)))
    if missing is not None:
        root = without_missing_files(root, missing)
    draft = Draft(root, problems, tuple(interpolation.files), missing=None if missing is None else tuple(missing))
    draft.store_password_file = password_file
    _add_with_routes(unresolved, root, problems)
    for name, node in _section(root, "credentials", problems):
        draft.credentials[name] = expand_credential(node, ("credentials", name), problems)
    for name, node in _section(root, "routes", problems):
        draft.routes[name] = expand_route(node, draft.credentials)
    return draft


def read_files(paths: Sequence[Path], problems: Problems) -> list[Node]:
    """Return the trees of the files. Raises ConfigError when one is not readable as YAML."""
    trees = [read_file(Path(path), problems) for path in paths]
    readable = [tree for tree in trees if tree is not None]
    if len(readable) < len(trees):
        raise ConfigError(problems.sorted())
    return readable


def merge_all(trees: Sequence[Node], paths: Sequence[Path], problems: Problems) -> Node:
    """Return one tree: later files are merged over earlier ones, and nothing is resolved."""
    root = Node({}, Mark(str(paths[0]) if paths else "config", 0))
    for tree in trees:
        if not isinstance(tree.value, dict):
            problems.add(tree.mark, (), "must be a mapping, with a blank after each colon: `key: value`")
        else:
            root = merge(root, tree)
    return root


def _with_addresses(root: Node, environ: Mapping[str, str]) -> Node:
    """Return the tree with the addresses that the environment names, where no file names one."""
    named = {
        key: Node(environ[variable], Mark(variable, 0))
        for key, variable in ADDRESSES.items()
        if environ.get(variable) and key not in root.entries
    }
    return Node({**root.entries, **named}, root.mark)


def _add_with_routes(unresolved: Problems, root: Node, problems: Problems) -> None:
    """Add the unresolved references to the problems, each with the routes that need it."""
    users: dict[str, list[str]] = {}
    routes = root.entries.get("routes")
    for name, route in (routes.entries if routes else {}).items():
        for credential in credential_names(route):
            users.setdefault(credential, []).append(name)
    for problem in unresolved.sorted():
        names = {
            route
            for credential, routes_of_it in users.items()
            for route in routes_of_it
            if problem.where.startswith(f"credentials.{credential}.")
        }
        needed = f" (needed by route {', '.join(sorted(names))})" if names else ""
        problems.add(Mark(problem.file, problem.line), (problem.where,), problem.message + needed)


def _section(root: Node, key: str, problems: Problems) -> Iterator[tuple[str, Node]]:
    """Yield the named entries of a section; a null removes an entry of an earlier file."""
    section = root.entries.get(key)
    for name, node in (section.entries if section is not None else {}).items():
        if node.value is None:
            continue
        if not NAME.fullmatch(name):
            problems.add(node.mark, (key, name), f"must be a name: {NAME_RULE}")
        elif not isinstance(node.value, dict):
            problems.add(node.mark, (key, name), MAPPING)
        else:
            yield name, node
