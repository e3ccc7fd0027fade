"""A request body on its way to the vendor: streamed with back-pressure, kept for one replay while it fits.

A body that is already whole leaves in the same write as the head. Any other is pumped by a task of its own while the
response head is awaited; else a vendor that answers early would wait for us while we wait for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.errors import BodyTooLarge, ExchangeError, InternalError

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.upstream import UpstreamConnection
    from gateway.proxy.wire import Piece

LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_WAIT: Final = 1.0
"""Seconds a vendor may think about `Expect: 100-continue` before we ask the app to go on (RFC 9110 §10.1.1)."""


def chunk(data: Piece) -> tuple[bytes, Piece, bytes]:
    """Frame `data`, not empty, as one chunk (RFC 9112 §7.1); in pieces, so that it is not copied."""
    return b"%x\r\n" % len(data), data, b"\r\n"


class ReplayBudget:
    """Bytes that all replay buffers together may hold; beyond it an exchange is simply not replayable."""

    __slots__ = ("_left", "_size")

    def __init__(self, size: int) -> None:
        self._left = self._size = size

    def resize(self, size: int) -> None:
        """Allow another sum from now on; what is held over it is kept to its end."""
        self._left += size - self._size
        self._size = size

    def take(self, size: int) -> bool:
        """Reserve `size` bytes if they are there."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._left += size


class NoUpload:
    """A request without a body: nothing to read, send or keep."""

    __slots__ = ()
    replayable = True
    whole = True
    sent = True
    size = 0

    def start(self, upstream: UpstreamConnection, *, ask: bool) -> tuple[bytes, ...]:  # noqa: ARG002
        """Return nothing."""
        return ()

    def go_on(self) -> None:
        """Nothing flows."""

    def hold_back(self) -> None:
        """Nothing is asked for."""

    async def stop(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is held."""


NO_UPLOAD: Final = NoUpload()


class Upload:
    """One request body: read from the app once, sent to the vendor once or twice."""

    __slots__ = ("_body", "_budget", "_chunked", "_client", "_go", "_keep_up_to", "_kept", "_limit", "_task", "size")

    def __init__(
        self,
        client: ClientConnection,
        body: Body,
        *,
        chunked: bool,
        limit: int | None,
        keep_up_to: int,
        budget: ReplayBudget,
    ) -> None:
        self._client = client
        self._body = body
        self._chunked = chunked
        self._limit = limit
        self._keep_up_to = keep_up_to
        self._kept: list[Piece] | None = []
        self._budget = budget
        self._task: asyncio.Task[None] | None = None
        self._go: asyncio.Event | None = None
        self.size = 0
        """Bytes of body read from the app so far, without framing."""

    @property
    def replayable(self) -> bool:
        """Whether all that was read is still in hand."""
        return self._kept is not None

    @property
    def whole(self) -> bool:
        """Whether the app has sent all of it."""
        return self._body.ended

    @property
    def sent(self) -> bool:
        """Whether all of it has been handed to the vendor's transport."""
        return self._task is None or (self._task.done() and not self._task.cancelled())

    def _read(self, data: Piece) -> None:
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise BodyTooLarge(f"The route takes bodies of at most {self._limit} bytes")
        if self._kept is not None and data:
            if self.size <= self._keep_up_to and self._budget.take(len(data)):
                self._kept.append(data)
            else:
                self._drop()

    def _drop(self) -> None:
        if self._kept:
            self._budget.give(sum(map(len, self._kept)))
        self._kept = None

    def start(self, upstream: UpstreamConnection, *, ask: bool) -> tuple[Piece, ...]:
        """Return the framed bytes that leave with the head; start the pump if there will be more.

        `ask` waits for the vendor's 100 (Continue) before the first byte is taken from the app.
        """
        kept = b"".join(self._kept or ())
        if self._body.ended:
            rest = self._body.take()
            self._read(rest)
            data = kept + rest
            if not self._chunked:
                return (data,)
            return (*chunk(data), LAST_CHUNK) if data else (LAST_CHUNK,)
        if self._body.error is not None:
            raise self._body.error
        self._go = asyncio.Event() if ask and not self._body.size else None
        self._task = upstream.loop.create_task(self._run(upstream))
        return chunk(kept) if kept and self._chunked else (kept,)

    def go_on(self) -> None:
        """Let a body that waits for 100 (Continue) flow, and tell the app."""
        if self._go is not None and not self._go.is_set():
            self._go.set()

    def hold_back(self) -> None:
        """A final answer is there: a body that still waits for 100 (Continue) is not asked for any more."""
        if self._go is not None and not self._go.is_set() and self._task is not None:
            self._task.cancel()

    async def _run(self, upstream: UpstreamConnection) -> None:
        try:
            await self._pump(upstream)
        except ConnectionError:
            pass  # the vendor is gone or has answered and closed: its answer, or its reset, tells the rest
        except ExchangeError as error:
            upstream.fail(error)
        except Exception as error:
            upstream.fail(InternalError(reason=type(error).__name__))
            raise

    async def _pump(self, upstream: UpstreamConnection) -> None:
        if self._go is not None:
            try:
                async with asyncio.timeout(CONTINUE_WAIT):
                    await self._go.wait()
            except TimeoutError:
                pass  # a vendor that ignores Expect: the app is told to go on by us
            self._client.write(CONTINUE)
        await self._flow(upstream)
        if self._chunked:
            upstream.write(LAST_CHUNK)
        upstream.await_head()

    async def _flow(self, upstream: UpstreamConnection) -> None:
        """Pass on what comes, as it comes, until the body's end; the app is not read while the vendor takes no more."""
        client, body = self._client, self._body
        if client.transport is None:
            raise ConnectionResetError

        def push(data: Piece) -> None:
            try:
                self._read(data)
            except ExchangeError as error:
                body.fail(error)
                return
            upstream.write_pieces(*(chunk(data) if self._chunked else (data,)))
            if upstream.writing_paused:
                client.body_not_awaited()
                client.pause_reading()
                upstream.await_reading()
            else:
                client.body_awaited()

        def go_on() -> None:
            upstream.reads_again()
            client.body_awaited()
            client.resume_reading()

        upstream.on_writable = go_on
        client.body_awaited()
        client.begin_intake(self)
        try:
            if data := body.take():
                push(data)
            body.sink = push
            await body.end()
            await upstream.drain()
        finally:
            client.end_intake()
            body.sink = upstream.on_writable = None
            upstream.reads_again()
            client.body_not_awaited()
            client.resume_reading()

    async def stop(self) -> None:
        """End the pump, wherever it is; what was read stays in hand."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def close(self) -> None:
        """Give the kept bytes back to the budget and end the pump."""
        if self._task is not None:
            self._task.cancel()
        self._drop()
