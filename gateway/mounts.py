"""What is mounted where, as Linux tells it in /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

TABLE: Final = Path("/proc/self/mountinfo")
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
"""File systems that are on no disk. A tmpfs may still be swapped out."""
_POINT: Final = 4
"""The field of a line that names the mount point, from 0."""


class Mount(NamedTuple):
    """One mount."""

    point: str
    kind: str
    """The type of its file system, as `tmpfs`."""


def mounts(table: Path = TABLE) -> list[Mount]:
    """Return all mounts of this process, in their order; none if the system does not tell."""
    try:
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        here, separator, there = line.partition(" - ")
        fields = here.split(" ")
        if len(fields) > _POINT:
            found.append(Mount(_unescaped(fields[_POINT]), there.split(" ")[0] if separator else ""))
    return found


def kind_of(path: Path, table: Path = TABLE) -> str | None:
    """Return the type of the file system that holds a path, or would hold it; None if the system does not tell."""
    real = path.resolve()
    holding = [mount for mount in mounts(table) if real.is_relative_to(mount.point)]
    longest = max((len(Path(mount.point).parts) for mount in holding), default=0)
    nearest = [mount.kind for mount in holding if len(Path(mount.point).parts) == longest]
    return nearest[-1] if nearest else None  # a later mount hides an earlier one at the same place


def _unescaped(field: str) -> str:
    """Return a field with its octal escapes (space, tab, newline, backslash) resolved."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
