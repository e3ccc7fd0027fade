"""Decides whether the store counts as up, from the outcomes of commands. Pure: no I/O, no clock of its own.

The store is away after a second without an answer or three failures in a row, and up again after two answers in a row.
The very first outcome decides alone.
"""

from __future__ import annotations

SILENCE = 1.0
"""Seconds without an answer, from the first command that got none, after which the store is away."""
FAILURES = 3
"""Failures in a row, after which the store is away."""
GOOD = 2
"""Answers in a row, after which the store is up again."""


class Health:
    """Whether the store is up; `answered` and `failed` change it."""

    __slots__ = ("_beat_failed", "_failing_since", "_failures", "_good", "answered_at", "is_up", "tried")

    def __init__(self) -> None:
        self.is_up = False
        self.tried = False
        """Whether the first command has been answered or has failed."""
        self.answered_at: float | None = None
        self._failures = 0
        self._failing_since: float | None = None
        self._good = 0
        self._beat_failed = False

    def answered(self, now: float, *, beat: bool = True) -> None:
        """Note that a command got its answer at the instant `now` (monotonic); `beat`: it was a heartbeat.

        Only a heartbeat writes in any case, and a server that is full or read-only still answers reads. So after a
        failed heartbeat other commands do not count until a heartbeat succeeds.
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
        """Note that a command that was sent at the instant `sent` has failed by `now` (monotonic)."""
        self._beat_failed = self._beat_failed or beat
        first, self.tried = not self.tried, True
        self._good = 0
        self._failures += 1
        self._failing_since = sent if self._failing_since is None else min(sent, self._failing_since)
        if first or self._failures >= FAILURES or now - self._failing_since >= SILENCE:
            self.is_up = False
