"""A token endpoint on a real socket, controlled by the test.

It records every request as raw bytes, and answers from a script, or with a new token without a script. It parses as
little HTTP as possible, so that it records exactly what was sent. It accepts every credential.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    peer_certificate: Mapping[str, object] | None = None

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[0] if values else None

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """An answer. `fault` replaces it: `hang` sends nothing, `close` and `reset` end the connection."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    delay: float = 0.0
    fault: Literal["", "hang", "close", "reset", "truncate"] = ""


def json_answer(document: object, status: int = 200, **fields: object) -> Answer:
    return Answer(status, json.dumps(document).encode(), **fields)  # type: ignore[arg-type]


@dataclass
class TokenEndpoint:
    """Use it as `async with TokenEndpoint() as endpoint:`; token requests go to `endpoint.url`."""

    life: float = 3600
    latency: float = 0.0
    tls: ssl.SSLContext | None = None
    path: str = "/token"
    requests: list[Request] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)
    always: Answer | Callable[[Request], Answer] | None = None
    issued: list[str] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._connections: set[asyncio.Task[None]] = set()
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    async def listen(self) -> None:
        """Listen, on the same port as before if it was already open."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse new connections, and close the open ones."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.path}"

    @property
    def count(self) -> int:
        return len(self.requests)

    def fresh(self) -> Answer:
        token = f"CANARY-token-{self.port}-{len(self.issued) + 1}"
        self.issued.append(token)
        return json_answer({"access_token": token, "token_type": "Bearer", "expires_in": self.life})

    def note_times(self) -> list[float]:
        """Answer each request with a new token; return a list that gets the instant of each request (monotonic)."""
        asked: list[float] = []

        def answer(_: Request) -> Answer:
            asked.append(time.monotonic())
            return self.fresh()

        self.always = answer
        return asked

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await self._read(reader, writer)
        self.requests.append(request)
        answer = self._choose(request)
        await asyncio.sleep(self.latency + answer.delay)
        if answer.fault == "hang":
            await asyncio.Event().wait()
        if answer.fault == "reset":
            writer.transport.abort()
        if answer.fault in {"close", "reset"}:
            return
        length = len(answer.body) + (10 if answer.fault == "truncate" else 0)
        fields = [*answer.headers, ("Content-Length", str(length)), ("Connection", "close")]
        head = f"HTTP/1.1 {answer.status} Said\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        writer.write(head.encode() + b"\r\n" + answer.body)
        await writer.drain()

    def _choose(self, request: Request) -> Answer:
        if self.script:
            return self.script.popleft()
        if self.always is None:
            return self.fresh()
        return self.always if isinstance(self.always, Answer) else self.always(request)

    @staticmethod
    async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = [(line.split(":", 1)[0], line.split(":", 1)[1].strip()) for line in lines]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        body = await reader.readexactly(length)
        certificate = writer.get_extra_info("peercert")
        return Request(method, target, headers, body, head + body, certificate)
