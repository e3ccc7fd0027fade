"""`${VAR}`, `${VAR:-default}`, `${file:/path}` and `${command:/path}`: the only computed values of a configuration.

A value from `${…}` under `credentials` becomes a `Secret` here, before any other code sees it; elsewhere it is marked
so that no message shows it. `$${` is a literal `${`. Knows no documented key.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from gateway.config.read.clean import mistake, without_line_ends
from gateway.config.read.command import CommandError, Commands
from gateway.config.read.files import read_bytes, why
from gateway.config.read.placeholder import placeholder
from gateway.config.read.tree import Absent, Node, Path, Problems, dotted
from gateway.model import KIB, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE = re.compile(r"\$(?P<escaped>\$(?=\{))|\$\{(?P<inside>[^{}]*)\}|(?P<open>\$\{)")
VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
FILE = "file:"
COMMAND = "command:"
MAX_FILE = 64 * KIB


def variables(node: Node) -> frozenset[str]:
    """Return the names of all variables that a tree refers to."""
    if isinstance(node.value, dict):
        return frozenset().union(*map(variables, node.value.values()))
    if isinstance(node.value, list):
        return frozenset().union(*map(variables, node.value))
    inside = [match["inside"] or "" for match in REFERENCE.finditer(node.value)] if isinstance(node.value, str) else []
    matches = [VARIABLE.fullmatch(text) for text in inside]
    return frozenset(match["name"] for match in matches if match is not None)


def whole_file(node: Node | None) -> FilePath | None:
    """Return the file if a value is one `${file:…}` and nothing else."""
    if node is None or not isinstance(node.value, str):
        return None
    match = REFERENCE.fullmatch(node.value)
    inside = (match["inside"] or "") if match is not None else ""
    return FilePath(inside.removeprefix(FILE)).absolute() if inside.startswith(FILE) else None


class _Malformed(Exception):
    """A reference cannot be resolved; the message says why and never contains a value."""


class _Missing(_Malformed):
    """What a reference names is not there."""


@dataclass(slots=True)
class Interpolation:
    """One pass over the tree: its environment, and the files that it has read."""

    environ: Mapping[str, str]
    problems: Problems
    files: dict[FilePath, None] = field(default_factory=dict)
    commands: Commands = field(default_factory=Commands)
    missing: list[str] | None = None
    """With a list, placeholders stand for what is missing, no program runs, and the list says what was missing."""

    def resolve(self, node: Node, path: Path = ()) -> Node:
        """Return the tree with every reference replaced; one that cannot be resolved becomes `Absent` and a problem."""
        if isinstance(node.value, dict):
            entries = {key: self.resolve(child, (*path, key)) for key, child in node.value.items()}
            return dataclasses.replace(node, value=entries)
        if isinstance(node.value, list):
            items = [self.resolve(child, (*path, index)) for index, child in enumerate(node.value)]
            if self.missing is not None:
                items = [item for item in items if item.value is not None]
            return dataclasses.replace(node, value=items)
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        return self._scalar(node, node.value, path)

    def _scalar(self, node: Node, text: str, path: Path) -> Node:
        computed = any(not match["escaped"] for match in REFERENCE.finditer(text))
        try:
            value = REFERENCE.sub(self._replace, text)
        except _Malformed as error:
            if isinstance(error, _Missing) and self.missing is not None:
                self.missing.append(f"{dotted(path)}: {error}")
                return dataclasses.replace(node, value=placeholder(path), dynamic=True)
            self.problems.add(node.mark, path, str(error))
            return dataclasses.replace(node, value=Absent(), dynamic=True)
        secret = computed and path[:1] == ("credentials",)
        return dataclasses.replace(node, value=Secret(value) if secret else value, dynamic=computed)

    def _replace(self, match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["open"]:
            raise _Malformed("a `${` has no `}`; write `$${` for the characters themselves")
        inside = match["inside"]
        if inside.startswith(FILE) and inside != FILE:
            return self._read(inside.removeprefix(FILE))
        if inside.startswith(COMMAND):
            return self._run(inside.removeprefix(COMMAND))
        variable = VARIABLE.fullmatch(inside)
        if variable is None:
            raise _Malformed("`${…}` takes NAME, NAME:-default, file:/path or command:/path")
        name, default = variable["name"], variable["default"]
        value = self.environ.get(name)
        if not value and default is not None:
            return default
        if value is None:
            raise _Missing(f"environment variable {name} is not set")
        if wrong := mistake(value):
            hint = f"; `${{{name}:-}}` allows that" if not value else ""
            raise (_Malformed if value else _Missing)(f"environment variable {name} {wrong}{hint}")
        return value

    def _run(self, reference: str) -> str:
        if self.missing is not None:
            raise _Missing("no program is run")
        try:
            text = self.commands.value(reference, self.environ)
        except CommandError as error:
            raise _Missing(str(error)) from None
        if wrong := mistake(text):
            raise _Malformed(f"the output of {reference.split(maxsplit=1)[0]} {wrong}")
        return text

    def _read(self, name: str) -> str:
        """Read a secret file: UTF-8, at most 64 KiB; line ends at its end and a byte order mark are dropped."""
        path = FilePath(name).absolute()
        self.files[path] = None
        try:
            text = without_line_ends(read_bytes(path, MAX_FILE).decode("utf-8"))
        except OSError as error:
            raise _Missing(f"file {name} cannot be read: {why(error)}") from None
        except ValueError:
            raise _Malformed(f"file {name} cannot be read: it is not UTF-8") from None
        if wrong := mistake(text):
            raise _Malformed(f"file {name} {wrong}")
        return text
