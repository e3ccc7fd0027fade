"""Makes the pictures of `docs/pictures`: `python -m tests.kit.pictures [SECONDS]`. Needs prometheus and chromium.

Runs the gateway with failures for a while, draws each dashboard from the data of Prometheus, and takes a picture of the
status page.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from tests.kit.chromium import chromium
from tests.kit.configuration import ROOT
from tests.kit.emulation import warm
from tests.kit.failing import failing, make_failures
from tests.kit.prometheus import prometheus
from tests.kit.seen import admin_port

PICTURES = ROOT / "docs" / "pictures"


async def main(seconds: float) -> None:
    """Run a third of the time without failures, then with failures; at the end most of them are over."""
    async with (
        failing(budget=2000) as (it, sandbox),
        admin_port(it) as url,
        prometheus(url.removeprefix("http://"), every="1s") as prom,
    ):
        await warm(it)
        await asyncio.sleep(seconds / 3)
        await make_failures(it, sandbox)
        await asyncio.sleep(seconds / 3)
        async with chromium() as tab:
            await tab.open(f"{url}/status")
            await asyncio.sleep(2.5)
            await tab.look(PICTURES / "status.png", 1100, 400)
        for each in sandbox.vendors.values():
            await each.set(token_fault="none", api_latency=0)
        await asyncio.sleep(seconds / 3)
        command = [sys.executable, str(ROOT / "grafana" / "picture.py"), prom.url, str(seconds / 60), str(PICTURES)]
        await asyncio.to_thread(subprocess.run, command, check=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 180.0))
