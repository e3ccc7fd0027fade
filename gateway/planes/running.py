"""All planes of a configuration: the order of their start, reload, draining and stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.planes.listener import Listener
from gateway.planes.pushes import Pushes
from gateway.planes.reports import Reports

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from gateway.model import Clock, Config, PlaneStatus
    from gateway.observe import Metrics
    from gateway.proxy import Snapshot
    from gateway.tokens import TokenSet


class DataPlanes:
    """The planes of one gateway. Call `start`; at the end call `drain`, then `stop`."""

    def __init__(self, *, metrics: Metrics, tokens: TokenSet, clock: Clock, snapshot: Callable[[], Snapshot]) -> None:
        """Build the parts; nothing is opened or written before `start`.

        Args:
            metrics: all metrics of the process.
            tokens: the tokens of all credentials.
            clock: for all instants and timers of pushes.
            snapshot: returns the configuration in force as the data plane sees it.
        """
        self._pushes = Pushes(tokens=tokens, clock=clock, metrics=metrics)
        self._listener = Listener(snapshot, metrics, Reports(self._pushes, snapshot, metrics))
        self._succeeded = False
        """Whether a successor has taken over the sockets and the folders."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, for a successor."""
        return self._listener.sockets

    def status(self) -> list[PlaneStatus]:
        """Return the status of each plane that tokens are pushed to."""
        return self._pushes.status()

    async def start(self, config: Config, sockets: Sequence[socket.socket] = ()) -> None:
        """Serve the planes that ask or report, and push to the others.

        `sockets` are listening sockets to use instead of opening `planes.listen`. Raises ListenError, and OSError for
        TLS files that cannot be used.
        """
        await self._listener.start(config, sockets)
        self._pushes.use(config)
        await self._pushes.begun()

    async def check(self, config: Config) -> None:
        """Raise OSError if `reload` with this configuration would fail; change nothing."""
        await asyncio.to_thread(self._listener.check, config.planes)

    async def reload(self, config: Config) -> None:
        """Use another configuration, which `check` has accepted; without `planes`, no plane gets a token any more."""
        self._listener.reload(config)
        self._pushes.use(config)

    def stop_listening(self) -> None:
        """Stop accepting, because a successor has the same sockets; open connections stay open."""
        self._succeeded = True
        self._pushes.release()
        self._listener.stop_listening()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on waiting, not a cancellation
        """Stop accepting, and answer questions and reports under way within `timeout` seconds."""
        await self._listener.drain(timeout, succeeded=self._succeeded)

    async def stop(self, *, succeeded: bool = False) -> None:
        """Close everything; withdraw all pushed tokens unless a successor pushes them (`succeeded`)."""
        await self._listener.drain(0.0, succeeded=succeeded or self._succeeded)
        await self._pushes.stop(withdraw=not (succeeded or self._succeeded))
