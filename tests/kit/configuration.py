"""Writes configurations of tests to files, and loads them with canaries as secrets."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from gateway.config import load
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.model import Config

ROOT = Path(__file__).resolve().parents[2]
NEEDED = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def written(folder: Path, text: str, name: str = "config.yaml") -> Path:
    """Write a configuration that is indented like the test; return its path."""
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def loaded(folder: Path, text: str, **environ: str) -> Config:
    """Write a configuration and load it."""
    return load([written(folder, text)], environ=environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    """Return the mistakes in a configuration, one line each, without the folder; empty if it loads."""
    path = written(folder, text)
    try:
        load([path], environ=environ)
    except ConfigError as error:
        return [str(problem).removeprefix(f"{folder}/") for problem in error.problems]
    return []


def canaries(text: str) -> dict[str, str]:
    """Return every variable that a configuration needs, each with a made-up secret."""
    return {name: f"CANARY-{name.lower()}-+%&=~/ x" for name in NEEDED.findall(text)}
