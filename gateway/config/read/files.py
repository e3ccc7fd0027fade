"""Bounded reads of configuration and secret files: neither a pipe nor a hung file system can stop a reading for ever.

A file is read on a thread that reads nothing else meanwhile. If it does not answer in time, the reading fails with the
file's name, and the thread is left behind until the operating system lets it go; per file, few such threads may exist
at a time.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from typing import TYPE_CHECKING

from gateway.threads import Threads

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 3.0
"""Seconds that a file may take."""
ABANDONED = 3
"""Threads that may still wait for one file; with more, it is not tried again until one of them ends."""
_threads = Threads("gatepass-files")
_under_way: set[tuple[Path, threading.Event]] = set()
"""Reads that have begun and not ended."""


def read_bytes(path: Path, limit: int, *, regular: bool = False, timeout: float = TIMEOUT) -> bytes:
    """Return the content of a file of at most `limit` bytes; `regular` refuses pipes and devices.

    Raises OSError, whose `strerror` says in words what is wrong.
    """
    if sum(each == path for each, _ in tuple(_under_way)) >= ABANDONED:
        raise TimeoutError(errno.ETIMEDOUT, "it still does not answer", str(path))
    outcome: list[bytes | Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(_read(path, limit, regular=regular, deadline=time.monotonic() + timeout))
        except Exception as error:  # noqa: BLE001 - raised where the file is wanted
            outcome.append(error)
        finally:
            _under_way.discard((path, done))
            done.set()

    _under_way.add((path, done))
    _threads.run(run)
    if not done.wait(timeout + 0.5):
        raise _late(path, timeout)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def why(error: OSError) -> str:
    """Return the reason of a failed read as a clause; for a missing permission, with the user that lacks it."""
    text = error.strerror or "unknown error"
    text = text[:1].lower() + text[1:]
    return f"{text} for user {os.geteuid()}" if isinstance(error, PermissionError) else text


def _read(path: Path, limit: int, *, regular: bool, deadline: float) -> bytes:
    # Without O_NONBLOCK, opening a named pipe waits for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if regular and not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return _read_all(number, path, limit, deadline, waits=not stat.S_ISREG(mode))
    finally:
        os.close(number)


def _read_all(number: int, path: Path, limit: int, deadline: float, *, waits: bool) -> bytes:
    poll = select.poll()
    poll.register(number, select.POLLIN)
    began = time.monotonic()
    data = b""
    while len(data) <= limit:
        if waits and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _late(path, deadline - began)
        part = os.read(number, limit + 1 - len(data))
        if not part:
            return data
        data += part
    raise OSError(errno.EFBIG, f"it is larger than {_size(limit)}", str(path))


def _late(path: Path, timeout: float) -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"it did not answer within {timeout:.2g} s", str(path))


def _size(limit: int) -> str:
    return f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 1024} KiB"
