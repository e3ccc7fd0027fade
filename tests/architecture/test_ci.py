"""The linters refuse what they are there for, before a commit and in CI, and CI is one script that runs anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kit.configuration import ROOT
from tests.kit.tools import tool

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ROOT / ".pre-commit-config.yaml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
KEY = "-----BEGIN {}PRIVATE KEY-----\nCANARY\n"
MISTAKES = {
    "format": ("gateway/a.py", '"""A module."""\n\nNUMBER=1\n'),
    "ruff": ("gateway/a.py", '"""A module."""\n\nimport os\n'),
    "mypy": ("gateway/a.py", 'NUMBER: int = "one"\n'),
    "mypy of tests": ("tests/test_a.py", "def test_a(value: int) -> str:\n    return value\n"),
    "mypy of benchmarks": ("benchmarks/a.py", "def run():\n    pass\n"),
    "hadolint": ("Dockerfile", "FROM python\nMAINTAINER nobody\n"),
    "actionlint": (".github/workflows/a.yml", "on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{rum: ls}]}}\n"),
    "codespell": ("docs/a.md", "This is teh page.\n"),  # codespell:ignore teh
    "private-key": ("docs/a.md", KEY.format("")),
    "private-key of RSA": ("deploy/tls.pem", KEY.format("RSA ")),
    "private-key of OpenSSH": ("id_ed25519", KEY.format("OPENSSH ")),
}


def hooks() -> list[dict[str, Any]]:
    (local,) = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["repos"]
    assert local["repo"] == "local", "pre-commit would download the tool"
    found: list[dict[str, Any]] = local["hooks"]
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A Git repository with this project's settings and tools, and nothing in it yet."""
    for name in (CONFIG.name, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("gateway", "benchmarks", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "empty.py").touch()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    subprocess.run([tool("git"), "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def run_hook(name: str, checkout: Path) -> tuple[int, str]:
    """Stage all files and run one hook, as `git commit` does."""
    subprocess.run([tool("git"), "add", "."], cwd=checkout, check=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        [tool("pre-commit"), "run", name], cwd=checkout, text=True, capture_output=True, check=False, timeout=120,
        env={**environ, "PRE_COMMIT_HOME": str(checkout / ".venv-home")},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", MISTAKES)
def test_a_hook_refuses_the_mistake_that_it_is_there_for(name: str, checkout: Path) -> None:
    path, text = MISTAKES[name]
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text(text, encoding="utf-8")
    status, printed = run_hook(name.partition(" ")[0], checkout)
    assert status == 1, printed
    assert "Failed" in printed
    assert "Executable" not in printed, printed


def test_every_hook_has_a_mistake_that_it_refuses() -> None:
    assert {hook["id"] for hook in hooks()} == {name.partition(" ")[0] for name in MISTAKES}


def test_every_hook_runs_a_tool_of_the_project_s_own_environment() -> None:
    for hook in hooks():
        assert hook["language"] == "unsupported", "pre-commit would install something"
        assert hook["entry"].startswith(".venv/bin/")


def test_make_lint_runs_all_hooks_and_ci_runs_make_lint() -> None:
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe.strip() == "@$(BIN)/pre-commit run --all-files"
    assert re.search(r"^make .*\blint\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_workflow_checks_the_project_out_and_calls_the_script_that_anybody_can_run() -> None:
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    checkout, call = job["steps"]
    assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", checkout["uses"]), "a tag can be moved, a commit cannot"
    assert call == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
