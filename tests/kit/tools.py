"""Finds and runs the programs that tests need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tool(name: str, path: str | None = None) -> str:
    """Return the path of a program: beside this Python, or on the path. Skip the test if it is missing."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str, cwd: Path | None = None) -> str:
    """Return what a program prints on both outputs; fail the test if the program fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
