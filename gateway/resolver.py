"""Name resolution for `aiohttp.ClientSession`s that carry secrets: only addresses that the configuration allows.

What was looked at is what is connected to; nothing is resolved a second time, so DNS rebinding finds no gap.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.addresses import look_up, permitted

if TYPE_CHECKING:
    from gateway.addresses import LookUp, Networks


class GuardedResolver(AbstractResolver):
    """Raises `AddressRefused`, an OSError, for a name that leads only where nothing of ours may go."""

    def __init__(self, allowed: Networks, look_up: LookUp = look_up) -> None:
        self.allowed = allowed
        """Networks that a name may lead to whatever they are; a reload replaces them."""
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host` that may be connected to."""
        infos = permitted(host, await self._look_up(host, port), self.allowed)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=own,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for own, _, proto, _, address in infos
            if family in {socket.AF_UNSPEC, own}
        ]

    async def close(self) -> None:
        """Nothing is open."""
