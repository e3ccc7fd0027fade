"""What a start imports, and that it reads its own profiles as the careful reader does."""

from __future__ import annotations

from importlib.resources import files

import pytest

from gateway.config.read.profile import names
from gateway.config.read.tree import Problems
from gateway.config.read.yaml import read_shipped, read_text
from tests.kit.interpreter import said


def test_a_start_imports_no_library_that_only_some_configurations_need() -> None:
    loaded = said("""
        import json, sys
        import gateway.config, gateway.serving
        print(json.dumps([name for name in ("jinja2", "cryptography", "jwt") if name in sys.modules]))
    """)
    assert loaded == []


def test_serve_does_not_search_the_installed_packages_for_plugins_of_pydantic() -> None:
    searched = said("""
        import importlib.metadata, json
        from click.testing import CliRunner
        calls = []
        real = importlib.metadata.distributions
        importlib.metadata.distributions = lambda **kw: calls.append(1) or real(**kw)
        from gateway.cli import main
        CliRunner().invoke(main, ["serve", "-c", "/not/there.yaml"])
        from gateway.config.keys.file import FileSection
        FileSection.empty()
        print(json.dumps(calls))
    """)
    assert searched == []


@pytest.mark.parametrize("name", names())
def test_the_quick_reader_reads_a_profile_as_the_careful_one_does(name: str) -> None:
    text = (files("gateway.config") / "profiles" / f"{name}.yaml").read_text("utf-8")
    problems = Problems()
    assert read_shipped(text, name) == read_text(text, name, problems)
    assert not problems
