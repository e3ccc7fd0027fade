"""The metrics of the shared store. Their series exist only if the configuration has one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.observe.metrics.declared import DeclaredMetrics


class StoreState(NamedTuple):
    """What the gauges show."""

    up: bool
    shared: bool
    silence: float
    """Seconds."""
    members: int
    strangers: int


class StoreMetrics:
    """The metrics of one store."""

    def __init__(self, parents: DeclaredMetrics) -> None:
        self._parents = parents
        self._ok = parents.store_duration.labels("ok")
        self._failed = parents.store_duration.labels("failed")
        self._undecryptable = parents.store_undecryptable.labels()

    def watch(self, state: Callable[[], StoreState]) -> None:
        """Show what `state` returns whenever metrics are read."""
        self._parents.before_reading.append(partial(self._show, state))

    def _show(self, read: Callable[[], StoreState]) -> None:
        state = read()
        self._parents.store_up.labels().set(int(state.up))
        self._parents.store_mode.labels("shared").set(int(state.shared))
        self._parents.store_mode.labels("alone").set(int(not state.shared))
        self._parents.store_silence.labels().set(state.silence)
        self._parents.store_members.labels().set(state.members)
        self._parents.store_strangers.labels().set(state.strangers)

    def answered(self, seconds: float) -> None:
        """Observe a command that got its answer."""
        self._ok.observe(seconds)

    def failed(self, seconds: float) -> None:
        """Observe a command that got none, or an error."""
        self._failed.observe(seconds)

    def undecryptable(self) -> None:
        """Count a record that cannot be opened."""
        self._undecryptable.inc()
