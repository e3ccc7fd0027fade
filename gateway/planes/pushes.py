"""All planes that tokens are pushed to: start, reload and stop, and their reports."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.model import PlaneStatus
from gateway.planes.push import Push
from gateway.planes.refusals import report

if TYPE_CHECKING:
    from gateway.model import Clock, Config
    from gateway.observe import Metrics
    from gateway.planes.refusals import Result
    from gateway.tokens import TokenSet

BEGIN_WITHIN: Final = 2.0
"""Most seconds for which the start of the gateway waits for the files."""


class Pushes:
    """The planes of one gateway that tokens are pushed to."""

    def __init__(self, *, tokens: TokenSet, clock: Clock, metrics: Metrics) -> None:
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._pushes: dict[str, Push] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def all(self) -> list[Push]:
        """The planes, in the configuration's order."""
        return list(self._pushes.values())

    def status(self) -> list[PlaneStatus]:
        """Return the status of each plane."""
        return [PlaneStatus(name, push.state, tuple(push.problems)) for name, push in self._pushes.items()]

    def use(self, config: Config) -> None:
        """Push to the planes of this configuration; withdraw tokens from folders that it does not have any more."""
        planes = config.planes.push if config.planes is not None else ()
        before, self._pushes = {push.plane.directory: push for push in self.all}, {}
        for plane in planes:
            push = before.pop(plane.directory, None)
            if push is None:
                push = Push(
                    plane, tokens=self._tokens, clock=self._clock, metrics=self._metrics, hold=config.token_timeout
                )
                push.start()
            else:
                push.use(plane, config.token_timeout)
            self._pushes[plane.name] = push
        for push in before.values():
            task = asyncio.get_running_loop().create_task(push.stop(withdraw=True))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._tokens.changed = self._wake

    async def begun(self) -> None:
        """Wait until the first round of each folder has ended, so that its files exist; at most `BEGIN_WITHIN`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_WITHIN):
                for push in self.all:
                    await push.looked.wait()

    def release(self) -> None:
        """Stop writing and unlock the folders for a successor; the files stay. Returns at once."""
        for push in self._pushes.values():
            push.release()

    async def stop(self, *, withdraw: bool) -> None:
        """Withdraw all tokens, or without `withdraw` wait until a successor has locked the folders; a bounded time."""
        stopping = [push.stop(withdraw=withdraw) for push in self._pushes.values()]
        await asyncio.gather(*stopping, *self._ending)

    async def refused(self, plane: str, credential: str, sent: bytes) -> Result:
        """Handle a plane's report of a refused token; return when the file has another token, or none comes.

        `sent` is the value of the request's field with the token; empty if the report does not have it.
        """
        push = self._pushes.get(plane)
        if push is None:
            return "unknown"
        result = await report(push, self._tokens, credential, sent)
        self._metrics.plane_reports.labels(plane, result).inc()
        return result

    def _wake(self) -> None:
        for push in self._pushes.values():
            push.wake()
