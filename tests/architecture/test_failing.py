"""A test that fails or hangs ends, and is named: it never takes the rest of the run with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGINNING = """
import asyncio
import pytest

async def listening():
    # No streams: what the collector says about them, at any time later, is about the test that runs then.
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    return server, await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
"""
LEAVES_OPEN = """
async def test_one():
    left = await listening()
    assert not left

async def test_other():
    pass
"""
HANGS = """
@pytest.mark.timeout(4)  # nine tenths for the test, the rest to tell that it took them
async def test_one():
    left = await listening()
    await asyncio.Event().wait()  # for ever

async def test_other():
    pass
"""


@pytest.mark.parametrize(
    ("test", "reason"),
    [(LEAVES_OPEN, "assert not left"), (HANGS, "await asyncio.Event().wait()  # for ever")],
    ids=["leaves a server open", "hangs"],
)
def test_a_test_that_fails_ends_and_the_next_one_runs(tmp_path: Path, test: str, reason: str) -> None:
    (tmp_path / "test_it.py").write_text(BEGINNING + test, encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    options = ("-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist")
    # As a program of its own: what hangs is the end of an event loop, in C, where no time-out of pytest can end it.
    run = subprocess.run(
        (sys.executable, "-m", "pytest", *options, str(tmp_path)),
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f">       {reason}" in run.stdout, run.stdout + run.stderr
    assert "1 failed, 1 passed" in run.stdout
