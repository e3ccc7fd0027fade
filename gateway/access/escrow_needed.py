"""The signal that a call at the edge of a budget waits for the shared store; for the data plane."""

from __future__ import annotations

import asyncio


class EscrowNeeded(Exception):
    """This instance has used what it was granted of a budget, and the store is being asked: wait, then admit again.

    Not an error: the call is admitted or rejected after the answer.
    """

    def __init__(self, asked: asyncio.Task[None]) -> None:
        super().__init__()
        self._asked = asked

    async def wait(self) -> None:
        """Wait for the store's answer, or for its time-out. Never raises for a failure of the store."""
        await asyncio.wait((self._asked,))
