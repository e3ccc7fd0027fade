"""The house stands: a module imports only from floors below it (docs/architecture.md shows the same table)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "gateway").rglob("*.py"))

NOUNS = {
    "model",
    "descriptors",
    "threads",
    "errors",
    "clock",
    "tls",
    "patterns",
    "addresses",
    "resolver",
    "egress",
    "protection",
    "payload",
    "early",
    "mounts",
    "files",
}
FLOORS: dict[int, dict[str, set[str]]] = {
    1: {
        "model": set(),
        "descriptors": set(),
        "threads": set(),
        "errors": {"descriptors"},
        "clock": {"model"},
        "tls": {"model", "descriptors"},
        "patterns": {"errors"},
        "addresses": set(),
        "payload": set(),
        "resolver": {"addresses", "descriptors", "threads"},
        "protection": set(),
        "early": set(),
        "mounts": set(),
        "files": set(),
        "egress": {"model", "errors", "addresses", "tls"},
    },
    2: {"observe": NOUNS},
    3: {
        "config": NOUNS,
        "tokens": NOUNS | {"observe"},
        "access": NOUNS | {"observe"},
        "store": NOUNS | {"observe"},
        "announce": NOUNS | {"observe"},
        "restart": NOUNS | {"observe"},
    },
    4: {"proxy": NOUNS | {"observe", "access"}},
    5: {
        "admin": NOUNS | {"observe", "access", "tokens"},
        "sandbox": NOUNS,
        "planes": NOUNS | {"observe", "access", "tokens", "proxy"},
    },
    6: {
        "app": NOUNS
        | {"observe", "config", "tokens", "access", "proxy", "admin", "planes", "store", "announce", "restart"}
    },
    7: {
        "commands": NOUNS | {"observe", "config", "tokens", "access", "proxy", "admin", "sandbox", "serving", "store"},
        "serving": NOUNS | {"observe", "app"},
        "cli": {"commands", "errors"},
        "__main__": {"cli", "early", "protection"},
    },
}
"""Floor → part of the house → the other parts that it may import. The package's own `__version__` is free to all."""

MAY_KNOW = {part: known for parts in FLOORS.values() for part, known in parts.items()}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}


def part_of(path: Path) -> str:
    """Return the part of the house that a file belongs to: `gateway/proxy/pool.py` → `proxy`."""
    return path.relative_to(ROOT / "gateway").with_suffix("").parts[0]


def names_imported(source: str, own_package: str) -> set[str]:
    """Return the full names that this source imports, also in functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = own_package.split(".")
            base = ".".join(package[: len(package) + 1 - node.level]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("gateway.")}


def parts_imported(source: str, own_package: str) -> set[str]:
    """Return the parts of the house that this source imports."""
    return {name.split(".")[1] for name in names_imported(source, own_package)} - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_part_may_know(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert parts_imported(path.read_text(encoding="utf-8"), "gateway") == set()
        return
    own_package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    too_high = parts_imported(path.read_text(encoding="utf-8"), own_package) - MAY_KNOW[part] - {part}
    assert not too_high, f"{part} (floor {FLOOR_OF[part]}) imports {too_high}"


def test_every_part_has_a_floor_and_every_floor_is_lived_on() -> None:
    assert {part_of(path) for path in MODULES} - {"__init__"} == set(FLOOR_OF)


def test_the_table_itself_only_points_down() -> None:
    """Between floors; on the first and the last floor a part may know its neighbour, but never the other way too."""
    for part, known in MAY_KNOW.items():
        for other in known:
            down = FLOOR_OF[other] < FLOOR_OF[part]
            neighbour = FLOOR_OF[other] == FLOOR_OF[part] in {1, 7} and part not in MAY_KNOW[other]
            assert down or neighbour, f"{part} → {other}"


@pytest.mark.parametrize(
    "source",
    [
        "import gateway.app",
        "from gateway import app",
        "from gateway.app import Gateway",
        "from ..app import Gateway",
        "from .. import app",
        "def late():\n    from gateway.app import Gateway",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gateway.app import Gateway",
    ],
)
def test_the_reader_of_imports_sees_every_form_of_one(source: str) -> None:
    assert parts_imported(source, "gateway.proxy") == {"app"}


# ------------------------------------------------------------------------------------------------------------- circles


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return which module imports which, for sources by the module's full name; a package is named by itself."""
    graph = {}
    for name, source in sources.items():
        is_package = any(other.startswith(f"{name}.") for other in sources)
        imported = names_imported(source, name if is_package else name.rpartition(".")[0])
        modules = {each if each in sources else each.rpartition(".")[0] for each in imported}
        graph[name] = (modules & sources.keys()) - {name}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return every module that `start` imports, directly or through others; `start` itself if there is a circle."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def in_circles(sources: dict[str, str]) -> set[str]:
    """Return the modules that import themselves through others."""
    graph = import_graph(sources)
    return {name for name in graph if name in reachable(graph, name)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports in functions and under TYPE_CHECKING count: a reader follows those, too."""
    sources = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        sources[name] = path.read_text(encoding="utf-8")
    assert in_circles(sources) == set()


@pytest.mark.parametrize(
    "back",
    [
        "import gateway.a",
        "from gateway import a",
        "from gateway.a import A",
        "from .a import A",
        "def late():\n    from gateway.a import A",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gateway.a import A",
    ],
)
def test_a_circle_is_seen_in_every_form_of_import(back: str) -> None:
    sources = {"gateway.a": "from gateway.b import B", "gateway.b": "from gateway.c import C", "gateway.d": ""}
    assert in_circles(sources | {"gateway.c": ""}) == set()
    assert in_circles(sources | {"gateway.c": back}) == {"gateway.a", "gateway.b", "gateway.c"}


def test_the_page_shows_the_same_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = {
        (name.removesuffix(".py").removesuffix("/"), int(floor))
        for floor, names in re.findall(r"^\| (\d) \| ([^|]+) \|", page, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert shown == set(FLOOR_OF.items())
