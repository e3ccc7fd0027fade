"""A vendor and apps that call it through a gateway, as a process of its own: for another network namespace.

`python -m tests.deployed.load VENDOR_PORT GATEWAY_PORT` prints a line when the apps are served, and what they got when
its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.kit.served import Apps, until
from tests.kit.wire import RawVendor, answering, ok

VENDOR = "127.0.0.1"
SOME = 50
"""Requests that are answered before what is tried, and after it."""


async def main(vendor_port: int, gateway_port: int) -> None:
    """Call with kept connections and with new ones."""
    vendor = RawVendor(answering(ok()))
    server = await asyncio.start_server(vendor._serve, VENDOR, vendor_port, limit=2**20)
    address = ("127.0.0.1", gateway_port)
    async with Apps(address, "/v/x", apps=3) as kept, Apps(address, "/v/x", apps=3, kept=False) as fresh:
        await until(lambda: min(kept.good, fresh.good) >= SOME)
        sys.stdout.write("served\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        before = kept.good + fresh.good
        await until(lambda: kept.good + fresh.good >= before + SOME)
    server.close()
    failures = kept.failures + fresh.failures
    sys.stdout.write(json.dumps({"good": kept.good + fresh.good, "failures": failures}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
