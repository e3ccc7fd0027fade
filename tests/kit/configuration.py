"""Configurations for tests: written to a file, loaded with an environment of canaries."""

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
    """Write a configuration, given with the indentation of the test."""
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def loaded(folder: Path, text: str, **environ: str) -> Config:
    """Write and load."""
    return load([written(folder, text)], environ=environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    """The mistakes in a configuration, one line each, the folder left out; empty when it loads."""
    path = written(folder, text)
    try:
        load([path], environ=environ)
    except ConfigError as error:
        return [str(problem).removeprefix(f"{folder}/") for problem in error.problems]
    return []


def canaries(text: str) -> dict[str, str]:
    """Every variable that a configuration cannot do without, with a made-up secret for each."""
    return {name: f"CANARY-{name.lower()}-+%&=~/ x" for name in NEEDED.findall(text)}
