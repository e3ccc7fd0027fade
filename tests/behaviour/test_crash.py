"""What dies takes nobody with it: an exchange its own answer, a process two seconds."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.served import Apps, Served, until
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_exception_in_one_exchange_ends_that_exchange_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours, in the middle of a request, with a secret in its message."""
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        tokens = type(it.routes[0].injectors[0].tokens)
        healthy = tokens.current

        def current(*_: object) -> None:
            raise KeyError(f"defect near Bearer {CANARY}")

        other = await connect(it.address)
        await other.send(get("/v/x"))
        assert (await other.message()).status == 200
        monkeypatch.setattr(tokens, "current", current)
        app = await connect(it.address)
        await app.send(get("/v/x", "X-Request-Id: the-broken-one"))
        answer = await app.message()
        assert answer.status == 500
        problem = json.loads(answer.body)
        assert (problem["code"], problem["request_id"]) == ("internal", "the-broken-one")
        monkeypatch.setattr(tokens, "current", healthy)
        for peer in (app, other):
            await peer.send(get("/v/x"))
            assert (await peer.message()).status == 200
        assert it.metric("gatepass_requests_total", route="v", method="GET", status="500", code="internal") == 1
        event = next(json.loads(line) for line in it.log.splitlines() if "exchange_crashed" in line)
        assert event["request_id"] == "the-broken-one"
        assert "KeyError" in event["exception"]
        assert "handler.py" in event["exception"]
        assert it.at_rest()


@pytest.mark.slow
# uvloop leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_kill_9_under_load_with_a_supervisor_serves_again_within_two_seconds(tmp_path: Path) -> None:
    """The supervisor is a loop, as `Restart=always` is one; what it costs is the gateway's own start.

    Time in which the new process waited for a processor is the machine's and does not count; five tries for the rest.
    """
    async with vendor(answering(ok())) as it_vendor:
        gateway = Served(tmp_path, one_route(it_vendor.port), environ={"CANARY": CANARY})
        over = asyncio.Event()
        try:
            began = time.monotonic()
            await gateway.start()
            a_start = time.monotonic() - began
            held_up: list[float] = []

            async def supervise() -> None:
                while True:
                    await gateway.end(600)
                    if over.is_set():
                        return
                    await gateway.start()
                    held_up.append(gateway.held_up)

            supervisor = asyncio.create_task(supervise())
            outages: list[float] = []
            async with Apps(gateway.address, "/v/x", apps=4) as apps:
                while not outages or (min(outages) >= 2 and len(outages) < 5):
                    await asyncio.sleep(0.3)
                    gateway.signal(signal.SIGKILL)
                    killed = time.monotonic()
                    await asyncio.sleep(0.1)
                    before = apps.good
                    await until(lambda: apps.good > before)  # noqa: B023 - it ends before the next turn
                    outage = time.monotonic() - killed
                    await until(lambda: len(held_up) > len(outages))
                    outages.append(outage - held_up[-1])
            over.set()
            gateway.signal(signal.SIGKILL)
            await supervisor
        finally:
            await gateway.stop()
        # On a slow machine a start takes longer, and so does the outage.
        assert min(outages) < max(2.0, 1.5 * a_start), (outages, a_start)
