"""From files to `model.Config`: read, validate each section, check sections against each other, compile.

Each credential, route and client is validated by itself, so that one mistake does not hide another. All mistakes are
reported together.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import checks, compile, summary  # noqa: A004 - the stage is called so
from gateway.config.advice import advice
from gateway.config.keys.client import ClientSection
from gateway.config.keys.credential import CredentialSection
from gateway.config.keys.file import FileSection
from gateway.config.keys.route import RouteSection
from gateway.config.plane_checks import planes_fit
from gateway.config.read.command import Commands
from gateway.config.read.draft import read
from gateway.config.read.expand import credential_names
from gateway.config.read.tree import Mark, Node, Problems
from gateway.config.validate import validate
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.read.draft import Draft
    from gateway.model import Config

Recipes = dict[str, tuple[CredentialSection, CredentialSection | None]]
"""Credentials by name: the current keys and, during a rotation, the next ones."""
FILE_KEYS = frozenset({"ca_file", "certificate", "client_ca", "jwks_file", "key"})
"""Keys whose values are paths of files."""
SECTIONS = {"credentials": dict, "routes": dict, "clients": list}
"""Sections of the file whose entries are validated one by one."""


def load(
    paths: Sequence[Path],
    *,
    environ: Mapping[str, str] = os.environ,
    commands: Commands | None = None,
    placeholders: bool = False,
) -> Config:
    """Read the files, each merged over the ones before, and return the snapshot.

    Raises ConfigError with every problem. Reads the secret files that `${file:…}` names and runs the programs of
    `${command:…}`; `commands` keeps their outputs from one reading to the next. With `placeholders`, what is missing is
    replaced and told in `warnings`, and no program is run: for a look at the configuration, not for serving.
    """
    commands = commands or Commands()
    return _load(read(paths, environ, commands, placeholders=placeholders), paths, commands)


def merged(paths: Sequence[Path], *, environ: Mapping[str, str] = os.environ, placeholders: bool = False) -> str:
    """Return the merged configuration as YAML: profiles applied, secrets masked. Raises ConfigError as `load`."""
    commands = Commands()
    draft = read(paths, environ, commands, placeholders=placeholders)
    _load(draft, paths, commands)
    return summary.text(draft)


def _load(draft: Draft, paths: Sequence[Path], commands: Commands) -> Config:
    keys = validate(FileSection, _without_sections(draft.root), (), draft.problems)
    clients = _clients(draft)
    recipes = _recipes(draft)
    routes = _routes(draft, recipes)
    _check_across(draft, keys, clients, routes)
    if draft.problems or keys is None:
        raise ConfigError(draft.problems.sorted(), named_files(draft))
    try:
        config = _compile(draft, keys, clients, recipes, routes)
    except OSError as error:
        changed = Mark(str(error.filename), 0)
        draft.problems.add(changed, (), "changed while it was read")
        raise ConfigError(draft.problems.sorted(), named_files(draft)) from None
    watched = dict.fromkeys([*(Path(path).absolute() for path in paths), *config.watched_files])
    return replace(
        config,
        watched_files=tuple(watched),
        secret_files=tuple(dict.fromkeys([*draft.files, *summary.private_keys(config)])),
        read_again_after=commands.again_after,
        warnings=(
            *(f"a placeholder is used: {each}" for each in draft.missing or ()),
            *advice(draft.root, keys, clients, routes),
        ),
    )


def named_files(draft: Draft) -> list[Path]:
    """Return all files that a configuration names, valid or not: `${file:…}`, certificates, keys and authorities."""
    trees = [draft.root, *(each.current for each in draft.credentials.values()), *draft.routes.values()]
    named = [
        Path(node.value).absolute()
        for tree in trees
        for path, node in tree.walk()
        if path and path[-1] in FILE_KEYS and isinstance(node.value, str)
    ]
    return [*draft.files, *named]


def _compile(
    draft: Draft,
    keys: FileSection,
    clients: Mapping[int, ClientSection],
    recipes: Recipes,
    routes: Mapping[str, RouteSection],
) -> Config:
    general = compile.egress(keys.egress)
    credentials = {name: compile.credential(name, *pair, general) for name, pair in recipes.items()}
    endpoints = compile.endpoints(each for pair in recipes.values() for each in pair if each is not None)
    compiled = tuple(compile.route(name, route, endpoints, credentials, general) for name, route in routes.items())
    named = summary.named_files(credentials, compiled)
    for tls in (keys.tls, keys.planes.tls if keys.planes else None):
        named += [path for path in (tls.certificate, tls.key, tls.client_ca) if path] if tls else []
    named += [general.ca_file] if general is not None and general.ca_file else []
    named += [path for issuer in keys.issuers.values() for path in (issuer.jwks_file, issuer.ca_file) if path]
    named += [keys.store.ca_file] if keys.store and keys.store.ca_file else []
    prices = {route.name: route.price for route in compiled}
    return compile.config(
        keys,
        tuple(compile.client(client, prices) for client in clients.values()),
        credentials,
        compiled,
        digest=summary.digest(draft, named),
        watched_files=tuple(dict.fromkeys([*draft.files, *named])),
        store_password_file=draft.store_password_file,
    )


def _without_sections(root: Node) -> Node:
    """Return the file's own keys; a section of the wrong type stays, so that it is refused."""
    entries = dict(root.entries)
    for key, kind in SECTIONS.items():
        if key in entries and isinstance(entries[key].value, kind):
            entries[key] = Node(kind(), entries[key].mark)
    return Node(entries, root.mark)


