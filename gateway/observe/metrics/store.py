"""The metrics of the shared store. Their series exist only if the configuration has one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.observe.metrics.declared import DeclaredMetrics


class StoreMetrics:
    """The metrics of one store."""

    def __init__(self, parents: DeclaredMetrics) -> None:
        self._parents = parents
        self._ok = parents.store_duration.labels("ok")
        self._failed = parents.store_duration.labels("failed")
        self._undecryptable = parents.store_undecryptable.labels()
        self.works_alone = False
        """This instance goes on alone although the store answers, as with a wrong key."""

    def watch(self, state: Callable[[], tuple[bool, float, int]]) -> None:
        """Show what `state` returns whenever metrics are read: up, seconds of silence, members."""
        self._parents.before_reading.append(partial(self._show, state))

    def _show(self, state: Callable[[], tuple[bool, float, int]]) -> None:
        up, silence, members = state()
        shared = up and not self.works_alone
        self._parents.store_up.labels().set(int(up))
        self._parents.store_mode.labels("shared").set(int(shared))
        self._parents.store_mode.labels("alone").set(int(not shared))
        self._parents.store_silence.labels().set(silence)
        self._parents.store_members.labels().set(members)

    def answered(self, seconds: float) -> None:
        """Observe a command that got its answer."""
        self._ok.observe(seconds)

    def failed(self, seconds: float) -> None:
        """Observe a command that got none, or an error."""
        self._failed.observe(seconds)

    def undecryptable(self) -> None:
        """Count a record that cannot be opened."""
        self._undecryptable.inc()
