"""README's start, acted literally on a clone: from nothing to the first proxied request."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"<!-- start:.*?-->\n```sh\n(.*?)```\n<!-- end -->", re.DOTALL)
WITHIN = 60.0
"""Seconds from the clone to the first proxied request, on a machine with nothing else to do."""


def start_of_readme() -> str:
    found = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(found) == 1
    return str(found[0])


@pytest.mark.long
def test_the_start_works_as_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the page, in one shell; its own ports 8080 and 9090 must be free."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    home = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHON": shutil.which("python3") or ""}
    began = time.monotonic()
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", start_of_readme()],
        cwd=clone,
        env={**home, **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    first = status = 0.0
    try:
        assert shell.stdout is not None
        for line in shell.stdout:
            lines.append(line)
            if line.startswith('{"vendor"'):
                first = time.monotonic() - began
                seen, _ = json.JSONDecoder().raw_decode(line)  # curl ends without a line of its own
            if first and re.search(r"^\S*\s*idfy\b", line):
                status = time.monotonic() - began
                break
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        with shell:
            pass  # waits for it, and closes its pipe
    assert first, "".join(lines)
    token = dict(seen["headers"])["Authorization"].removeprefix("Bearer ")
    assert re.fullmatch(r"[0-9a-f]{8}", token)
    assert status, "".join(lines)
    with capsys.disabled():
        print(f"\n{first:.0f} s from the clone to the first proxied request")  # noqa: T201 - what it measures
    assert first < WITHIN * 4, "far slower than the page promises"
