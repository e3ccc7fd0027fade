"""The shipped nginx snippet, run by a real nginx on other ports and without TLS."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.kit.configuration import ROOT
from tests.kit.served import accepts, until
from tests.kit.tools import SBIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

SNIPPET = ROOT / "deploy" / "nginx" / "gatepass.conf"
PROGRAM = shutil.which("nginx", path=SBIN)
NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {snippet}
}}
"""


def plain(instances: Sequence[int], port: int) -> str:
    """Return the snippet with these ports instead of its own, and without TLS."""
    text = SNIPPET.read_text(encoding="utf-8")
    for shipped, instance in zip((8080, 8081), instances, strict=True):
        assert text.count(f"server 127.0.0.1:{shipped} ") == 1
        text = text.replace(f"server 127.0.0.1:{shipped} ", f"server 127.0.0.1:{instance} ")
    assert text.count("listen 8443 ssl;") == 1
    text = text.replace("listen 8443 ssl;", f"listen 127.0.0.1:{port};")
    return re.sub(r"^\s*ssl_.*$", "", text, flags=re.MULTILINE)


@asynccontextmanager
async def nginx(folder: Path, instances: Sequence[int], port: int) -> AsyncIterator[None]:
    """Run nginx on `port` in front of two gateways."""
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, snippet=plain(instances, port)))
    process = await asyncio.create_subprocess_exec(PROGRAM or "nginx", "-c", str(path), "-p", str(folder))
    try:
        await until(lambda: accepts(port))
        yield
    finally:
        process.terminate()
        await process.wait()
