"""Runs blocking calls, each on a thread that runs nothing else at that time.

For calls that may hang for ever: names, and files on a file system that does not answer. An event loop's own executor
has few threads, so a few calls that hang would stop all others.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE = 10.0
"""Seconds after which an idle thread ends."""


class Threads:
    """Idle threads, and new ones if there is none. They are daemons: a call that hangs must not delay the end.

    Calls that come one after another run on one thread, which then lives as long as they come.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: deque[SimpleQueue[Callable[[], None]]] = deque()
        """The inboxes of idle threads."""

    def run(self, call: Callable[[], None]) -> None:
        """Run `call`, which must not raise. Raises RuntimeError if the system allows no more threads."""
        try:
            self._idle.pop().put(call)
        except IndexError:
            threading.Thread(target=self._work, args=(call,), name=self._name, daemon=True).start()

    def _work(self, call: Callable[[], None]) -> None:
        inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        while True:
            call()
            self._idle.append(inbox)
            try:
                call = inbox.get(timeout=_IDLE)
            except Empty:
                try:
                    self._idle.remove(inbox)
                except ValueError:
                    call = inbox.get()  # `run` has taken the inbox in this very moment
                else:
                    return
