"""Rolling restarts of two instances behind the shipped nginx snippet, under GET and POST requests."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from tests.deployed.outcome import Outcome, Unable
from tests.kit.gateway import CANARY, one_route
from tests.kit.nginx import PROGRAM, nginx
from tests.kit.ports import free_port
from tests.kit.served import Apps, Served
from tests.kit.wire import answering, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

ROLLS = int(os.environ.get("ROLLS", "10"))


def trial(folder: Path) -> Outcome:
    """Restart one instance after the other, ROLLS times; every failure counts."""
    if PROGRAM is None:
        raise Unable("nginx is not installed")
    return asyncio.run(rolled(folder))


async def rolled(folder: Path) -> Outcome:
    """Return the requests and failures, with the default of drain.grace."""
    outcome = Outcome()
    port = free_port()
    async with vendor(answering(ok())) as it_vendor:
        gateways = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            config = {"access": "open", **one_route(it_vendor.port), "drain": {"grace": "2s"}}
            gateways.append(Served(folder / name, config, environ={"CANARY": CANARY}))
        try:
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            async with (
                nginx(folder, [gateway.port for gateway in gateways], port),
                Apps(("127.0.0.1", port), "/v/x", apps=8) as reading,
                Apps(("127.0.0.1", port), "/v/x", apps=8, post=True) as writing,
            ):
                for _ in range(ROLLS):
                    for gateway in gateways:
                        gateway.signal(signal.SIGTERM)
                        assert await gateway.end() == 0
                        await gateway.start()
        finally:
            for gateway in gateways:
                await gateway.stop()
    for kind, apps in (("GET", reading), ("POST", writing)):
        failed = sum(apps.failures.values())
        outcome.add(
            f"{ROLLS} rolling restarts: {kind} requests, failed", f"{apps.good + failed}, {failed}", good=not failed
        )
        for cause, count in apps.failures.most_common(3):
            outcome.add(f"{kind} failures: {cause}", count, good=False)
    return outcome
