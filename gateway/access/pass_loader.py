"""Loads `passes.py` when the first pass is issued or presented, because importing PyJWT takes a fifth of a second."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.pass_secrets import Former
    from gateway.access.passes import Passes
    from gateway.model import Config


class PassLoader:
    """The passes of one configuration, and how to load them."""

    def __init__(self, config: Config, *, wall: Callable[[], float], former: Former) -> None:
        self._config = config
        self._wall = wall
        self._former = former
        self.passes: Passes | None = None
        """None until `refetch` has returned once."""

    async def refetch(self) -> None:
        """Load the passes, in a thread so that no request waits for the import."""
        if self.passes is None:
            module = await asyncio.to_thread(import_module, "gateway.access.passes")
            self.passes = module.Passes(self._config, wall=self._wall, former=self._former)
