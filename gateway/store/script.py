"""A Lua script that the store runs in one round trip; no other command runs in between."""

from __future__ import annotations

import hashlib


class Script:
    """A script. Make it once, as a constant of a module."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        """Make a script; `name` appears in its `repr` only."""
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # EVALSHA names a script by its SHA-1

    def __repr__(self) -> str:
        return f"<script {self.name}>"
