"""Act 1: a read and an upload per vendor, a download, an event stream, a WebSocket, an echo.

The app knows paths and one base URL. Every answer is compared with what was sent, and every token with the vendor's
records.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from gateway.model import MIB
from gateway.sandbox.demo.app import OK, Shot, multipart
from gateway.sandbox.demo.stage import QUICK_MS
from gateway.sandbox.uqudo import IMAGE_SHA256

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.demo.report import Row
    from gateway.sandbox.demo.stage import Stage

UPLOAD = bytes(range(256)) * (5 * MIB // 256)
UPLOAD_SHA256 = hashlib.sha256(UPLOAD).hexdigest()
READS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hypersign": ("GET", "/api/v1/did?page=1&limit=3", {}),
    "akiba": ("POST", "/insyts/gettransactions", {"json": {"clientId": "1", "consent": True}}),
    "uqudo": ("GET", "/api/v1/info/4f0b6a52", {}),
    "idfy": ("GET", "/signature/documents/summary?limit=2", {}),
}
UPLOADS: dict[str, tuple[str, str, str]] = {
    "hypersign": ("/sandbox/upload", "file", "application/pdf"),
    "akiba": ("/api/bankstatement/upload", "file", "application/pdf"),
    "uqudo": ("/api/v1/scan", "front", "image/jpeg"),
    "idfy": ("/sandbox/upload", "file", "application/pdf"),
}
EVENTS = "/api/v1/e-kyc/verification/doc-ocr/status/1?count=2&interval=0.5"


async def exchanges(stage: Stage) -> None:
    """A read and an upload per vendor, a download, an event stream, a WebSocket."""
    stage.report.act(
        1,
        "One base URL, four vendors, every kind of exchange",
        f"The app calls http://{stage.gateway.listen}/<route>/… and holds no vendor credential.",
    )
    rows: list[Row] = []

    def row(shot: Shot, what: str, note: str) -> None:
        requests = str(stage.token_requests())
        rows.append((shot.route, what, str(shot.status), shot.token or "-", requests, f"{shot.ms:.1f}", note))

    await _reads_and_uploads(stage, row)
    await _download(stage, row)
    await _events(stage, row)
    await _websocket(stage, row)
    await _echo(stage, row)
    stage.report.table(("route", "request", "status", "token", "token requests", "ms", "answer"), rows)


async def _reads_and_uploads(stage: Stage, row: Callable[[Shot, str, str], None]) -> None:
    good = 0
    for route, (method, path, arguments) in READS.items():
        shot = await stage.app.call(route, method, path, **arguments)
        good += shot.status == OK and stage.own_token(shot)
        row(shot, f"{method} {path}", f"{len(str(shot.body))} characters")
    for route, (path, name, kind) in UPLOADS.items():
        shot = await stage.app.call(route, "POST", path, data=multipart(name, "document", kind, UPLOAD))
        parts = shot.body.get("parts", []) if isinstance(shot.body, dict) else []
        whole = [part["sha256"] for part in parts] == [UPLOAD_SHA256]
        good += shot.status == OK and whole and stage.own_token(shot)
        row(shot, f"POST {path}", "5 MiB, SHA-256 as sent" if whole else "not what was sent")
    stage.report.claim(
        "A read and a 5 MiB upload per vendor, each with that vendor's own token",
        f"{good} of 8",
        held=good == 8,  # noqa: PLR2004
    )


async def _download(stage: Stage, row: Callable[[Shot, str, str], None]) -> None:
    shot = await stage.app.call("uqudo", "GET", "/api/v1/info/img/1")
    same = isinstance(shot.body, bytes) and hashlib.sha256(shot.body).hexdigest() == IMAGE_SHA256
    row(shot, "GET /api/v1/info/img/1", f"{len(shot.body)} bytes, SHA-256 as known" if same else "not the picture")
    stage.report.claim("A binary download arrives byte for byte", f"{len(shot.body)} bytes of image/jpeg", held=same)


async def _events(stage: Stage, row: Callable[[Shot, str, str], None]) -> None:
    began = time.monotonic()
    async with stage.app.session.get(stage.app.url("hypersign", EVENTS)) as response:
        status, token = response.status, response.headers.get("X-Sandbox-Token", "")
        arrivals = [(time.monotonic() - began) * 1000 async for line in response.content if line.startswith(b"data:")]
    shot = Shot("hypersign", status, (time.monotonic() - began) * 1000, began, token)
    seen = " and ".join(f"{ms:.0f} ms" for ms in arrivals)
    row(shot, f"GET {EVENTS.partition('?')[0]} (SSE)", f"events after {seen}")
    held = len(arrivals) == 2 and arrivals[0] < QUICK_MS <= arrivals[1]  # noqa: PLR2004 - two were asked for
    stage.report.claim("Server-sent events pass without delay", f"{seen}, sent 500 ms apart", held=held)


async def _websocket(stage: Stage, row: Callable[[Shot, str, str], None]) -> None:
    echoed = ""
    began = time.monotonic()
    try:
        async with stage.app.session.ws_connect(stage.app.url("uqudo", "/sandbox/ws"), timeout=_within(5)) as socket:
            await socket.send_str("hello through the gateway")
            echoed = await asyncio.wait_for(socket.receive_str(), 5)
        status = 101
    except aiohttp.WSServerHandshakeError as error:
        status = error.status
    row(Shot("uqudo", status, (time.monotonic() - began) * 1000, began), "GET /sandbox/ws (WebSocket)", repr(echoed))
    held = echoed == "hello through the gateway"
    stage.report.claim("A WebSocket passes", f"status {status}, echo {echoed!r}", held=held)


def _within(seconds: float) -> aiohttp.ClientWSTimeout:
    return aiohttp.ClientWSTimeout(ws_close=seconds)


async def _echo(stage: Stage, row: Callable[[Shot, str, str], None]) -> None:
    own = {"Authorization": "Bearer the-apps-own", "Cookie": "session=the-apps-own", "X-Order": "7"}
    shot = await stage.app.call("idfy", "GET", "/sandbox/echo/a%20b?c=%2F", headers=own)
    seen: dict[str, Any] = shot.body if isinstance(shot.body, dict) else {"headers": [], "target": ""}
    fields = {name.lower(): value for name, value in seen["headers"]}
    unchanged = seen["target"] == "/sandbox/echo/a%20b?c=%2F" and fields.get("x-order") == "7"
    replaced = fields.get("authorization") == f"Bearer {shot.token}" and "cookie" not in fields
    row(shot, "GET /sandbox/echo/a%20b?c=%2F", f"vendor saw {seen['target']}, Authorization: Bearer {shot.token}")
    stage.report.claim(
        "The app's own Authorization and Cookie stay behind; path, query and other fields pass unchanged",
        f"the vendor saw the token {shot.token} and {seen['target']}",
        held=unchanged and replaced and stage.own_token(shot),
    )
