"""One credential's file: what it holds, and what it should hold now. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from gateway.planes import sds

if TYPE_CHECKING:
    from gateway.model import Token
    from gateway.planes.folder import Mark


REMEMBERED: Final = 8
"""Tokens of a credential whose digests are kept, for reports that come late."""


@dataclass(slots=True)
class File:
    """One credential's file, as this process knows it."""

    credential: str
    confirmed_at: float
    """When it was last found to be as it should be, seconds since the epoch; at first, when that was first wanted."""
    token: Token | None = None
    """The token that was written last; None for one that was withdrawn, or was never written."""
    mark: Mark | None = None
    """Identifies what was written last; None if this process has not written it yet."""
    stay: float = math.inf
    """Until when a token may stay in the file although it is not in memory any more; monotonic."""
    problem: str = ""
    """Why the last attempt to write it failed; empty if it did not."""
    written_at: float = -math.inf
    """When the token in it was written first; monotonic."""
    doubted: Token | None = None
    """The last token in it that a plane reported as refused."""
    recent: deque[bytes] = field(default_factory=partial(deque, maxlen=REMEMBERED))
    """Digests of the tokens that it held last."""

    @property
    def is_dropped(self) -> bool:
        """Whether the token in the file is not in memory any more."""
        return self.stay != math.inf

    def remember(self, digest: bytes) -> None:
        """Remember the digest of a token that the file holds."""
        if digest not in self.recent:
            self.recent.append(digest)


class Job(NamedTuple):
    """What a round does with one file."""

    file: File
    kind: Literal["put", "withdraw", "inherit", "leave"]
    """`inherit`: withdraw, unless the file holds a token of a process before this one that has not expired."""
    token: Token | None = None
    content: bytes = b""
    kept: Mark | None = None
    """Nothing is written while the file has this mark."""


class Outcome(NamedTuple):
    """What came of a job."""

    job: Job
    mark: Mark | None = None
    """The file's mark, if it is as it should be."""
    written: bool = False
    inherited: sds.Stated | None = None
    """What the file says, if it holds the token of a process before this one."""
    problem: str = ""


def job(file: File, token: Token | None, *, now: float, wall: float, hold: float) -> Job:
    """Return what to do with a file.

    A token that was dropped before its end stays for `hold` seconds: the next one is being fetched, and until it is
    there, an answer that refuses the old one is replayed by the plane, but an injector without a token fails.

    Args:
        file: the file; its `stay` is updated.
        token: the valid token in memory, if any.
        now: monotonic instant.
        wall: the same instant, seconds since the epoch.
        hold: seconds.
    """
    name = file.credential
    if token is not None:
        file.stay = math.inf
        kept = file.mark if token is file.token else None
        return Job(file, "put", token, sds.document(name, token, wall + token.expires_at - now), kept)
    if file.token is not None and not file.is_dropped:
        file.stay = min(file.token.expires_at, now + hold)
    if file.token is not None and now < file.stay:
        return Job(file, "leave")
    if file.mark is None:
        return Job(file, "inherit", None, sds.document(name, None))
    return Job(file, "withdraw", None, sds.document(name, None), None if file.token is not None else file.mark)


def withdrawal(file: File) -> Job:
    """Return the job that withdraws whatever a file holds."""
    return Job(file, "withdraw", None, sds.document(file.credential, None))
