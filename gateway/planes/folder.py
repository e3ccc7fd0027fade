"""One folder that another proxy watches: opened once, locked, and written by renaming.

All names are relative to the descriptor of the folder, and no symbolic link is followed. A file is complete before it
gets its name, so a reader sees the old content or the new one. The lock is held by one process at a time: the
predecessor of an upgrade gives it up, and a second gateway with the same folder waits. All methods may block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import GatepassError
from gateway.planes import sds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER_MODE: Final = 0o750
FILE_MODE: Final = 0o640
MOST_BYTES: Final = 256 * 1024
"""Bytes of one of our files; a token is far shorter."""
_BEFORE: Final = 0o600
"""Permissions of a file until its owner and group are right."""
_UNFINISHED: Final = re.compile(r"\..+\.[0-9a-f]{16}\.new")
_NO_LINK: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class FolderError(GatepassError):
    """A folder, or a file in it, that is not used because of what it is."""


class Mark(NamedTuple):
    """Identifies a file that was written: a file that replaced it, or that was changed, has another mark."""

    device: int
    inode: int
    changed: int
    """Nanoseconds since the epoch."""


class Folder:
    """A folder for the files of one plane. `open()` it before any other method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<Folder {self.path} {'closed' if self._descriptor is None else 'locked'}>"

    def open(self) -> bool:
        """Open and lock the folder, and create it if it is missing; return False while another process has the lock.

        A folder that was replaced since is opened again.

        Raises:
            OSError: it cannot be opened or created.
            FolderError: its owner or its permissions are not safe.
        """
        if self._descriptor is not None:
            if self._is_in_place(self._descriptor):
                _check(self._descriptor)
                return True
            self.close()
        descriptor = self._opened()
        try:
            _check(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._remove_unfinished()
        return True

    def close(self) -> None:
        """Close the folder, which releases the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_locked_elsewhere(self) -> bool:
        """Return whether another process has the lock. Call it when the folder is closed."""
        descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def put(self, name: str, content: bytes) -> Mark:
        """Write a file of ours, all at once.

        Raises:
            OSError: it cannot be written.
            FolderError: there is a file of this name that Gatepass has not written.
        """
        if self.read(name) is None and self._stat(name) is not None:
            raise FolderError(f"{self.path / name} was not written by Gatepass, so it is not replaced: remove it")
        unfinished = f".{name}.{secrets.token_hex(8)}.new"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, _BEFORE, dir_fd=self._at)
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._give_to_group(descriptor)
                file.write(content)
                file.flush()
                mark = _mark(os.fstat(descriptor))
            os.rename(unfinished, name, src_dir_fd=self._at, dst_dir_fd=self._at)
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished, dir_fd=self._at)
            raise
        return mark

    def read(self, name: str) -> sds.Stated | None:
        """Return what a file of ours says; None if there is none, or if Gatepass has not written it."""
        status = self._stat(name)
        if status is None or not _is_ours(status):
            return None
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=self._at), "rb") as file:
            return sds.stated(file.read(MOST_BYTES))

    def holds(self, name: str, mark: Mark) -> bool:
        """Return whether a file is still the one that was written with `mark`."""
        status = self._stat(name)
        return status is not None and _mark(status) == mark

    def remove(self, name: str) -> None:
        """Remove a file of ours, if it exists."""
        if self.read(name) is not None:
            os.unlink(name, dir_fd=self._at)

    def ours(self) -> Iterator[tuple[str, sds.Stated]]:
        """Yield the name of each file of ours, and what it says."""
        for name in self._names():
            said = self.read(name) if name.endswith(sds.ENDING) else None
            if said is not None:
                yield name, said

    @property
    def _at(self) -> int:
        """The descriptor; without it, names would be relative to the working directory."""
        if self._descriptor is None:
            raise FolderError("the folder is not open")
        return self._descriptor

    def _names(self) -> list[str]:
        with os.scandir(self._at) as entries:
            return sorted(entry.name for entry in entries)

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
        except FileNotFoundError:
            self.path.mkdir(FOLDER_MODE)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise FolderError(f"{self.path} is no folder, or a symbolic link: name the folder itself") from None
            raise
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
        os.fchmod(descriptor, FOLDER_MODE | os.fstat(descriptor).st_mode & stat.S_ISGID)  # the umask may have cut it
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(status, os.fstat(descriptor))

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._at, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _give_to_group(self, descriptor: int) -> None:
        """Let the folder's group read a new file, and nobody else: it has no content yet."""
        group = os.fstat(self._at).st_gid
        if os.fstat(descriptor).st_gid != group:
            try:
                os.fchown(descriptor, -1, group)
            except PermissionError:
                message = (
                    f"the folder's group is {group}, of which the gateway's user is no member: add it to the group"
                )
                raise FolderError(message) from None
        os.fchmod(descriptor, FILE_MODE)

    def _remove_unfinished(self) -> None:
        """Remove what a process that was killed has not finished."""
        for name in self._names():
            if _UNFINISHED.fullmatch(name):
                status = self._stat(name)
                if status is not None and _is_ours(status):
                    os.unlink(name, dir_fd=self._at)


def _mark(status: os.stat_result) -> Mark:
    return Mark(status.st_dev, status.st_ino, status.st_mtime_ns)


def _is_ours(status: os.stat_result) -> bool:
    """Return whether a file may be one of ours: a plain file of our user, with one name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def _check(descriptor: int) -> None:
    """Raise FolderError unless the folder is ours, and only its group may look into it."""
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise FolderError(f"the folder belongs to user {status.st_uid}: it must belong to the gateway's user")
    if status.st_mode & ~FOLDER_MODE & 0o777:
        shown = stat.filemode(status.st_mode)
        raise FolderError(f"the folder's permissions are {shown}: chmod 0750, so that only its group reads tokens")
