"""What a process does before it imports anything else: open its standard descriptors, and survive signals.

Imports only the standard library. `serve` hands over to the event loop's signal handlers as soon as there is a loop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

LATER = (signal.SIGHUP, signal.SIGUSR2)
"""Signals that are remembered until the gateway serves."""
IGNORED = (signal.SIGUSR1,)
"""Signals without a meaning here, whose default action would end the process."""
STOPPING = (signal.SIGTERM, signal.SIGINT)
_remembered: list[int] = []  # signals arrive for the process, before there is any object that could hold them
_deferring: list[None] = []


def open_standard_streams() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed.

    The next file or socket would get that number, and whatever is printed to standard error would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for ever


def catch_signals() -> None:
    """Install handlers for all signals of `serve`.

    The first process of a container (PID 1) gets no signal without a handler, and any other process would be ended by
    SIGHUP. SIGTERM and SIGINT end the process with status 0; programs that it runs are ended by whoever runs them.
    """
    for number in LATER:
        signal.signal(number, _remember)
    for number in IGNORED:
        signal.signal(number, _ignore)
    for number in STOPPING:
        signal.signal(number, _stop)


def remembered() -> Iterator[int]:
    """Return the signals that have arrived so far, each once, and forget them."""
    while _remembered:
        yield _remembered.pop(0)


def _remember(number: int, _frame: FrameType | None) -> None:
    if number not in _remembered:
        _remembered.append(number)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, a handler is not inherited by programs that are started."""


def _stop(number: int, _frame: FrameType | None) -> None:
    if _deferring:
        _remember(number, None)
    else:
        sys.exit(0)


@contextmanager
def deferred_stop() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process only after this block: a program that is being started can be ended."""
    _deferring.append(None)
    try:
        yield
    finally:
        _deferring.pop()
        if (
            not _deferring
            and any(number in STOPPING for number in _remembered)
            and threading.current_thread() is threading.main_thread()
        ):
            sys.exit(0)
