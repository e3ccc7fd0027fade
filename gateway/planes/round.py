"""One round: writes the files that a folder should have, withdraws and removes the others. Runs on a thread.

The file of a credential that left the configuration is first withdrawn and later removed, because Envoy keeps its last
token if the file is only removed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import os_reason
from gateway.planes import sds
from gateway.planes.files import Outcome
from gateway.planes.folder import FolderError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.planes.files import Job
    from gateway.planes.folder import Folder, Mark

GONE_AFTER: Final = 10.0
"""Seconds between the withdrawal of a file and its removal."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Done(NamedTuple):
    """The outcome of a round."""

    outcomes: list[Outcome]
    removed: list[str]
    """Names of the files of other credentials that were removed."""
    problem: str = ""
    """Why such files could not be withdrawn or removed; empty if they could."""


class Round:
    """Runs rounds in one folder, one after the other."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._leaving: dict[str, float] = {}
        """Files to remove, and when they were withdrawn; monotonic."""

    def run(self, jobs: Sequence[Job], *, now: float, wall: float) -> Done | None:
        """Do all jobs; return None if another process has locked the folder. A job that fails stops no other job.

        Args:
            jobs: one for each credential.
            now: monotonic instant.
            wall: the same instant, seconds since the epoch.
        """
        try:
            if not self._folder.open():
                return None
        except (OSError, FolderError) as error:
            return Done([Outcome(job, problem=_words(error)) for job in jobs], [])
        outcomes = [self._guarded(job, wall) for job in jobs]
        try:
            return Done(outcomes, self._clean(frozenset(sds.file_name(job.file.credential) for job in jobs), now))
        except (OSError, FolderError) as error:
            return Done(outcomes, [], _words(error))

    def is_succeeded(self) -> bool:
        """Return whether another process has locked the folder. Call it after `close`."""
        try:
            return self._folder.is_locked_elsewhere()
        except (OSError, FolderError):
            return True

    def close(self) -> None:
        """Unlock and close the folder."""
        self._folder.close()

    def _guarded(self, job: Job, wall: float) -> Outcome:
        try:
            return self._do(job, wall)
        except (OSError, FolderError) as error:
            return Outcome(job, problem=_words(error))

    def _do(self, job: Job, wall: float) -> Outcome:
        name = sds.file_name(job.file.credential)
        if job.kind == "leave":
            return Outcome(job, job.file.mark)
        if job.kept is not None and self._folder.holds(name, job.kept):
            return Outcome(job, job.kept)
        if job.kind == "put":
            return Outcome(job, self._folder.put(name, job.content), written=True)
        said = self._folder.read(name) if job.kind == "inherit" else None
        if said is not None and said.until > wall:
            return Outcome(job, inherited=said)
        return Outcome(job, self._withdraw(name, job.content), written=True)

    def _withdraw(self, name: str, content: bytes) -> Mark:
        """Write an empty secret; on a full disk, remove the file with the token first to make room."""
        try:
            return self._folder.put(name, content)
        except OSError as error:
            if error.errno not in _FULL:
                raise
        self._folder.remove(name)
        return self._folder.put(name, content)

    def _clean(self, wanted: Collection[str], now: float) -> list[str]:
        """Withdraw the files of other credentials, and remove them `GONE_AFTER` later; return the removed names."""
        found = {name: said for name, said in self._folder.ours() if name not in wanted}
        self._leaving = {name: since for name, since in self._leaving.items() if name in found}
        removed = []
        for name, said in found.items():
            if not said.is_withdrawn:
                self._withdraw(name, sds.document(said.credential, None))
                self._leaving[name] = now
            elif now - self._leaving.setdefault(name, now) >= GONE_AFTER:
                self._folder.remove(name)
                removed.append(name)
        return removed


def _words(error: OSError | FolderError) -> str:
    return str(error) if isinstance(error, FolderError) else os_reason(error)
