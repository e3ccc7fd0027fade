"""No module and no function is too long to be read in one go."""

import ast
from pathlib import Path

GATEWAY = Path(__file__).parents[2] / "gateway"
MODULE, FUNCTION = 400, 50


def test_a_module_has_at_most_400_lines() -> None:
    lengths = {str(path): path.read_text(encoding="utf-8").count("\n") for path in GATEWAY.rglob("*.py")}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MODULE} == {}


def test_a_function_has_at_most_50_lines_of_code() -> None:
    lengths: dict[str, int] = {}
    for path in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documentation = ast.get_docstring(node, clean=False)
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                lengths[f"{path}:{node.name}"] = lines - (documentation.count("\n") + 1 if documentation else 0)
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION} == {}
