"""What a start imports, and what garbage a process that runs for years may hold."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
import weakref
from importlib.resources import files
from typing import Any

import pytest

from gateway.config.profile import names
from gateway.config.tree import Problems
from gateway.config.yamltree import read_shipped, read_text
from gateway.serving import process
from tests.kit.rest import until


def said(script: str) -> Any:
    """Run a script in a fresh interpreter; return what it prints, as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=100).stdout)


def test_a_start_imports_no_terminal_library_and_leaves_everything_as_it_was() -> None:
    """`rich` and pydantic's plugins are hidden only while the gateway's modules are imported."""
    found = said("""
        import json, os, sys
        from gateway.commands.serve import _lean
        before = dict(os.environ)
        with _lean():
            import gateway.config, gateway.serving
        loaded = [name for name in ("rich", "pygments", "jinja2", "cryptography", "jwt") if name in sys.modules]
        import rich.table
        from aiohttp.connector import _SSL_CONTEXT_VERIFIED
        read = _SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"]
        print(json.dumps([loaded, dict(os.environ) == before, rich.table.Table.__name__, read]))
    """)
    assert found == [[], True, "Table", 0]


@pytest.mark.parametrize("name", names())
def test_the_quick_reader_reads_a_profile_as_the_careful_one_does(name: str) -> None:
    text = (files("gateway.config") / "profiles" / f"{name}.yaml").read_text("utf-8")
    problems = Problems()
    assert read_shipped(text, name) == read_text(text, name, problems)
    assert not problems


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="collects in steps of its own")
def test_garbage_that_grew_old_before_it_died_is_collected_too() -> None:
    """Connections that were open for long are cycles of the oldest generation when they close."""
    most = said("""
        from collections import deque
        from gateway.serving.process import tune_collector

        class Connection:
            alive = most = 0
            def __init__(self):
                self.itself = self
                Connection.alive += 1
            def __del__(self):
                Connection.alive -= 1

        tune_collector()
        opened = deque(maxlen=180_000)
        for _ in range(1_500_000):
            opened.append(Connection())
            Connection.most = max(Connection.most, Connection.alive)
        print(Connection.most)
    """)
    assert most < 1_000_000


async def test_garbage_is_looked_for_every_minute_however_little_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    monkeypatch.setattr(process, "COLLECT_EVERY", 0.01)
    gc.disable()
    old = weakref.ref(Cycle())
    assert old() is not None
    looking = asyncio.create_task(process._collect_garbage())
    try:
        await until(lambda: old() is None)
    finally:
        looking.cancel()
        gc.enable()
