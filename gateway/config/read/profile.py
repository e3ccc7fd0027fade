"""Profiles: vendors' token recipes, shipped as YAML files with the keys of the configuration itself.

A profile declares `params`, a `credential` and a `route`. `${param:name}` is replaced by a parameter; a value whose
optional parameter is not given is left out. The user's keys are merged over it. Knows no vendor and no documented key.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from gateway.config.read.tree import Absent, Digits, Mark, Node, Path, Problems
from gateway.config.read.words import TEXT
from gateway.config.read.yaml import read_shipped
from gateway.model import Secret, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE = re.compile(r"\$\{param:(?P<name>[a-z0-9_]+)\}")


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a profile, as it is declared."""

    name: str
    help: str
    secret: bool
    required: bool
    default: str | None = None
    example: str | None = None
    """A value that `gatepass init` writes, for a parameter that is not secret."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A vendor's recipe with its `${param:…}` references unresolved."""

    name: str
    help: str
    params: Mapping[str, Param]
    credential: Node
    route: Node


def names() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted."""
    folder = files("gateway.config") / "profiles"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


@cache
def profile(name: str) -> Profile:
    """Read a shipped profile. Raises KeyError when there is none of this name."""
    if name not in names():
        raise KeyError(name)
    text = (files("gateway.config") / "profiles" / f"{name}.yaml").read_text("utf-8")
    root = read_shipped(text, f"{name}.yaml")
    params = {key: _param(key, node) for key, node in root.entries["params"].entries.items()}
    text_of_help = root.entries["help"].value
    return Profile(name, str(text_of_help), params, root.entries["credential"], root.entries["route"])


def _param(name: str, node: Node) -> Param:
    values = {key: child.value for key, child in node.entries.items()}
    if values.get("type") not in {"secret", "plain"} or set(values) - {
        "type",
        "help",
        "required",
        "default",
        "example",
    }:
        raise ValueError(f"parameter {name} is declared wrongly")
    default, example = values.get("default"), values.get("example")
    return Param(
        name,
        str(values["help"]),
        secret=values["type"] == "secret",
        required=values.get("required") is True,
        default=None if default is None else str(default),
        example=None if example is None else str(example),
    )


@dataclass(frozen=True, slots=True)
class Given:
    """Parameters as the user set them: their values and their places in the files."""

    values: Mapping[str, Text | Absent]
    home: Mark
    """The line of the user's file that messages name for values from the profile."""
    marks: Mapping[str, Mark]


def read_params(profile: Profile, entries: Mapping[str, Node], path: Path, home: Mark, problems: Problems) -> Given:
    """Return the profile's parameters that a credential sets. An empty value counts as not given."""
    values: dict[str, Text | Absent] = {
        name: param.default for name, param in profile.params.items() if param.default is not None
    }
    marks: dict[str, Mark] = {}
    for name, param in profile.params.items():
        node = entries.get(name)
        if node is None:
            continue
        value = node.value
        if isinstance(value, int) and not isinstance(value, bool | Digits):
            value = str(value)
        if isinstance(value, str) and param.secret:
            value = Secret(value)
        if value is None or value == "" or (isinstance(value, Secret) and not value):
            values.pop(name, None)
        elif isinstance(value, str | Secret | Absent):
            values[name] = value
            marks[name] = node.mark
        else:
            problems.add(node.mark, (*path, name), TEXT)
            values[name] = Absent()
    return Given(values, home, marks)


def instantiate(profile: Profile, section: Node, given: Given) -> Node:
    """Return a section of the profile with its parameters replaced by their values."""
    if isinstance(section.value, dict):
        entries = {key: instantiate(profile, child, given) for key, child in section.value.items()}
        return Node({key: node for key, node in entries.items() if node.value is not LEFT_OUT}, given.home)
    if isinstance(section.value, list):
        items = [instantiate(profile, child, given) for child in section.value]
        return Node([node for node in items if node.value is not LEFT_OUT], given.home)
    if isinstance(section.value, str) and "${param:" in section.value:
        return _scalar(profile, section.value, given)
    return dataclasses.replace(section, mark=given.home)


LEFT_OUT = Absent()
"""The value whose optional parameter is not given; the entry is dropped."""


def _scalar(profile: Profile, text: str, given: Given) -> Node:
    """Return one value with its references replaced. A secret part makes the whole value a secret."""
    used = REFERENCE.findall(text)
    params = frozenset(used)
    values: dict[str, str] = {}
    secret = False
    for name in used:
        value = given.values.get(name)
        if isinstance(value, Absent):
            return Node(value, given.marks.get(name, given.home), dynamic=True, params=params)
        if value is None:
            gap = Absent(name) if profile.params[name].required else LEFT_OUT
            return Node(gap, given.home, dynamic=True, params=params)
        secret = secret or isinstance(value, Secret)
        values[name] = value.reveal() if isinstance(value, Secret) else value
    mark = given.marks.get(used[0], given.home)
    whole = REFERENCE.sub(lambda match: values[match["name"]], text)
    return Node(Secret(whole) if secret else whole, mark, dynamic=secret, params=params)
