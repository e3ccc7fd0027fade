"""The internal app of the demo: a plain HTTP client with one base URL and no vendor's credential.

Records each exchange: its answer, its duration, and the fingerprint of the token that the vendor received.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

OK = 200
BROKEN = 0
"""The status of an exchange that got no answer."""


@dataclass(slots=True)
class Shot:
    """One exchange. `at` is the monotonic instant of its start; `token` is the fingerprint that the vendor reported."""

    route: str
    status: int
    ms: float
    at: float
    token: str = ""
    retry_after: str | None = None
    body: Any = None


def percentile(shots: list[Shot], share: float) -> float:
    """Return a quantile of the exchanges' latency in milliseconds; 0 without exchanges."""
    ordered = sorted(shot.ms for shot in shots)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class App:
    """Calls `http://gateway/<route>/<path>`. An asynchronous context manager."""

    def __init__(self, gateway: str) -> None:
        self.base = f"http://{gateway}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # The path selects the vendor, so all routes share these connections.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=15))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client."""
        if self._session is None:
            raise RuntimeError("the app was not started")
        return self._session

    def url(self, route: str, path: str) -> URL:
        """Return a URL below a route, with its escapes unchanged."""
        return URL(f"{self.base}/{route}{path}", encoded=True)

    async def call(self, route: str, method: str, path: str, **arguments: Any) -> Shot:
        """Send a request and read the whole answer. Never raises: without an answer the status is 0."""
        began = time.monotonic()
        try:
            async with self.session.request(method, self.url(route, path), **arguments) as response:
                is_json = response.content_type.endswith("json")
                body = await response.json(content_type=None) if is_json else await response.read()
                status, headers = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError) as error:
            return Shot(route, BROKEN, (time.monotonic() - began) * 1000, began, body=repr(error))
        ms = (time.monotonic() - began) * 1000
        return Shot(route, status, ms, began, headers.get("X-Sandbox-Token", ""), headers.get("Retry-After"), body)


def multipart(name: str, filename: str, content_type: str, content: bytes) -> aiohttp.FormData:
    """Return a multipart upload of one file."""
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field(name, io.BytesIO(content), filename=filename, content_type=content_type)
    return form


@dataclass
class Load:
    """Concurrent reads and writes on some routes while the `async with` block runs."""

    app: App
    workers: Mapping[str, int]
    """The number of concurrent loops for each route."""
    pause: float = 0.0
    """Seconds that each loop waits between two requests."""
    shots: list[Shot] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._stop = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._loop(route, number))
            for route, count in self.workers.items()
            for number in range(count)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _loop(self, route: str, number: int) -> None:
        while not self._stop.is_set():
            number += 1
            write = {"method": "POST", "json": {"order": number}} if number % 2 else {"method": "GET"}
            self.shots.append(await self.app.call(route, path=f"/sandbox/echo?n={number}", **write))
            await asyncio.sleep(self.pause)

    def of(self, *routes: str) -> list[Shot]:
        """Return the exchanges of these routes."""
        return [shot for shot in self.shots if shot.route in routes]


def failed(shots: list[Shot]) -> list[Shot]:
    """Return the exchanges that were not answered with 200."""
    return [shot for shot in shots if shot.status != OK]


def statuses(shots: list[Shot]) -> str:
    """Return the number of exchanges with each status: `200 × 41, 503 × 3`."""
    counted = Counter(shot.status for shot in shots)
    return ", ".join(f"{status or 'broken'} × {count}" for status, count in sorted(counted.items()))
