"""curl, requests, httpx, aiohttp and Node's fetch as apps: each runs the whole suite and says what it got."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LARGE = b"x" * 20_000_000
NAME = {"name": "Zoë"}
Results = dict[str, Any]


def missing(client: str) -> str | None:
    """Say why a client cannot run here, or nothing."""
    if client in {"curl", "node"}:
        return None if shutil.which(client) else f"{client} is not installed"
    return None if find_spec(client) else f"{client} is not installed"


async def run(client: str, base: str) -> Results:
    """Run the suite."""
    if client == "requests":
        return await asyncio.to_thread(_requests, base)
    return await {"curl": _curl, "httpx": _httpx, "aiohttp": _aiohttp, "node": _node}[client](base)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out


async def _node(base: str) -> Results:
    results: Results = json.loads(await _output("node", str(HERE / "client.mjs"), base))
    return results


async def _curl(base: str) -> Results:
    async def curl(path: str, *options: str) -> bytes:
        return await _output("curl", "-sS", "--max-time", "60", *options, base + path)

    def field(raw: bytes, name: str) -> list[str]:
        return re.findall(rf"(?im)^{name}: (.*?)\r$", raw.decode())

    with tempfile.NamedTemporaryFile() as file:
        file.write(LARGE)
        file.flush()
        upload = await curl("/upload", "-F", f"file=@{file.name}")
    ranged, redirect = await curl("/range", "-i", "-r", "2-5"), await curl("/redirect", "-i")
    return {
        "json": json.loads(await curl("/json", "-H", "Content-Type: application/json", "-d", json.dumps(NAME))),
        "upload": [200, json.loads(upload)],
        "download": _sha(await curl("/download")),
        "range": [int(ranged.split()[1]), ranged.split(b"\r\n\r\n")[-1].decode(), field(ranged, "content-range")[0]],
        "redirect": [int(redirect.split()[1]), field(redirect, "location")[0]],
        "cookie": field(await curl("/cookie", "-i"), "set-cookie"),
        "gzip": (await curl("/gzip", "--compressed")).decode(),
        "events": (await curl("/events", "-N")).decode(),
    }


def _requests(base: str) -> Results:
    import requests

    with requests.Session() as session:
        upload = session.post(base + "/upload", files={"file": ("a.bin", LARGE)})
        ranged = session.get(base + "/range", headers={"Range": "bytes=2-5"})
        redirect = session.get(base + "/redirect", allow_redirects=False)
        return {
            "json": session.post(base + "/json", json=NAME).json(),
            "upload": [upload.status_code, upload.json()],
            "download": _sha(session.get(base + "/download").content),
            "range": [ranged.status_code, ranged.text, ranged.headers["Content-Range"]],
            "redirect": [redirect.status_code, redirect.headers["Location"]],
            "cookie": session.get(base + "/cookie").raw.headers.getlist("Set-Cookie"),
            "gzip": session.get(base + "/gzip").text,
            "events": b"".join(session.get(base + "/events", stream=True).iter_content(None)).decode(),
        }


async def _httpx(base: str) -> Results:
    import httpx

    async with httpx.AsyncClient(timeout=60) as session:
        upload = await session.post(base + "/upload", files={"file": ("a.bin", LARGE)})
        ranged = await session.get(base + "/range", headers={"Range": "bytes=2-5"})
        redirect = await session.get(base + "/redirect")
        async with session.stream("GET", base + "/events") as stream:
            events = "".join([piece async for piece in stream.aiter_text()])
        return {
            "json": (await session.post(base + "/json", json=NAME)).json(),
            "upload": [upload.status_code, upload.json()],
            "download": _sha((await session.get(base + "/download")).content),
            "range": [ranged.status_code, ranged.text, ranged.headers["Content-Range"]],
            "redirect": [redirect.status_code, redirect.headers["Location"]],
            "cookie": (await session.get(base + "/cookie")).headers.get_list("Set-Cookie"),
            "gzip": (await session.get(base + "/gzip")).text,
            "events": events,
        }


async def _aiohttp(base: str) -> Results:
    import aiohttp

    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(LARGE), filename="a.bin")
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, path: str, **options: Any) -> tuple[aiohttp.ClientResponse, bytes]:
            async with session.request(method, base + path, allow_redirects=False, **options) as response:
                return response, await response.read()

        upload, ranged = (
            await ask("POST", "/upload", data=form),
            await ask("GET", "/range", headers={"Range": "bytes=2-5"}),
        )
        redirect, cookie = await ask("GET", "/redirect"), await ask("GET", "/cookie")
        return {
            "json": json.loads((await ask("POST", "/json", json=NAME))[1]),
            "upload": [upload[0].status, json.loads(upload[1])],
            "download": _sha((await ask("GET", "/download"))[1]),
            "range": [ranged[0].status, ranged[1].decode(), ranged[0].headers["Content-Range"]],
            "redirect": [redirect[0].status, redirect[0].headers["Location"]],
            "cookie": cookie[0].headers.getall("Set-Cookie"),
            "gzip": (await ask("GET", "/gzip"))[1].decode(),
            "events": (await ask("GET", "/events"))[1].decode(),
        }
