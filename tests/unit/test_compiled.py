"""Which gateway is tested: the one whose hot path is compiled where that is asked for, and then all of its modules."""

from __future__ import annotations

import importlib
import os
import runpy
from pathlib import Path

import pytest

from gateway.observe import Metrics
from tests.kit.metrics import scraped

ROOT = Path(__file__).parents[2]
ASKED = os.environ.get("GATEPASS_COMPILE") == "1"
"""`make test-compiled` sets it."""


@pytest.fixture
def to_compile(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return the paths that the build compiles, as its script names them."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GATEPASS_COMPILE", raising=False)
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    found: tuple[str, ...] = runpy.run_path("setup.py")["COMPILED"]
    return found


def test_every_module_of_the_hot_path_is_what_was_asked_for(to_compile: tuple[str, ...]) -> None:
    assert "gateway/proxy/handler.py" in to_compile
    for path in to_compile:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert (Path(module.__file__ or "").suffix == ".so") is ASKED, module.__file__


def test_the_metrics_tell_which_it_is() -> None:
    exposition = scraped(Metrics())
    assert f'compiled="{"yes" if ASKED else "no"}"' in exposition


def test_nothing_is_compiled_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, to_compile: tuple[str, ...]
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("setuptools.setup", lambda **keywords: asked.append(keywords))
    assert to_compile
    runpy.run_path("setup.py")
    assert asked == [{"ext_modules": []}]
