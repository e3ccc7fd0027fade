"""`docs/logs.md` lists every event that the code logs, with its level and its fields, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


TABLE_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| ([^|]*) \|$", re.MULTILINE)


def names(node: ast.expr) -> list[str]:
    """The constant texts of an argument: one, or both of `a if b else c`."""
    if isinstance(node, ast.IfExp):
        return names(node.body) + names(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def methods(node: ast.expr) -> list[str]:
    """The names of the methods of a logger that a call may call."""
    if isinstance(node, ast.IfExp):
        return methods(node.body) + methods(node.orelse)
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return []
    return [node.attr] if node.attr in LEVELS and node.value.id.lower().strip("_") in {"log", "own"} else []


def logged() -> dict[str, tuple[set[str], set[str]]]:
    """Levels and fields by event, as the code has them."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in (ROOT / "gateway").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args or not methods(call.func):
                continue
            assert names(call.args[0]), f"{path}:{call.lineno}: an event must be a constant word"
            for method, name in zip(methods(call.func), names(call.args[0]), strict=True):
                levels, fields = found.setdefault(name, (set(), set()))
                levels.add(LEVELS[method])
                fields |= {keyword.arg or "" for keyword in call.keywords} - {"exc_info"}
    return found


def documented() -> dict[str, tuple[set[str], set[str]]]:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8").partition("## All other events")[2]
    rows = TABLE_ROW.findall(page.partition("\n## ")[0])
    return {event: ({level}, set(re.findall(r"`(\w+)`", fields))) for event, level, fields in rows}


def test_every_event_is_documented_with_its_level_and_fields_and_no_other_is() -> None:
    assert documented() == logged()


def test_the_reader_of_the_code_sees_both_forms_of_a_call() -> None:
    found = logged()
    assert found["traces_not_sent"] == ({"warning"}, set())
    assert found["traces_sent_again"] == ({"info"}, set())
    assert "error" in found["request_not_logged"][1]


def reasons_of_a_folder() -> list[str]:
    """Return why a folder of `planes.push` is not used, as the code says it, with `…` for each value."""
    tree = ast.parse((ROOT / "gateway" / "planes" / "folder.py").read_text(encoding="utf-8"))
    texts = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
    ]
    return [text for text in texts if " " in text and not text.startswith("<")]


def test_the_runbook_says_what_to_do_for_each_reason_why_a_folder_is_not_used() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = page[page.index("\n## Push fails") : page.index("\n## Config refused")]
    known = [each.strip("… ") for each in re.findall(r"^   \| `([^`]+)`", section, re.MULTILINE)]
    reasons = reasons_of_a_folder()
    assert len(reasons) >= 5
    assert [reason for reason in reasons if not any(each in reason for each in known)] == []


def test_no_method_of_a_logger_is_kept_in_a_variable() -> None:
    """The reader of the code would not see what is logged with it."""
    for path in (ROOT / "gateway").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {id(node) for call in ast.walk(tree) if isinstance(call, ast.Call) for node in ast.walk(call.func)}
        kept = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.expr) and methods(node) and id(node) not in called
        ]
        assert not kept, f"{path}:{kept[0]}: call the method where it is named"