def _clients(draft: Draft) -> dict[int, ClientSection]:
    """Return the valid clients, by their place in the list."""
    section = draft.root.entries.get("clients")
    checked = {
        index: validate(ClientSection, node, ("clients", index), draft.problems)
        for index, node in enumerate(section.items if section is not None else ())
    }
    return {index: keys for index, keys in checked.items() if keys is not None}


def _recipes(draft: Draft) -> Recipes:
    """Return the valid credentials. During a rotation, the next keys must be valid too."""
    recipes: Recipes = {}
    for name, expanded in draft.credentials.items():
        path = ("credentials", name)
        current = validate(CredentialSection, expanded.current, path, draft.problems, expanded.params)
        following = None
        if expanded.next is not None:
            following = validate(CredentialSection, expanded.next, path, draft.problems, expanded.params)
        if current is not None:
            recipes[name] = (current, following)
    return recipes


def _routes(draft: Draft, recipes: Recipes) -> dict[str, RouteSection]:
    """Return the valid routes.

    A missing upstream is not reported if the route's credential has mistakes, because its profile would have set it.
    """
    checked = {}
    for name, node in draft.routes.items():
        clean = all(each in recipes for each in credential_names(node))
        problems = draft.problems if clean else Problems()
        keys = validate(RouteSection, node, ("routes", name), problems)
        if keys is not None:
            checked[name] = keys
        for problem in problems.sorted() if not clean else ():
            if problem.where != f"routes.{name}.upstream" or problem.message != "is missing":
                draft.problems.add(Mark(problem.file, problem.line), (problem.where,), problem.message)
    return checked


def _check_across(
    draft: Draft,
    keys: FileSection | None,
    clients: Mapping[int, ClientSection],
    routes: Mapping[str, RouteSection],
) -> None:
    checks.there_is_a_route(draft.root, draft.problems)
    checks.routes_name_credentials(draft.root, draft.problems)
    checks.prefixes_differ(draft.root, routes, draft.problems)
    checks.hosts_differ(draft.root, routes, draft.problems)
    checks.clients_differ(draft.root, clients, draft.problems)
    checks.clients_name_routes(draft.root, clients, draft.problems)
    checks.budgets_have_prices(draft.root, clients, routes, draft.problems)
    if draft.missing is None:  # else the data port's certificates may be missing
        checks.clients_can_authenticate(draft.root, clients, draft.problems)
    if keys is not None:
        checks.keys_are_no_names(draft.root, keys, clients, draft.problems)
        checks.somebody_may_call(draft.root, keys, draft.problems)
        checks.ports_differ(draft.root, keys, draft.problems)
        checks.issuers_differ(draft.root, keys.issuers, draft.problems)
        checks.tracing_is_installed(draft.root, keys, draft.problems)
        planes_fit(draft.root, keys, draft.problems, complete=draft.missing is None)
        checks.store_is_installed(draft.root, keys, draft.problems)
