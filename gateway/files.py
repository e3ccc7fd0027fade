"""Writes a file that a person asked for: whole, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_new(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file that does not exist yet; remove it if it cannot be written whole, such as on a full disk.

    `mode` is its permissions, before the umask. Raises FileExistsError, or OSError that names the file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException as error:  # also what a signal raises
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
