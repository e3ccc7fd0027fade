"""A request body on its way to the vendor: streamed with back-pressure, kept for one replay while it fits.

A complete body is sent in the same write as the head. Any other is sent by its own task while the response head is
awaited, because a vendor may answer before it has read the whole body.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.errors import BodyTooLarge, ExchangeError, InternalError
from gateway.proxy.body import NO_BODY
from gateway.proxy.wire import BODY_FULL, Wire

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.upstream import UpstreamConnection
    from gateway.proxy.wire import Piece

LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE_HEAD: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_WAIT: Final = 1.0
"""Seconds to wait for the vendor's 100 (Continue) before the app gets ours (RFC 9110 §10.1.1)."""


def chunk(data: Piece) -> tuple[bytes, Piece, bytes]:
    """Frame `data`, which is not empty, as one chunk (RFC 9112 §7.1); in pieces, to avoid a copy."""
    return b"%x\r\n" % len(data), data, b"\r\n"


class ReplayBudget:
    """Bytes that all replay buffers together may hold; an exchange that gets none is not replayable."""

    __slots__ = ("_left", "_size")

    def __init__(self, size: int) -> None:
        self._left = self._size = size

    def resize(self, size: int) -> None:
        """Change the total; bytes that are held above it stay until they are given back."""
        self._left += size - self._size
        self._size = size

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; return whether they were available."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Return `size` reserved bytes."""
        self._left += size


class BodySource(Wire):
    """What an upload needs of the app's connection."""

    def data_received(self, data: bytes) -> None:
        """Take bytes that may belong to the body or to the next request."""
        raise NotImplementedError

    def body_received(self, piece: memoryview) -> None:
        """Take bytes that belong to the body."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """Take the end of the app's direction; return whether the connection stays open."""
        raise NotImplementedError

    def body_awaited(self) -> None:
        """Start (or restart) the timer that measures how long the app has sent no body bytes."""
        raise NotImplementedError

    def body_not_awaited(self) -> None:
        """Stop that timer: the body is complete, or the vendor accepts no more of it."""
        raise NotImplementedError

    def begin_intake(self, upload: Upload) -> None:
        """Read the rest of a large body of known length in large pieces, until `end_intake`."""
        raise NotImplementedError

    def end_intake(self) -> None:
        """Read in the usual way again."""
        raise NotImplementedError


class NoUpload:
    """A request without a body."""

    __slots__ = ()
    replayable = True
    whole = True
    sent = True
    size = 0

    def start(self, upstream: UpstreamConnection, *, ask: bool) -> tuple[bytes, ...]:  # noqa: ARG002
        """Return no bytes."""
        return ()

    def go_on(self) -> None:
        """Do nothing: no body waits for 100 (Continue)."""

    def hold_back(self) -> None:
        """Do nothing: no body waits for 100 (Continue)."""

    async def stop(self) -> None:
        """Do nothing: no task sends a body."""

    def resume(self, upstream: UpstreamConnection) -> None:
        """Do nothing: no task was stopped."""

    def close(self) -> None:
        """Do nothing: no bytes are kept."""


NO_UPLOAD: Final = NoUpload()


