"""The JSON file with the counts of budgets: read, changed under a lock, and replaced as a whole.

The file keeps its place behind a symbolic link, its mode and its group. A file that cannot be replaced, because it is a
mount point or its folder takes no other files, is overwritten in place. An empty file has no counts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from gateway.access.counters import periods_kept
from gateway.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from gateway.access.counters import CounterKey

FORMAT: Final = 1
EMPTY: Final = {"format": FORMAT, "counts": []}
MOST_BYTES: Final = 16 * 1024 * 1024
_POLL: Final = 0.02
_PRIVATE: Final = 0o600
_WAY_OUT: Final = "repair it, or move it away while no gateway runs, to start at zero"
_NO_FILES: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""A folder in which we may create no file."""
_IN_PLACE: Final = _NO_FILES | {errno.EBUSY, errno.EXDEV}
"""Why a file cannot be replaced; EBUSY: it is a mount point."""


class Row(NamedTuple):
    """One count in the file: calls made and in flight, of all processes."""

    calls: int
    warned: bool


Rows = dict["CounterKey", Row]


class CountsFile:
    """A state file. All methods may block, for at most as long as they are told to wait for the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing = False
        """Whether `locked` has found no file although it was given counts; reset it after the next write."""

    @contextmanager
    def locked(self, wait: float, known: Rows | None = None) -> Iterator[Rows]:
        """Lock the file against other processes and read its counts.

        `known` are counts that were in the file: they stand for those of a file that was deleted since. Raises OSError,
        and StateError if the file is not a state file or stays locked for `wait` seconds.
        """
        with self.opened(wait) as document:
            rows = self.rows_of(document)
            if known and not rows and not self.path.exists():
                rows, self.missing = dict(known), True
            yield rows

    @contextmanager
    def opened(self, wait: float) -> Iterator[Any]:
        """Lock the file against other processes and read it whole. Raises as `locked`."""
        real = Path(os.path.realpath(self.path))
        descriptor = self._open_lock(real)
        try:
            self._lock(descriptor, wait)
            yield _read(real, self.path)
        finally:
            os.close(descriptor)

    def rows_of(self, document: Any) -> Rows:
        """Return the counts of a document, or of a part of one. Raises StateError."""
        try:
            return _rows(document)
        except (KeyError, TypeError, ValueError):
            raise StateError(
                f"the state file {self.path} does not have the format of this version; {_WAY_OUT}"
            ) from None

    def write(self, rows: Rows, *, current: Collection[str], flush: bool = True) -> Rows:
        """Write rows, without those of old periods; call it within `locked`. Return what was written.

        Args:
            rows: all counts.
            current: the names of the current periods, which are always kept.
            flush: wait until the disk has the file.
        """
        kept = recent(rows, current)
        self.put({"format": FORMAT, "counts": listed(kept)}, flush=flush)
        return kept

    def put(self, document: Mapping[str, Any], *, flush: bool = True) -> None:
        """Write a whole document; call it within `opened` or `locked`."""
        real = Path(os.path.realpath(self.path))
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            _replace(real, text, flush=flush)
        except OSError as error:
            if error.errno not in _IN_PLACE or not real.exists():
                raise
            _overwrite(real, text, flush=flush)

    def add(
        self, made: Mapping[CounterKey, Row], *, current: Collection[str], wait: float, known: Rows | None = None
    ) -> Rows:
        """Add counts to the file; return what is then in it. `known`, and what is raised: as of `locked`."""
        with self.locked(wait, known) as rows:
            return self.write(merged(rows, made), current=current)

    def _open_lock(self, real: Path) -> int:
        """Open the lock file, readable by its owner only; the state file itself where no other file may be created."""
        name = real.with_name(f".{real.name}.lock")
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        except OSError as error:
            if error.errno not in _NO_FILES or name.exists() or not real.exists():
                raise
            return os.open(real, os.O_RDWR | os.O_CLOEXEC)
        with suppress(PermissionError):  # of another user of the same group: not ours to change
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != _PRIVATE:
                os.fchmod(descriptor, _PRIVATE)
        return descriptor

    def _lock(self, descriptor: int, wait: float) -> None:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    message = f"the state file {self.path} is locked by another process for more than {wait:g} s"
                    raise StateError(message) from None
                time.sleep(_POLL)
            else:
                return


def merged(rows: Rows, made: Mapping[CounterKey, Row]) -> Rows:
    """Return rows with the counts of `made` added."""
    result = dict(rows)
    for key, row in made.items():
        before = rows.get(key, Row(0, warned=False))
        result[key] = Row(max(0, before.calls + row.calls), before.warned or row.warned)
    return result


def _read(real: Path, path: Path) -> Any:
    try:
        found = real.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # a pipe would wait for a writer
            raise StateError(f"the state file {path} is no regular file; {_WAY_OUT}")
        if found.st_size > MOST_BYTES:
            raise StateError(f"the state file {path} is too large to be one; {_WAY_OUT}")
        text = real.read_bytes()
        return orjson.loads(text) if text.strip() else dict(EMPTY)
    except FileNotFoundError:
        return dict(EMPTY)
    except orjson.JSONDecodeError:
        raise StateError(f"the state file {path} is not JSON; {_WAY_OUT}") from None


def _rows(document: Any) -> Rows:
    if document["format"] != FORMAT:
        raise ValueError
    rows: Rows = {}
    for row in document["counts"]:
        key, calls = (row["client"], row["route"], row["period"]), row["calls"]
        if not all(isinstance(part, str) for part in key) or type(calls) is not int or calls < 0:
            raise ValueError
        rows[key] = Row(calls, warned=row["warned"] is True)
    return rows


def recent(rows: Rows, current: Collection[str]) -> Rows:
    """Return the rows of the newest periods of each budget, and of the current ones."""
    periods: dict[tuple[str, str, int], list[str]] = {}
    for client, route, period in sorted(rows):
        periods.setdefault((client, route, len(period)), []).append(period)
    kept = {(*key[:2], period) for key, named in periods.items() for period in named[-periods_kept(named[0]) :]}
    return {key: row for key, row in rows.items() if key in kept or key[2] in current}


def listed(rows: Rows) -> list[dict[str, Any]]:
    """Return rows as they are in the file."""
    return [
        {"client": key[0], "route": key[1], "period": key[2], "calls": row.calls, "warned": row.warned}
        for key, row in sorted(rows.items())
    ]


def _replace(real: Path, text: bytes, *, flush: bool) -> None:
    """Write a new file with the mode and group of the old one, and rename it to `real` (atomic by POSIX)."""
    handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _take_over(file.fileno(), real)
            file.write(text)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        Path(name).replace(real)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _take_over(descriptor: int, real: Path) -> None:
    try:
        old = real.stat()
    except FileNotFoundError:
        return
    if old.st_gid != os.fstat(descriptor).st_gid:
        with suppress(PermissionError):  # only root, or a member of the group, may give a file to it
            os.fchown(descriptor, -1, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _overwrite(real: Path, text: bytes, *, flush: bool) -> None:
    descriptor = os.open(real, os.O_WRONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.truncate()
        file.flush()
        if flush:
            os.fsync(file.fileno())
