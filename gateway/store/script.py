"""A Lua script that the store runs: all its commands, or none, in one round trip."""

from __future__ import annotations

import hashlib


class Script:
    """A script; make it once, as a constant of a module."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        """`name` is for people: in errors and metrics."""
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # what EVALSHA asks for

    def __repr__(self) -> str:
        return f"<script {self.name}>"
