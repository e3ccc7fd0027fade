"""One credential's file: what it holds, and what to write into it now. Pure."""

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
"""How many of a credential's last tokens are remembered by their digests, for late reports."""


@dataclass(slots=True)
class File:
    """One credential's file, as this process knows it."""

    credential: str
    confirmed_at: float
    """When the file last had the right content, in seconds since the epoch; at first, when it was first wanted."""
    token: Token | None = None
    """The token that was written last; None if it was withdrawn, or none was written."""
    mark: Mark | None = None
    """The mark of what was written last; None if this process has not written the file yet."""
    stay: float = math.inf
    """Until when the file may keep a token that is not in memory any more; monotonic; `inf` while it is in memory."""
    problem: str = ""
    """Why the last attempt to write the file failed; empty if it succeeded."""
    written_at: float = -math.inf
    """When its token was first written; monotonic."""
    doubted: Token | None = None
    """The last of its tokens that a plane reported as refused."""
    recent: deque[bytes] = field(default_factory=partial(deque, maxlen=REMEMBERED))
    """Digests of the last tokens that it held."""

    @property
    def is_dropped(self) -> bool:
        """Whether the file's token is not in memory any more."""
        return self.stay != math.inf

    def remember(self, digest: bytes) -> None:
        """Remember the digest of a token that the file holds, if it is new."""
        if digest not in self.recent:
            self.recent.append(digest)


class Job(NamedTuple):
    """What a round does with one file."""

    file: File
    kind: Literal["put", "withdraw", "inherit", "leave"]
    """`put`: write the token. `withdraw`: write an empty secret. `leave`: do nothing. `inherit`: leave the token of an
    earlier process until it expires, else withdraw."""
    token: Token | None = None
    content: bytes = b""
    kept: Mark | None = None
    """If the file still has this mark, nothing is written."""


class Outcome(NamedTuple):
    """The outcome of a job."""

    job: Job
    mark: Mark | None = None
    """The file's mark, if it has the right content."""
    written: bool = False
    """Whether the file was written."""
    inherited: sds.Stated | None = None
    """What the file says, if the token of an earlier process stays in it."""
    problem: str = ""


def job(file: File, token: Token | None, *, now: float, wall: float, hold: float) -> Job:
    """Return what to do with a file.

    A token that was dropped before its end stays in the file for `hold` seconds, while the next one is fetched: the
    plane replays a request that the vendor refuses because of the old token, but without a token it fails every
    request.

    Args:
        file: the file; its `stay` is updated.
        token: the valid token in memory, if any.
        now: monotonic instant.
        wall: the same instant, seconds since the epoch.
        hold: seconds for which a dropped token stays.
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
    """Return a job that withdraws the token of a file, if any."""
    return Job(file, "withdraw", None, sds.document(file.credential, None))
