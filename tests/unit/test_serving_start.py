"""What a start imports, and that it reads its own profiles as the careful reader does."""

from __future__ import annotations

from importlib.resources import files

import pytest

from gateway.config.read.profile import names
from gateway.config.read.tree import Problems
from gateway.config.read.yaml import read_shipped, read_text
from tests.kit.interpreter import said


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
