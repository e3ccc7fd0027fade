"""Protection of secrets by the operating system: no core dumps, closed memory, and files that others can read.

`gateway.__main__` imports this module before any other, so it imports nothing of Gatepass and little else.
"""

from __future__ import annotations

import ctypes
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PR_SET_DUMPABLE = 4


def protect_memory() -> bool:
    """Disable core dumps, and close memory and environment to other processes of this user (prctl(2)).

    Returns whether memory and environment are closed, which only Linux supports. Root and processes with
    CAP_SYS_PTRACE can still read them.
    """
    try:
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # closing the memory may still work
    if sys.platform != "linux":
        return False
    try:
        done: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return done == 0


def too_open(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Return the secret files that others may read or change, each with its permissions as `ls` shows them."""
    found = []
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            found.append((str(path), stat.filemode(mode)))
    return found
