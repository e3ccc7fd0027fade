"""nginx, Node and uvicorn as vendors."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(__file__).parent


def missing(server: str) -> str | None:
    """Say why a server cannot run here, or nothing."""
    if server == "nginx":
        return None if shutil.which("nginx") or Path("/usr/sbin/nginx").exists() else "nginx is not installed"
    if server == "node":
        return None if shutil.which("node") else "node is not installed"
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        return "uvicorn is not installed"
    return None


@asynccontextmanager
async def server(name: str) -> AsyncIterator[int]:
    """Run a server of this name; yield its port."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        if name == "nginx":
            command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-c", _nginx(folder, port)]
        elif name == "node":
            command = ["node", str(HERE / "server.mjs")]
        else:
            command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "asgi:app", "--port", str(port)]
            command += ["--log-level", "error", "--ws", "websockets-sansio"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            if name == "node":
                assert process.stdout is not None
                port = int(await asyncio.wait_for(process.stdout.readline(), 60))
            await _listens(port)
            yield port
        finally:
            process.terminate()
            await process.wait()


def _nginx(folder: str, port: int) -> str:
    root = Path(folder)
    (root / "download").write_bytes(b"".join(bytes([index]) * 65536 for index in range(80)))
    (root / "range").write_text("0123456789")
    (root / "gzip").write_text("hello " * 100)
    (root / "events").write_text("".join(f"data: {index}\n\n" for index in range(3)))
    text = (HERE / "nginx.conf").read_text().replace("FOLDER", folder).replace("PORT", str(port))
    config = root / "nginx.conf"
    config.write_text(text)
    if os.getuid() == 0:
        root.chmod(0o755)
        config.write_text("user root;\n" + text)
    return str(config)


async def _listens(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
