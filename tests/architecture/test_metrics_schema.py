"""The dashboards fit Grafana's own types (npm `@grafana/schema`), and seeded mistakes do not.

Runs where `npm ci --prefix grafana/schema` was run; one run of the compiler for everything.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

GRAFANA = Path(__file__).parents[2] / "grafana"
MODULES = GRAFANA / "schema" / "node_modules"
COMPILER = MODULES / ".bin" / "tsc"
FLAGS = ("--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext")

pytestmark = pytest.mark.skipif(
    not COMPILER.exists(), reason="Grafana's types are not installed (npm ci --prefix grafana/schema)"
)


def panel(board: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in board["panels"] if each["type"] == "timeseries")


def put(where: Callable[[dict[str, Any]], Any], key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(board: dict[str, Any]) -> None:
        where(board)[key] = value

    return change


FAULTS = {
    "unknown_panel": put(panel, "type", "timeserie"),
    "unknown_key": put(panel, "titel", "x"),
    "place": put(lambda board: panel(board)["gridPos"], "w", "8"),
    "unit": put(lambda board: panel(board)["fieldConfig"]["defaults"], "unit", 1),
    "style": put(lambda board: panel(board)["fieldConfig"]["defaults"]["custom"], "drawStyle", "lines"),
    "stacking": put(lambda board: panel(board)["fieldConfig"]["defaults"]["custom"]["stacking"], "mode", "on"),
    "legend": put(lambda board: panel(board)["options"]["legend"], "placement", "under"),
    "query": put(lambda board: panel(board)["targets"][0], "expression", "up"),
    "variable": put(lambda board: board["templating"]["list"][1], "type", "querry"),
    "annotation": put(lambda board: board["annotations"]["list"][0], "colour", "blue"),
    "refresh": put(lambda board: board, "refresh", 30),
}


def test_each_dashboard_fits_and_each_seeded_mistake_does_not(tmp_path: Path) -> None:
    shutil.copy(GRAFANA / "schema" / "types.ts", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    boards = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
    for name, fault in FAULTS.items():
        boards[name] = copy.deepcopy(boards["overview"])
        fault(boards[name])
    for name, board in boards.items():
        text = f"import type {{ Checked }} from './types';\nexport const it: Checked = {json.dumps(board, indent=1)};\n"
        (tmp_path / f"{name}.ts").write_text(text)
    files = [f"{name}.ts" for name in boards]
    command = [str(COMPILER), *FLAGS, *files]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=240)
    wrong = set(re.findall(r"^(\w+)\.ts\(", done.stdout, re.MULTILINE))
    assert wrong == set(FAULTS), done.stdout[:2000]
