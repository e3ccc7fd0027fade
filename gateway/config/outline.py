"""What a configuration consists of, without its values: profiles of credentials, and upstreams of routes.

Reads the files as `load` does but resolves no `${…}`, so that it works where no secret is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.read.draft import merge_all, read_files
from gateway.config.read.expand import credential_names
from gateway.config.read.tree import Problems
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.config.read.tree import Node


@dataclass(frozen=True, slots=True)
class Outline:
    """The credentials and routes of a configuration."""

    profiles: Mapping[str, str | None]
    """Credential → its profile; None without one."""
    routes: Mapping[str, tuple[tuple[str, ...], str | None]]
    """Route → the credentials that it injects, and the upstream that the file names."""


def outline(paths: Sequence[Path]) -> Outline:
    """Read the files. Raises ConfigError if one cannot be read as YAML."""
    problems = Problems()
    root = merge_all(read_files(paths, problems), paths, problems)
    if problems:
        raise ConfigError(problems.sorted())
    return Outline(
        {name: _text(node, "profile") for name, node in _entries(root, "credentials")},
        {name: (tuple(credential_names(node)), _text(node, "upstream")) for name, node in _entries(root, "routes")},
    )


def _entries(root: Node, key: str) -> list[tuple[str, Node]]:
    section = root.entries.get(key)
    return [(name, node) for name, node in (section.entries if section else {}).items() if node.entries]


def _text(node: Node, key: str) -> str | None:
    entry = node.entries.get(key)
    return entry.value if entry is not None and isinstance(entry.value, str) else None
