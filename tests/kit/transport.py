"""A transport that writes down what is asked of it, for tests of what happens between two rounds of the loop."""

from __future__ import annotations


class Transport:
    """Writes down when it is paused and resumed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @property
    def reading(self) -> bool:
        """Whether it was not paused, or was resumed."""
        return not self.calls or self.calls[-1] == "resume"

    def set_write_buffer_limits(self, high: int) -> None:
        """Take any."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def can_write_eof(self) -> bool:
        """As over TCP."""
        return True

    def pause_reading(self) -> None:
        """Write it down."""
        self.calls.append("pause")

    def resume_reading(self) -> None:
        """Write it down."""
        self.calls.append("resume")
