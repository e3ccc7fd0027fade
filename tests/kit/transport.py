"""A transport that records calls, for tests of what happens between two rounds of the loop."""

from __future__ import annotations


class Transport:
    """Records when it is paused and resumed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @property
    def reading(self) -> bool:
        """Whether it is not paused."""
        return not self.calls or self.calls[-1] == "resume"

    def set_write_buffer_limits(self, high: int) -> None:
        """Accept any limit."""

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        """Return True, as over TCP."""
        return True

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")
