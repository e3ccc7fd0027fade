"""YAML text into a tree, for a plain subset of YAML.

Plain scalars follow YAML 1.2's core schema: `off` is text, `010` is ten, a date is text. Duplicate keys, tags, anchors,
aliases and merge keys are mistakes. Knows no documented key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from yaml.error import MarkedYAMLError
from yaml.events import AliasEvent, NodeEvent

from gateway.config.read.files import read_bytes, why
from gateway.config.read.tree import Absent, Digits, Mark, Node, Path, Problems
from gateway.config.read.words import in_words

if TYPE_CHECKING:
    import pathlib

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
MAX_BYTES = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses anchors, aliases and tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refused = ""
        if isinstance(event, AliasEvent):
            refused = "aliases (*name) are not supported; write the value out"
        elif isinstance(event, NodeEvent) and event.anchor is not None:
            refused = "anchors (&name) are not supported; write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = "tags (!name) are not supported"
        if refused:
            raise MarkedYAMLError(problem=refused, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def read_file(path: pathlib.Path, problems: Problems) -> Node | None:
    """Read one YAML file of at most 1 MiB; None when it cannot be read at all (the problem says why)."""
    name = str(path)
    problems.file(name)
    try:
        raw = read_bytes(path, MAX_BYTES)
    except OSError as error:
        problems.add(Mark(name, 0), (), f"cannot be read: {why(error)}")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.add(Mark(name, line), (), "is not UTF-8")
        return None
    return read_text(text, name, problems)


def read_shipped(text: str, name: str) -> Node:
    """Return the tree of a shipped file, without checks; libyaml makes this ten times as fast."""
    root = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if root is None:
        raise ValueError(f"the shipped file {name} is empty")
    return _node(root, Mark(name, root.start_mark.line + 1), (), Problems())


def read_text(text: str, name: str, problems: Problems) -> Node | None:
    """Return the tree of YAML text; `name` is the file that marks show."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(Mark(name, line), (), "holds a character that YAML does not allow")
        return None
    except RecursionError:
        problems.add(Mark(name, 1), (), "is nested too deeply")
        return None
    except MarkedYAMLError as error:
        line, what = in_words(error, text)
        problems.add(Mark(name, line), (), what)
        return None
    if root is None:
        return Node({}, Mark(name, 1))
    return _node(root, Mark(name, root.start_mark.line + 1), (), problems)


def _node(node: yaml.Node, mark: Mark, path: Path, problems: Problems) -> Node:
    """Return the tree of a node. A value gets the line of its key, which is where people look."""
    if isinstance(node, yaml.MappingNode):
        return Node(_entries(node, mark, path, problems), mark)
    if isinstance(node, yaml.SequenceNode):
        items = [
            _node(item, Mark(mark.file, item.start_mark.line + 1), (*path, index), problems)
            for index, item in enumerate(node.value)
        ]
        return Node(items, mark)
    return Node(_scalar(node, mark, path, problems), mark)


def _entries(node: yaml.MappingNode, mark: Mark, path: Path, problems: Problems) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    for key, value in node.value:
        here = Mark(mark.file, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            problems.add(here, path, "a key must be a word")
            continue
        where = (*path, str(key.value))
        if key.value == "<<" and not key.style:
            problems.add(here, where, "merge keys (<<) are not supported; write the keys out")
        elif key.value in entries:
            problems.add(here, where, f"is written twice (first in line {entries[key.value].mark.line})")
        else:
            entries[str(key.value)] = _node(value, here, where, problems)
    return entries


def _scalar(node: yaml.Node, mark: Mark, path: Path, problems: Problems) -> object:
    text = str(node.value)
    if getattr(node, "style", None):  # quoted
        return text
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    if INT.fullmatch(text) and len(text) > 18:  # noqa: PLR2004 - beyond 64 bits it is an identifier, not a number
        problems.add(mark, path, "is a very long number; put it in quotes")
        return Absent()
    if INT.fullmatch(text):
        return int(text) if str(int(text)) == text else Digits(text)
    return float(text) if FLOAT.fullmatch(text) else text
