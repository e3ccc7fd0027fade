"""A vendor and apps that call it through a gateway, as a process of its own: for another network namespace.

`python -m tests.deployed.load VENDOR_PORT GATEWAY_PORT` runs until its input ends, then prints what the apps got.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.kit.served import Apps
from tests.kit.wire import RawVendor, answering, ok

VENDOR = "127.0.0.1"


async def main(vendor_port: int, gateway_port: int) -> None:
    """Call with kept connections and with new ones."""
    vendor = RawVendor(answering(ok()))
    server = await asyncio.start_server(vendor._serve, VENDOR, vendor_port, limit=2**20)
    address = ("127.0.0.1", gateway_port)
    async with Apps(address, "/v/x", apps=3) as kept, Apps(address, "/v/x", apps=3, kept=False) as fresh:
        await asyncio.to_thread(sys.stdin.read)
    server.close()
    failures = kept.failures + fresh.failures
    sys.stdout.write(json.dumps({"good": kept.good + fresh.good, "failures": failures}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
