"""What keeps secrets inside the process: no core dumps, no reading of its memory, a word about files that others read.

Knows the operating system, nothing of the gateway. Linux can do all of it; elsewhere what is possible is done.
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
    """Write no core dump, and let no other process of this user read our memory or environment (prctl(2)).

    Returns whether the second could be had: on Linux only. Root and CAP_SYS_PTRACE still can.
    """
    try:
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # the other half may still be had
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
