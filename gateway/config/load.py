"""From files to `model.Config`: draft, check against the schema, check across, compile. All mistakes are told at once.

Each credential, route and client is checked by itself, so that one mistake hides no other.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import checks, compile, summary  # noqa: A004 - the step is called so
from gateway.config.keys import file as schema
from gateway.config.keys.clients import ClientKeys
from gateway.config.keys.credential import CredentialKeys
from gateway.config.read import draft
from gateway.config.read.command import Commands
from gateway.config.read.expand import credential_names
from gateway.config.read.tree import Mark, Node, Problems
from gateway.config.validate import validate
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.model import Config

Recipes = dict[str, tuple[CredentialKeys, CredentialKeys | None]]
"""Credentials by name: today's keys and, during a rotation, the next ones."""
SECTIONS = {"credentials": dict, "routes": dict, "clients": list}


def load(paths: Sequence[Path], *, environ: Mapping[str, str] = os.environ, commands: Commands | None = None) -> Config:
    """Read the files, later ones laid over earlier ones, and return the snapshot.

    Raises ConfigError with every problem that was found. Reads the secret files that `${file:…}` names and runs the
    programs of `${command:…}`; `commands` keeps their outputs from one reading to the next.
    """
    commands = commands or Commands()
    return _load(draft.read(paths, environ, commands), paths, commands)


def merged(paths: Sequence[Path], *, environ: Mapping[str, str] = os.environ) -> str:
    """Return the configuration as it is meant, profiles applied and secrets masked, as YAML. Raises as `load`."""
    commands = Commands()
    found = draft.read(paths, environ, commands)
    _load(found, paths, commands)
    return summary.text(found)


def _load(found: draft.Draft, paths: Sequence[Path], commands: Commands) -> Config:
    keys = validate(schema.FileKeys, _without_sections(found.root), (), found.problems)
    clients = _clients(found)
    recipes = _recipes(found)
    routes = _routes(found, recipes)
    _check_across(found, keys, clients, routes)
    if found.problems or keys is None:
        raise ConfigError(found.problems.sorted())
    try:
        config = _compile(found, keys, clients, recipes, routes)
    except OSError as error:
        changed = Mark(str(error.filename), 0)
        found.problems.add(changed, (), "changed while it was read")
        raise ConfigError(found.problems.sorted()) from None
    watched = dict.fromkeys([*(Path(path).absolute() for path in paths), *config.watched_files])
    return replace(
        config,
        watched_files=tuple(watched),
        secret_files=tuple(dict.fromkeys([*found.files, *summary.private_keys(config)])),
        read_again_after=commands.again_after,
    )


def _compile(
    found: draft.Draft,
    keys: schema.FileKeys,
    clients: Mapping[int, ClientKeys],
    recipes: Recipes,
    routes: Mapping[str, schema.RouteKeys],
) -> Config:
    credentials = {name: compile.credential(name, *pair) for name, pair in recipes.items()}
    compiled = tuple(compile.route(name, route, credentials) for name, route in routes.items())
    apart = summary.files_apart(credentials, compiled)
    apart += [path for path in (keys.tls.certificate, keys.tls.key, keys.tls.client_ca) if path] if keys.tls else []
    apart += [path for issuer in keys.issuers.values() for path in (issuer.jwks_file, issuer.ca_file) if path]
    return compile.config(
        keys,
        tuple(compile.client(client) for client in clients.values()),
        credentials,
        compiled,
        digest=summary.digest(found, apart),
        watched_files=tuple(dict.fromkeys([*found.files, *apart])),
    )


def _without_sections(root: Node) -> Node:
    """The file's own keys alone; a section that is not even a mapping (or list) stays, to be refused."""
    entries = dict(root.entries)
    for key, kind in SECTIONS.items():
        if key in entries and isinstance(entries[key].value, kind):
            entries[key] = Node(kind(), entries[key].mark)
    return Node(entries, root.mark)


def _clients(found: draft.Draft) -> dict[int, ClientKeys]:
    """The clients that are well written, by their place in the list."""
    section = found.root.entries.get("clients")
    checked = {
        index: validate(ClientKeys, node, ("clients", index), found.problems)
        for index, node in enumerate(section.items if section is not None else ())
    }
    return {index: keys for index, keys in checked.items() if keys is not None}


def _recipes(found: draft.Draft) -> Recipes:
    """The credentials that are well written. During a rotation, what they become must be well written too."""
    recipes: Recipes = {}
    for name, expanded in found.credentials.items():
        path = ("credentials", name)
        today = validate(CredentialKeys, expanded.today, path, found.problems, expanded.params)
        following = None
        if expanded.next is not None:
            following = validate(CredentialKeys, expanded.next, path, found.problems, expanded.params)
        if today is not None:
            recipes[name] = (today, following)
    return recipes


def _routes(found: draft.Draft, recipes: Recipes) -> dict[str, schema.RouteKeys]:
    """The routes that are well written.

    One whose credential has mistakes of its own is not blamed for a missing upstream: the profile would have said it.
    """
    checked = {}
    for name, node in found.routes.items():
        clean = all(each in recipes for each in credential_names(node))
        problems = found.problems if clean else Problems()
        keys = validate(schema.RouteKeys, node, ("routes", name), problems)
        if keys is not None:
            checked[name] = keys
        for problem in problems.sorted() if not clean else ():
            if problem.where != f"routes.{name}.upstream" or problem.message != "is missing":
                found.problems.add(Mark(problem.file, problem.line), (problem.where,), problem.message)
    return checked


def _check_across(
    found: draft.Draft,
    keys: schema.FileKeys | None,
    clients: Mapping[int, ClientKeys],
    routes: Mapping[str, schema.RouteKeys],
) -> None:
    checks.there_is_a_route(found.root, found.problems)
    checks.routes_name_credentials(found.root, found.problems)
    checks.prefixes_differ(found.root, routes, found.problems)
    checks.clients_differ(found.root, clients, found.problems)
    checks.clients_name_routes(found.root, clients, found.problems)
    checks.clients_can_be_known(found.root, clients, found.problems)
    if keys is not None:
        checks.somebody_may_call(found.root, keys, found.problems)
        checks.ports_differ(found.root, keys, found.problems)
        checks.issuers_differ(found.root, keys.issuers, found.problems)
        checks.tracing_is_installed(found.root, keys, found.problems)
