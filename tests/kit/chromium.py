"""Drives a real Chromium over its DevTools protocol: opens pages, evaluates expressions, takes pictures.

Needs only the system's `chromium` program. Every browser has its own profile folder.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank",
)  # fmt: skip


class Tab:
    """One page. `errors` are the errors on its console, including violations of its content security policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said and said["id"] in self._waiting:
                self._waiting.pop(said["id"]).set_result(said)
            elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(said["params"]["entry"]["text"])
            elif said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]))
            elif said.get("method") == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params, "sessionId": self._session})
        async with asyncio.timeout(60):
            said = await answer
        assert "error" not in said, said["error"]
        return said["result"]

    async def open(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, line: str) -> Any:
        """Return the value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=line, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true in the page."""
        async with asyncio.timeout(seconds):
            while not await self.holds(condition):  # noqa: ASYNC110 - the page has no event for everything
                await asyncio.sleep(0.05)

    async def holds(self, condition: str) -> bool:
        """Whether an expression is true now. Also false while the browser changes from one page to the next."""
        said = await self.call("Runtime.evaluate", expression=condition, returnByValue=True, awaitPromise=True)
        return "exceptionDetails" not in said and bool(said["result"].get("value"))

    async def look(self, path: Path, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """Save a picture of the page on a screen of this width."""
        await self.size(width, height, dark=dark, scale=scale)
        whole = await self.run("Math.ceil(document.documentElement.scrollHeight)")
        clip = {"x": 0, "y": 0, "width": width, "height": max(height, whole), "scale": 1}
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(said["data"]))  # noqa: ASYNC240 - a picture, in a test

    async def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """Emulate a screen of this size, in light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    def close(self) -> None:
        self._reading.cancel()


@asynccontextmanager
async def chromium() -> AsyncIterator[Tab]:
    """Run a browser with one empty page."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *FLAGS, f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await _address(Path(profile)), max_msg_size=2**26) as socket,
            ):
                tab = await _tab(socket)
                try:
                    yield tab
                finally:
                    tab.close()
        finally:
            process.terminate()
            await process.wait()


async def _address(profile: Path) -> str:
    """Return where the browser listens. It writes that to a file; a pipe would stay open until its children end."""
    said = profile / "DevToolsActivePort"
    async with asyncio.timeout(60):
        while not (said.exists() and len(said.read_text().split()) == 2):  # noqa: ASYNC110 - a file says no word
            await asyncio.sleep(0.05)
    port, path = said.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"


async def _tab(socket: aiohttp.ClientWebSocketResponse) -> Tab:
    await socket.send_json({"id": 0, "method": "Target.createTarget", "params": {"url": "about:blank"}})
    target = (await _answer(socket, 0))["targetId"]
    params = {"targetId": target, "flatten": True}
    await socket.send_json({"id": 1, "method": "Target.attachToTarget", "params": params})
    tab = Tab(socket, (await _answer(socket, 1))["sessionId"])
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.call(f"{domain}.enable")
    return tab


async def _answer(socket: aiohttp.ClientWebSocketResponse, number: int) -> Any:
    while True:
        said = await socket.receive_json(timeout=60)
        if said.get("id") == number:
            return said["result"]
