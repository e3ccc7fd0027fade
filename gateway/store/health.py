"""Whether the store is trusted, from the outcomes of commands. Pure: no I/O, no clock of its own.

Away after a second without an answer or three failures in a row; up again after two good answers. At the start one
good answer is enough, because nothing contradicts it.
"""

from __future__ import annotations

SILENCE = 1.0
"""Seconds without an answer, from the first command that got none, after which the store is away."""
FAILURES = 3
GOOD = 2


class Health:
    """The state, changed by `answered` and `failed`."""

    __slots__ = ("_beat_failed", "_failing_since", "_failures", "_good", "answered_at", "is_up", "tried")

    def __init__(self) -> None:
        self.is_up = False
        self.tried = False
        """Whether the first attempt has ended."""
        self.answered_at: float | None = None
        self._failures = 0
        self._failing_since: float | None = None
        self._good = 0
        self._beat_failed = False

    def answered(self, now: float, *, beat: bool = True) -> None:
        """A command got its answer at the instant `now`; `beat`: it was a heartbeat, which writes.

        A server that is full or read-only still answers reads, so after a failed heartbeat only a heartbeat counts.
        """
        self.answered_at = now
        if self._beat_failed and not beat:
            return
        first, self.tried = not self.tried, True
        self._beat_failed = False
        self._failures, self._failing_since = 0, None
        self._good += 1
        if first or self._good >= GOOD:
            self.is_up = True

    def failed(self, sent: float, now: float, *, beat: bool = True) -> None:
        """A command that was sent at `sent` had failed at `now`."""
        self._beat_failed = self._beat_failed or beat
        first, self.tried = not self.tried, True
        self._good = 0
        self._failures += 1
        self._failing_since = sent if self._failing_since is None else min(sent, self._failing_since)
        if first or self._failures >= FAILURES or now - self._failing_since >= SILENCE:
            self.is_up = False
