"""A process is closed to others of its user before it imports anything that takes time, whatever the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "serve", "check", "check --offline", "token a", "routes", "health", "keys new web", "sandbox --help", "--version",
]  # fmt: skip
WATCH_IMPORTS = """
import ctypes, runpy, sys
PR_GET_DUMPABLE = 3
libc = ctypes.CDLL(None)
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"click", "yaml", "pydantic", "asyncio"} or name == "gateway.cli":
            seen.append((name, libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)))
        return None
seen = []
assert libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1, "the test itself must begin unprotected"
sys.meta_path.insert(0, Watch())
try:
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("imports", len(seen), "open", [name for name, dumpable in seen if dumpable], file=sys.stderr)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")


@linux
@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_protects_its_process_before_it_imports_its_parts(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCH_IMPORTS, *words.split()]
    ended = subprocess.run(
        command,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    [(count, still_open)] = re.findall(r"imports (\d+) open (.*)$", ended.stderr, re.MULTILINE)
    assert int(count) > 0
    assert still_open == "[]"


def test_the_installed_program_is_the_protected_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"gatepass": "gateway.__main__:main"}
