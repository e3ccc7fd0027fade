"""From files to one tree: read, merge, resolve `${…}`, apply profiles. Nothing is checked against the schema yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.keys.values import NAME
from gateway.config.read.expand import Expanded, credential_names, expand_credential, expand_route
from gateway.config.read.interpolate import Interpolation, variables
from gateway.config.read.tree import Mark, Node, Problems, merge
from gateway.config.read.yaml import read_file
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.config.read.command import Commands


@dataclass(slots=True)
class Draft:
    """One pass over the files: the tree as meant, and the mistakes."""

    root: Node
    problems: Problems
    files: tuple[Path, ...] = ()
    """Those that `${file:…}` names, readable or not."""
    credentials: dict[str, Expanded] = field(default_factory=dict)
    routes: dict[str, Node] = field(default_factory=dict)

    def raise_problems(self) -> None:
        """Raise ConfigError if anything is wrong."""
        if self.problems:
            raise ConfigError(self.problems.sorted())


def read(paths: Sequence[Path], environ: Mapping[str, str], commands: Commands) -> Draft:
    """Read, merge, resolve and expand. Raises ConfigError when a file cannot be read as YAML at all."""
    problems = Problems()
    trees = [read_file(Path(path), problems) for path in paths]
    root = Node({}, Mark(str(paths[0]) if paths else "config", 0))
    for tree in trees:
        if tree is not None and not isinstance(tree.value, dict):
            problems.add(tree.mark, (), "must be a mapping: key: value")
        elif tree is not None:
            root = merge(root, tree)
    if any(tree is None for tree in trees):
        raise ConfigError(problems.sorted())
    found = Problems()
    reading = Interpolation(environ, found, commands=commands, hidden=variables(root))
    commands.begin()
    root = reading.resolve(root)
    draft = Draft(root, problems, tuple(reading.files))
    _tell_who_needs(found, root, problems)
    for name, node in _section(root, "credentials", problems):
        draft.credentials[name] = expand_credential(node, ("credentials", name), problems)
    for name, node in _section(root, "routes", problems):
        draft.routes[name] = expand_route(node, draft.credentials)
    return draft


def _tell_who_needs(found: Problems, root: Node, problems: Problems) -> None:
    """Say of an unreadable secret which routes go without: that is what an operator is asked about."""
    users: dict[str, list[str]] = {}
    routes = root.entries.get("routes")
    for name, route in (routes.entries if routes else {}).items():
        for credential in credential_names(route):
            users.setdefault(credential, []).append(name)
    for problem in found.sorted():
        names = {
            route
            for credential, routes_of_it in users.items()
            for route in routes_of_it
            if problem.where.startswith(f"credentials.{credential}.")
        }
        needed = f" (needed by route {', '.join(sorted(names))})" if names else ""
        problems.add(Mark(problem.file, problem.line), (problem.where,), problem.message + needed)


def _section(root: Node, key: str, problems: Problems) -> Iterator[tuple[str, Node]]:
    """The named entries of a section. A null takes an entry of an earlier file back."""
    section = root.entries.get(key)
    for name, node in (section.entries if section is not None else {}).items():
        if node.value is None:
            continue
        if not NAME.fullmatch(name):
            problems.add(node.mark, (key, name), "is no name: letters, digits, `.`, `_` and `-`, at most 64")
        elif not isinstance(node.value, dict):
            problems.add(node.mark, (key, name), "must be a mapping: {key: value}")
        else:
            yield name, node
