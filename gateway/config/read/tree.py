"""The configuration as a tree in which every value has the file and line that it came from.

Knows no documented key, no profile and no pydantic. Mappings are merged key by key; anything else, lists included, is
replaced. A `null` of a later file stays in the tree and means "not set" when the section is checked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Step = str | int
Path = tuple[Step, ...]
"""The keys and indexes that lead to a value: `("routes", "acme", "timeouts")`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line 0 is the file as a whole."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Absent:
    """A value that is not available.

    `param` names the required parameter that is not given; without it, the problem has been reported already.
    """

    param: str | None = None


class Digits(int):
    """A number that is not written as Python writes it, such as `0012345` or `+1`: as text it would be another one."""


@dataclass(frozen=True, slots=True)
class Node:
    """A mapping, a list or a scalar (text, number, `Secret`, `Absent` …) with its mark.

    `dynamic`: the value came from `${…}`, so no message may show it.
    """

    value: object
    mark: Mark
    dynamic: bool = False
    params: frozenset[str] = frozenset()
    """The profile's parameters that this value was made from."""

    @property
    def entries(self) -> Mapping[str, Node]:
        """The mapping's entries; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> Sequence[Node]:
        """The list's items; empty for anything else."""
        return self.value if isinstance(self.value, list) else ()

    def at(self, path: Path) -> Node | None:
        """Return the node at `path`, or None when there is none."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(step, str):
                node = node.entries.get(step)
            else:
                node = node.items[step] if step < len(node.items) else None
        return node

    def mark_at(self, path: Path) -> Mark:
        """Return the mark of the deepest node that exists along `path`."""
        for length in range(len(path), 0, -1):
            if (node := self.at(path[:length])) is not None:
                return node.mark
        return self.mark

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Yield every scalar below (and this one, if it is one) with its path."""
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.walk((*path, index))
        else:
            yield path, self


def merge(base: Node, over: Node) -> Node:
    """Return `base` with `over` merged into it: mappings key by key, everything else replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    entries = dict(base.value)
    for key, node in over.value.items():
        entries[key] = merge(entries[key], node) if key in entries else node
    return dataclasses.replace(over, value=entries)


def without(node: Node, *keys: str) -> Node:
    """Return a mapping without some of its keys."""
    return dataclasses.replace(node, value={key: value for key, value in node.entries.items() if key not in keys})


def plain(node: Node) -> object:
    """Return dicts, lists and scalars without marks. Secrets stay `Secret`, gaps stay `Absent`."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def dotted(path: Path) -> str:
    """Return a path as it is shown: `clients[0].name`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class Problems:
    """Collects mistakes, so that all are reported at once, in the order of the files."""

    def __init__(self) -> None:
        self._collected: dict[Problem, None] = {}
        self._files: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._collected)

    def file(self, name: str) -> None:
        """Register `name` as the next file, for the order of the report."""
        self._files.setdefault(name, len(self._files))

    def add(self, mark: Mark, path: Path, message: str) -> None:
        """Record one mistake; the same mistake is recorded once."""
        self._collected[Problem(mark.file, mark.line, dotted(path), message)] = None

    def sorted(self) -> list[Problem]:
        """Return the mistakes by file, line and key."""
        last = len(self._files)
        return sorted(self._collected, key=lambda p: (self._files.get(p.file, last), p.line, p.where, p.message))