class Upload:
    """One request body: read from the app once, sent to the vendor once or twice."""

    _task: asyncio.Task[None] | None = None
    _go: asyncio.Event | None = None
    size: int = 0
    """Bytes of body read from the app so far, without framing."""
    encrypted: bool = False
    """Whether the vendor is reached over TLS."""

    def __init__(
        self,
        client: BodySource,
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

    @property
    def replayable(self) -> bool:
        """Whether every byte that was read is still kept."""
        return self._kept is not None

    @property
    def whole(self) -> bool:
        """Whether the app has sent all of it."""
        return self._body.ended

    @property
    def sent(self) -> bool:
        """Whether the whole body was written to the vendor's transport."""
        return self._task is None or (self._task.done() and not self._task.cancelled())

    def _read(self, data: Piece) -> None:
        self.size = size = self.size + len(data)
        if self._limit is not None and size > self._limit:
            raise BodyTooLarge(self._limit)
        if self._kept is not None and data:
            if size <= self._keep_up_to and self._budget.take(len(data)):
                self._kept.append(data)
            else:
                self._drop()

    def _drop(self) -> None:
        if self._kept:
            self._budget.give(sum(map(len, self._kept)))
        self._kept = None

    def start(self, upstream: UpstreamConnection, *, ask: bool) -> tuple[Piece, ...]:
        """Return the framed bytes to send with the head; start a task for the rest if the body is not complete.

        `ask` waits for the vendor's 100 (Continue) before the first byte is read from the app.
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
        """Start a body that waits for 100 (Continue), and send the 100 to the app."""
        if self._go is not None and not self._go.is_set():
            self._go.set()

    def hold_back(self) -> None:
        """Cancel a body that still waits for 100 (Continue), because the final answer has arrived."""
        if self._go is not None and not self._go.is_set() and self._task is not None:
            self._task.cancel()

    async def _run(self, upstream: UpstreamConnection) -> None:
        try:
            await self._send_all(upstream)
        except ConnectionError:
            pass  # the vendor closed its connection: the reader of its answer reports that
        except ExchangeError as error:
            upstream.fail(error)
        except Exception as error:
            upstream.fail(InternalError(reason=type(error).__name__))
            raise

    async def _send_all(self, upstream: UpstreamConnection) -> None:
        if self._go is not None:
            try:
                async with asyncio.timeout(CONTINUE_WAIT):
                    await self._go.wait()
            except TimeoutError:
                pass  # the vendor ignores Expect
            self._client.write(CONTINUE_HEAD)
        await self._flow(upstream)
        if self._chunked:
            upstream.write(LAST_CHUNK)
        upstream.await_head()

    async def _flow(self, upstream: UpstreamConnection) -> None:
        """Write bytes to the vendor as they arrive, until the body ends; stop reading while the vendor accepts none."""
        client, body = self._client, self._body

        def push(data: Piece) -> None:
            try:
                self._read(data)
            except ExchangeError as error:
                body.fail(error)
                return
            upstream.write_pieces(*(chunk(data) if self._chunked else (data,)))
            if upstream.writing_paused:
                client.body_not_awaited()
                client.pause_reading(BODY_FULL)
                upstream.await_reading()
            else:
                client.body_awaited()

        def writable() -> None:
            upstream.reads_again()
            client.body_awaited()
            client.resume_reading(BODY_FULL)

        upstream.on_writable = writable
        self.encrypted = upstream.encrypts
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
            client.resume_reading(BODY_FULL)

    async def stop(self) -> None:
        """Send and keep no more: later bytes wait in the body, so what is replayable now stays so."""
        if self._task is not None and not self._task.done():
            self._body.sink = None  # at once: bytes may arrive before the task has ended
            self._task.cancel()
            await asyncio.wait((self._task,))

    def resume(self, upstream: UpstreamConnection) -> None:
        """Send the rest after `stop`, unless the body still waits for 100 (Continue)."""
        if self._task is not None and self._task.cancelled() and (self._go is None or self._go.is_set()):
            self._go = None
            self._task = upstream.loop.create_task(self._run(upstream))

    def close(self) -> None:
        """End the task that sends the body, and release the kept bytes."""
        if self._task is not None and not self._task.done():  # `cancel` would hide the exception of a task that failed
            self._task.cancel()
        self._drop()


def ended_upload(client: BodySource, size: int) -> Upload:
    """Return an upload of `size` bytes that no vendor gets as a body: a tunnel's, or a request to the gateway."""
    upload = Upload(client, NO_BODY, chunked=False, limit=None, keep_up_to=0, budget=ReplayBudget(0))
    upload.size = size
    return upload
