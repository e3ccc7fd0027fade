"""One folder that another proxy watches. It is opened once and locked; its files are replaced by renaming.

All names are relative to the folder's descriptor, and no symbolic link is followed. A file is complete before it gets
its name, so a reader sees the old content or the new one. One process at a time has the lock: in an upgrade the
predecessor releases it, and a second gateway with the same folder waits for it. All methods may block.
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
"""Permissions of a folder that Gatepass creates, and the most that it accepts."""
FILE_MODE: Final = 0o640
MOST_BYTES: Final = 256 * 1024
"""Most bytes that are read from a file; a token is far shorter."""
_BEFORE: Final = 0o600
"""Permissions of a new file until it has the folder's group."""
_UNFINISHED: Final = re.compile(r"\..+\.[0-9a-f]{16}\.new")
_NO_LINK: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class FolderError(GatepassError):
    """The folder or a file in it is not used, because of its owner, permissions or kind."""


class Mark(NamedTuple):
    """Identifies a file and its content: a replaced or changed file has another mark."""

    device: int
    inode: int
    changed: int
    """Time of the last modification, in nanoseconds since the epoch."""


class Folder:
    """The folder with the files of one plane. Call `open` before any other method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<Folder {self.path} {'closed' if self._descriptor is None else 'locked'}>"

    def open(self) -> bool:
        """Open and lock the folder, and create it if it is missing; return False while another process has the lock.

        If it is open already, check it again; open it anew if it was replaced.

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
        """Write a file of ours, which replaces the old one in one step; return its mark.

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
        """Return what a file of ours says; None if there is none, or if Gatepass has not written it. Raises OSError."""
        status = self._stat(name)
        if status is None or not _is_ours(status):
            return None
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=self._at), "rb") as file:
            return sds.stated(file.read(MOST_BYTES))

    def holds(self, name: str, mark: Mark) -> bool:
        """Return whether a file still has this mark."""
        status = self._stat(name)
        return status is not None and _mark(status) == mark

    def remove(self, name: str) -> None:
        """Remove a file of ours, if it exists. Raises OSError."""
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
        """The folder's descriptor. Raises FolderError without one: names would be relative to the working directory."""
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
        os.fchmod(descriptor, FOLDER_MODE | os.fstat(descriptor).st_mode & stat.S_ISGID)  # despite the umask
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
        """Let only the folder's group read a new file, which has no content yet. Raises FolderError, OSError."""
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
        """Remove files that a killed process has not finished."""
        for name in self._names():
            if _UNFINISHED.fullmatch(name):
                status = self._stat(name)
                if status is not None and _is_ours(status):
                    os.unlink(name, dir_fd=self._at)


def _mark(status: os.stat_result) -> Mark:
    return Mark(status.st_dev, status.st_ino, status.st_mtime_ns)


def _is_ours(status: os.stat_result) -> bool:
    """Return whether a file may be one of ours: a regular file of our user, with one name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def _check(descriptor: int) -> None:
    """Raise FolderError unless the folder is ours, and no others than its group may read it."""
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise FolderError(f"the folder belongs to user {status.st_uid}: it must belong to the gateway's user")
    if status.st_mode & ~FOLDER_MODE & 0o777:
        shown = stat.filemode(status.st_mode)
        raise FolderError(f"the folder's permissions are {shown}: chmod 0750, so that only its group reads tokens")
