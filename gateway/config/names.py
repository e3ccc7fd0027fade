"""Names in a configuration: what one may look like, and which known name is nearest to a mistyped one."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "letters, digits, `.`, `_` and `-`, at most 64; the first is a letter or a digit"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, or an empty string when no known name is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """Return the nearest known name as `nearest` does, or else all of them."""
    names = sorted(known)
    return nearest(name, names) or (f"; there are: {', '.join(names)}" if names else "; there are none")
