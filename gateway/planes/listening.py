"""Makes the Unix socket for planes: under another name, with its permissions, then renamed.

So no process can connect before the permissions are right, and the socket file of a process that was killed is replaced
in one step. A socket that a process still serves, and a file that is not a socket, are never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import ListenError, os_reason

if TYPE_CHECKING:
    from gateway.model import SocketFile

KEY: Final = "planes.listen"
_BACKLOG: Final = 4096
_NOT_SERVED: Final = (errno.ECONNREFUSED, errno.ENOENT)


def listen_unix(file: SocketFile) -> socket.socket:
    """Return a non-blocking socket that listens at the path. Raises ListenError."""
    path = file.path
    beside = _beside(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _check_free(file)
        beside.unlink(missing_ok=True)
        sock.bind(bytes(beside))
        beside.chmod(file.mode)
        sock.listen(_BACKLOG)
        beside.replace(path)
    except OSError as error:
        sock.close()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        hint = f" (does the folder {path.parent} exist?)" if error.errno == errno.ENOENT else ""
        raise ListenError(KEY, str(file), os_reason(error) + hint) from error
    except ListenError:
        sock.close()
        raise
    return sock


def _beside(path: Path) -> Path:
    """Return another name in the same folder, unique to this process and not longer: paths of sockets are limited."""
    own = f".{os.getpid():x}"
    return path.with_name(f"{own}.{path.name}"[: max(len(own), len(path.name))])


def is_at(sock: socket.socket, path: Path) -> bool:
    """Whether a socket that was passed to this process was made for a path, by `listen_unix` or somebody else."""
    name = sock.getsockname()
    bound = Path(name) if isinstance(name, str) and name else None
    if bound is None or bound.parent != path.parent:
        return False
    own, _, rest = bound.name.removeprefix(".").partition(".")
    beside = bound.name.startswith(".") and len(bound.name) == max(len(own) + 1, len(path.name))
    return bound == path or (beside and path.name.startswith(rest))


def _check_free(file: SocketFile) -> None:
    """Raise ListenError if the path is a file that is not a socket, or a socket that a process serves."""
    try:
        kind = file.path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenError(KEY, str(file), "the file is there and is no socket: remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(bytes(file.path))
        except OSError as error:
            if error.errno in _NOT_SERVED:
                return
            raise
    raise ListenError(KEY, str(file), "another process serves this socket")


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at a path, by which a replaced file is noticed; None without a file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def remove(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove the socket, unless another process has replaced it by its own."""
    if ours is not None and identity(path) == ours:
        with contextlib.suppress(OSError):
            path.unlink()
