"""File descriptors: how many this process may open, and how many of them are left for connections."""

from __future__ import annotations

import resource
from pathlib import Path

ENOUGH = 2**20
"""Descriptors beyond which the limit is not raised: more than `limits.connections` may ever need."""
_SPARE = 128
"""Descriptors that are kept for token endpoints, JWKS, the admin port, files and programs."""
_ASSUMED = 64
"""Open descriptors where the system does not tell."""


def descriptors_for_connections() -> int:
    """Raise the limit of open files as far as allowed; return how many descriptors connections may take.

    At most a quarter of a small limit is kept for other purposes.
    """
    limit = _raised()
    return max(2, limit - _in_use() - min(_SPARE, limit // 4))


def _raised() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY:
        return ENOUGH
    if soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # macOS has a lower limit than it shows
            return soft
        return most
    return soft


def _in_use() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return sum(1 for _ in Path(folder).iterdir())
    return _ASSUMED
