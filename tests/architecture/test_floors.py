"""The house stands: a module imports only from floors below it (docs/architecture.md shows the same table)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "gateway").rglob("*.py"))

NOUNS = {"model", "errors", "clock", "tls", "patterns", "addresses", "resolver"}
FLOORS: dict[int, dict[str, set[str]]] = {
    1: {
        "model": set(),
        "errors": set(),
        "clock": {"model"},
        "tls": {"model"},
        "patterns": set(),
        "addresses": set(),
        "resolver": {"addresses"},
    },
    2: {"observe": NOUNS},
    3: {"config": NOUNS, "tokens": NOUNS | {"observe"}, "access": NOUNS | {"observe"}},
    4: {"proxy": NOUNS | {"observe", "access"}},
    5: {"admin": NOUNS | {"observe", "access", "tokens"}, "sandbox": NOUNS},
    6: {"app": NOUNS | {"observe", "config", "tokens", "access", "proxy", "admin"}},
    7: {
        "commands": NOUNS | {"observe", "config", "tokens", "access", "proxy", "admin", "sandbox", "serving"},
        "serving": NOUNS | {"observe", "app"},
        "cli": {"commands", "errors"},
        "__main__": {"cli"},
    },
}
"""Floor → part of the house → the other parts that it may import. The package's own `__version__` is free to all."""

MAY_KNOW = {part: known for parts in FLOORS.values() for part, known in parts.items()}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}


def part_of(path: Path) -> str:
    """Return the part of the house that a file belongs to: `gateway/proxy/pool.py` → `proxy`."""
    return path.relative_to(ROOT / "gateway").with_suffix("").parts[0]


def parts_imported(source: str, own_package: str) -> set[str]:
    """Return the parts that this source imports, wherever the import stands: in a function, under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = own_package.split(".")
            base = ".".join(package[: len(package) + 1 - node.level]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("gateway.")} - {"__version__"}


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


def test_the_page_shows_the_same_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = {
        (name.removesuffix(".py").removesuffix("/"), int(floor))
        for floor, names in re.findall(r"^\| (\d) \| ([^|]+) \|", page, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert shown == set(FLOOR_OF.items())
