"""What a trial saw, and the programs that it runs."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Unable(Exception):
    """The machine cannot do this trial; the text says what is missing."""


@dataclass
class Outcome:
    """Rows of the table: what, the figure, and whether it is as it should be."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, what: str, figure: object, *, good: bool = True) -> None:
        """Add a row."""
        self.rows.append((what, str(figure), good))


def run(
    *command: str | Path, cwd: Path | None = None, check: bool = True, environ: Mapping[str, str] | None = None
) -> str:
    """Return a command's standard output; raises AssertionError with its error output."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd, timeout=900,
        env=os.environ | dict(environ or {}),
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def docker(*arguments: str | Path, check: bool = True) -> str:
    """Run the client that $DOCKER names, with its options."""
    return run(*shlex.split(os.environ.get("DOCKER", "docker")), *arguments, check=check)


def shell(command: str) -> str:
    """Run a shell command in which {docker} is the client with its options."""
    return run("sh", "-c", command.format(docker=os.environ.get("DOCKER", "docker")))


def needs_engine() -> None:
    """Raise Unable without a Docker engine."""
    try:
        docker("version")
    except (OSError, AssertionError) as error:
        raise Unable("no Docker engine answers") from error


def needs_docker(image: str) -> None:
    """Raise Unable without an engine that has the image."""
    needs_engine()
    try:
        docker("image", "inspect", image)
    except AssertionError as error:
        raise Unable(f"there is no image {image}; `make image` builds it") from error
