"""Every target that `make help` lists can be planned: each of its prerequisites exists or has a rule."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_make_can_plan_every_target_that_it_lists(target: str) -> None:
    """`--dry-run` prints the recipes, and runs only those lines that call make, with the same option."""
    said = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=ENVIRON, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr


def test_the_list_of_targets_is_read() -> None:
    assert {"help", "test", "deploy-test", "release"} <= set(TARGETS)
