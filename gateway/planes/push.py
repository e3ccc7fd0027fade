"""Keeps the files of one plane up to date: each credential's file holds the token that is in memory, or no token.

It works in rounds. Each round compares the folder with what should be in it, and repairs the difference, whatever
caused it: a new token, a removed file, a replaced folder, a full disk. Files are written on a thread, because a file
system may hang.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from gateway.observe import get_logger
from gateway.planes import sds
from gateway.planes.files import File, job, withdrawal
from gateway.planes.folder import Folder
from gateway.planes.round import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gateway.model import Clock, PushPlane, PushState, Token
    from gateway.observe import Metrics
    from gateway.planes.files import Job, Outcome
    from gateway.planes.round import Done

_log = get_logger("gatepass.planes")
LOOK: Final = 5.0
"""Seconds between two rounds if nothing changes."""
RETRY: Final = 1.0
"""Seconds from a failed round to the next one; doubles up to `LOOK`."""
STANDBY: Final = 0.2
"""Seconds between two attempts to lock a folder that another process has locked."""
STOP_WITHIN: Final = 2.0
"""Most seconds for withdrawing all tokens when the gateway stops."""
SUCCESSOR_WITHIN: Final = 1.0
"""Most seconds for which a predecessor waits until its successor has locked the folder."""
UPTAKE: Final = 0.1
"""Seconds after which Envoy surely uses a renamed file; 44 ms were measured."""


class Held(Protocol):
    """The tokens of all credentials, as `TokenSet` has them."""

    def held(self, name: str) -> Token | None:
        """Return the valid token of a credential, if any, without counting this as use."""


class Push:
    """The files of one plane. Call `start`, and then `wake` whenever a token may have changed."""

    def __init__(self, plane: PushPlane, *, tokens: Held, clock: Clock, metrics: Metrics, hold: float) -> None:
        """Write nothing before `start`.

        Args:
            plane: its folder and credentials.
            tokens: the tokens to write.
            clock: for all instants and timers.
            metrics: all metrics of the process.
            hold: seconds for which a file keeps a token that the vendor refused, while the next one is fetched.
        """
        self.plane = plane
        self.state: PushState = "starting"
        self.looked = asyncio.Event()
        """Set after the first round."""
        self.files: dict[str, File] = {}
        """The files by credential."""
        self.hold = hold
        """Seconds for which a token that was dropped stays in its file, while the next one is fetched."""
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._round = Round(Folder(plane.directory))
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        """Set after each round and at the end, and then replaced by a new event."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = self._withdrawing = self._busy = False
        self._problem = ""
        """Why files of other credentials could not be withdrawn."""
        self._retry = RETRY
        self.use(plane, hold)

    def __repr__(self) -> str:
        return f"<Push {self.plane.name} {self.state} {len(self.files)} files>"

    @property
    def is_at_rest(self) -> bool:
        """Whether no round is running or due now."""
        return self._task is None or self._task.done() or not (self._busy or self._wake.is_set())

    @property
    def problems(self) -> list[str]:
        """The reasons why files could not be written, each once."""
        found = [*(file.problem for file in self.files.values()), self._problem]
        return list(dict.fromkeys(problem for problem in found if problem))

    def start(self) -> None:
        """Begin to write the files."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"push {self.plane.name}")

    def use(self, plane: PushPlane, hold: float) -> None:
        """Write the files of another configuration's credentials from now on; the folder stays the same."""
        before, now = self.files, self._clock.wall()
        self._drop_series(before)
        self.plane, self.hold = plane, hold
        self.files = {name: before.get(name) or File(name, now) for name in plane.credentials}
        for name, file in self.files.items():
            self._metrics.push_confirmed(plane.name, name, file.confirmed_at, holds_token=file.token is not None)
        self.wake()

    def wake(self) -> None:
        """Run a round soon, because tokens may have changed. Returns at once."""
        self._wake.set()

    def seconds_since(self, file: File) -> float:
        """Return the seconds for which a file has had its token."""
        return self._clock.monotonic() - file.written_at

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds of the injected clock."""
        await self._clock.sleep(seconds)

    def give_up(self, credential: str) -> None:
        """Withdraw a credential's dropped token now, without waiting for the next one."""
        file = self.files.get(credential)
        if file is not None and self._tokens.held(credential) is None:
            file.stay = -math.inf
            self.wake()

    async def replaced(self, credential: str, refused: Collection[bytes]) -> None:
        """Wait until the file has a token with none of these digests, and Envoy has had `UPTAKE` to read it."""
        while True:
            file, written = self.files.get(credential), self._written
            if file is None or self.state == "stopped":
                return
            if file.token is not None and not file.is_dropped and sds.digest(file.token) not in refused:
                await self._clock.sleep(UPTAKE)
                return
            await written.wait()

    def release(self) -> None:
        """Stop writing and unlock the folder for a successor; the files stay. Returns at once."""
        self._stopping = True
        self.wake()

    async def stop(self, *, withdraw: bool) -> None:
        """Withdraw all tokens within `STOP_WITHIN`; without `withdraw`, wait until a successor locks the folder."""
        writes = self._task is not None and self.state != "standby"
        self._withdrawing = withdraw
        self.release()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN if withdraw else SUCCESSOR_WITHIN):
                if self._task is not None:
                    await asyncio.shield(self._task)
                while writes and not withdraw and not await asyncio.to_thread(self._round.is_succeeded):
                    await self._clock.sleep(STANDBY / 4)
        self.state = "stopped"
        self._drop_series(self.files)
        self._tell_written()

    # ---------------------------------------------------------------------------------------------------------- rounds

    async def _run(self) -> None:
        while not self._stopping:
            self._busy = True
            self._wake.clear()
            delay = await self._guarded(self._job)
            self._busy = False
            self.looked.set()
            timer = self._clock.call_later(delay, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        if self._withdrawing and self.state != "standby":
            await self._guarded(lambda file, _now, _wall: withdrawal(file))
        await asyncio.to_thread(self._round.close)

    def _job(self, file: File, now: float, wall: float) -> Job:
        return job(file, self._tokens.held(file.credential), now=now, wall=wall, hold=self.hold)

    async def _guarded(self, choose: Callable[[File, float, float], Job]) -> float:
        try:
            return await self._once(choose)
        except Exception:  # noqa: BLE001 - the outermost frame of the task: logged, and tried again
            _log.exception("push_crashed", plane=self.plane.name)
            return LOOK

    async def _once(self, choose: Callable[[File, float, float], Job]) -> float:
        """Run one round; return how many seconds later the next one is due."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        jobs = [choose(file, now, wall) for file in self.files.values()]
        done = await asyncio.to_thread(self._round.run, jobs, now=now, wall=wall)
        if done is None:
            return self._stand_by()
        if self.state == "standby":
            _log.info("push_active", plane=self.plane.name)
        for outcome in done.outcomes:
            if self.files.get(outcome.job.file.credential) is outcome.job.file:
                self._take(outcome, wall)
        for name in done.removed:
            _log.info("push_file_removed", plane=self.plane.name, file=name)
        self._take_problem(done.problem)
        self._tell_written()
        return self._next_in(done)

    def _stand_by(self) -> float:
        if self.state != "standby":
            self.state = "standby"
            self._drop_series(self.files)
            hint = "another gateway writes it: this one takes over when that one stops"
            _log.info("push_standby", plane=self.plane.name, folder=str(self.plane.directory), hint=hint)
        return STANDBY

    def _take(self, outcome: Outcome, wall: float) -> None:
        """Record the outcome of a job: in its file, the log and the metrics."""
        file, token, plane = outcome.job.file, outcome.job.token, self.plane.name
        if outcome.problem:
            self._metrics.pushed(plane, "failed")
            if outcome.problem != file.problem:
                _log.error("push_failed", plane=plane, credential=file.credential, reason=outcome.problem)
            file.problem = outcome.problem
            return
        if file.problem:
            _log.info("push_recovered", plane=plane, credential=file.credential)
        file.problem, file.confirmed_at = "", wall
        if outcome.inherited is not None:
            file.remember(outcome.inherited.digest)
        if outcome.written:
            if token is not file.token:
                file.written_at = self._clock.monotonic()
            file.token, file.mark = token, outcome.mark
            self._metrics.pushed(plane, "withdrawn" if token is None else "token")
            if token is None:
                file.stay = math.inf
                _log.info("token_withdrawn", plane=plane, credential=file.credential)
            else:
                file.remember(sds.digest(token))
                _log.info("token_pushed", plane=plane, credential=file.credential, fingerprint=token.fingerprint)
        self._metrics.push_confirmed(plane, file.credential, wall, holds_token=file.token is not None)

    def _take_problem(self, problem: str) -> None:
        """Record why files of other credentials could not be withdrawn; empty if they could."""
        if problem:
            self._metrics.pushed(self.plane.name, "failed")
            if problem != self._problem:
                _log.error("push_failed", plane=self.plane.name, credential=None, reason=problem)
        self._problem = problem
        self.state = "failing" if self.problems else "ok"

    def _next_in(self, done: Done) -> float:
        now, wall = self._clock.monotonic(), self._clock.wall()  # again, because the round may have taken long
        if self.state == "failing":
            self._retry, delay = min(2 * self._retry, LOOK), self._retry
            return delay
        self._retry = RETRY
        ends = [file.token.expires_at - now for file in self.files.values() if file.token is not None]
        ends += [file.stay - now for file in self.files.values()]
        ends += [outcome.inherited.until - wall for outcome in done.outcomes if outcome.inherited is not None]
        return max(0.0, min(LOOK, *ends))

    def _tell_written(self) -> None:
        self._written.set()
        self._written = asyncio.Event()

    def _drop_series(self, credentials: Iterable[str]) -> None:
        for credential in credentials:
            self._metrics.push_ended(self.plane.name, credential)
