"""Watches the grants of one credential in the shared store, and runs the commands that its cache sends there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.errors import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from gateway.model import Reading, SharedTokens


class Watch:
    """Reads the grants after each change of one of them, and passes on what it read."""

    def __init__(
        self,
        shared: SharedTokens,
        known: Callable[[], list[tuple[str, int]]],
        *,
        consider: Callable[[Sequence[Reading]], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """Take the store, and functions.

        Args:
            shared: the tokens in the store.
            known: returns the key of each grant, and the highest fence that is known of it.
            consider: called with what was read, in the order of `known`.
            crashed: called with an error of a command other than StoreAway.
        """
        self.commands: set[asyncio.Task[None]] = set()
        """Those that are under way."""
        self._shared = shared
        self._known = known
        self._consider = consider
        self._crashed = crashed
        self._listening: list[Callable[[], None]] = []
        self._is_closed = self._is_reading = self._may_have_changed = False

    def listen(self) -> None:
        """Listen for changes of each grant; call it again after a reload, which may change the names."""
        self._stop_listening()
        self._listening = [self._shared.listen(key, self.changed) for key, _ in self._known()]

    def _stop_listening(self) -> None:
        for stop in self._listening:
            stop()
        self._listening = []

    def close(self) -> None:
        """Stop listening, and read no more; commands under way go on."""
        self._stop_listening()
        self._is_closed = True

    def changed(self) -> None:
        """Read the grants, or read them again if they are being read."""
        self._may_have_changed = True
        if not self._is_reading and not self._is_closed:
            self.spawn(self.read())

    async def read(self) -> None:
        """Read the grants, again if they change meanwhile. Raises StoreAway."""
        self._is_reading = self._may_have_changed = True
        try:
            while self._may_have_changed and not self._is_closed:
                self._may_have_changed = False
                self._consider(await self._shared.read(self._known()))
        finally:
            self._is_reading = False

    def spawn(self, command: Coroutine[None, None, None]) -> None:
        """Run a command in a task; it may fail because the store is away."""
        task = asyncio.get_running_loop().create_task(command)
        self.commands.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.commands.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, StoreAway):
            self._crashed(error)
