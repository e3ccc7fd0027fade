"""Runs mixed load with faults; at the end nothing may be left over, and every failure must be explained by a fault.

    python -m benchmarks.soak [--seconds 600] [--apps 12]

Apps read, write, upload, receive events, read slowly and disconnect early. They use a gateway in its own process and
the emulated vendors. Meanwhile vendors are slow, reset connections, truncate answers and refuse tokens; tokens are
revoked; token endpoints go down; names hang, fail and move; the process is suspended, its descriptors and its disk are
full, its standard output stalls; and the configuration is reloaded. A failure is explained only if its own vendor, or
the process, has a fault that causes exactly this failure, or had one a moment ago. The gateway's log line of any other
failure is printed. Writes `results/soak.md`; the exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.surroundings import KEY, Stage, Watched, stage
from benchmarks.troubles import BROKEN, FAULTS, OF_A_BODY, SOUND, Fault
from gateway.sandbox.demo.stage import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.sandbox.vendor import Vendor

NAMES = ("hypersign", "akiba", "uqudo", "idfy")
"""The emulated vendors, which are also the routes."""
RESULT = Path(__file__).parent / "results" / "soak.md"
SETTLE = 8.0
"""Seconds after a fault in which it may still cause failures: back-off, requests that had begun."""
REST_WITHIN = 60.0
"""Seconds until idle connections to vendors are closed; they are kept for 30."""
TOKEN_LIFE = 6.0
"""In seconds. So short because redaction remembers 128 tokens, and that store must be full before memory is judged."""
WARM_UP = 0.5
"""Share of the run after which memory must be flat: all stores are full, and garbage was collected."""
LEAST_GROWTH = 1.0
"""Growth in MiB that always counts as flat, because allocators take and return memory in pieces of that size."""


@dataclass
class Books:
    """Counts what happened, and decides which failures a fault explains."""

    good: int = 0
    aborted: int = 0
    """Requests that the app cancelled on purpose."""
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    unexplained_ids: set[str] = field(default_factory=set)
    """Request ids of unexplained failures, as far as the answer had one."""
    faults: Counter[str] = field(default_factory=Counter)
    reloads: int = 0
    excused: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """For each vendor: failures, and until when each is explained."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, and resident memory in MiB."""

    def excuse(self, vendors: Iterable[Vendor], fault: Fault, until: float) -> None:
        """Explain the failures that a fault causes by it, up to an instant."""
        for vendor in vendors:
            self.excused[vendor.name].update(dict.fromkeys(fault.causes, until))

    def failed(self, vendor: str, failure: str, request_id: str = "", *, body: bool = False) -> None:
        """Record a failure as explained or unexplained. `body`: the app was sending a body."""
        names = (failure, failure + OF_A_BODY) if body else (failure,)
        if any(time.monotonic() < self.excused[vendor].get(name, 0.0) for name in names):
            self.explained[failure] += 1
        else:
            self.unexplained[f"{vendor}: {failure}"] += 1
            self.unexplained_ids.add(request_id)


# ------------------------------------------------------------------------------------------------------------ the apps


class App:
    """An app that performs random actions, one after another."""

    def __init__(self, session: aiohttp.ClientSession, base: str, vendors: list[str], books: Books, seed: int) -> None:
        self._session, self._base, self._vendors, self._books = session, base, vendors, books
        self._random = random.Random(seed)
        self._deeds: list[tuple[int, Callable[[str], Awaitable[None]]]] = [
            (60, self._read),
            (15, self._write),
            (3, self._upload),
            (3, self._read_slowly),
            (3, self._listen),
            (3, self._socket),
            (4, self._leave),
        ]

    async def run(self, over: asyncio.Event) -> None:
        """Act until `over` is set."""
        weights, deeds = zip(*self._deeds, strict=True)
        while not over.is_set():
            vendor = self._random.choice(self._vendors)
            deed = self._random.choices(deeds, weights)[0]
            try:
                await deed(f"{self._base}/{vendor}/sandbox")
            except _Failed as failed:
                body = deed in {self._write, self._upload}
                self._books.failed(vendor, failed.failure, failed.request_id, body=body)
            except (aiohttp.ClientError, ConnectionError):
                self._books.failed(vendor, BROKEN)
            except TimeoutError:
                self._books.failed(vendor, "the app's own time-out")
            await asyncio.sleep(self._random.uniform(0.005, 0.03))

    async def _judge(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status < 400:
            await answer.read()
            self._books.good += 1
        elif answer.content_type == "application/problem+json":
            problem = await answer.json(content_type=None)
            raise _Failed(problem.get("code", "?"), problem.get("request_id", ""))
        else:
            await answer.read()
            raise _Failed(str(answer.status), answer.headers.get("X-Request-Id", ""))

    async def _read(self, url: str) -> None:
        size = self._random.choice((0, 200, 5_000, 100_000))
        async with self._session.get(f"{url}/bytes/{size}?chunked={self._random.randint(0, 1)}") as answer:
            await self._judge(answer)

    async def _write(self, url: str) -> None:
        async with self._session.post(f"{url}/sink", json={"n": "x" * self._random.choice((10, 2_000))}) as answer:
            await self._judge(answer)

    async def _upload(self, url: str) -> None:
        data = os.urandom(self._random.choice((200_000, 2_000_000)))
        async with self._session.put(f"{url}/sink?sha256=0", data=data) as answer:
            await self._judge(answer)

    async def _read_slowly(self, url: str) -> None:
        async with self._session.get(f"{url}/bytes/2000000") as answer:
            if answer.ok:
                async for _ in answer.content.iter_chunked(200_000):
                    await asyncio.sleep(0.05)
            await self._judge(answer)

    async def _listen(self, url: str) -> None:
        async with self._session.get(f"{url}/events?count=4&interval=0.2") as answer:
            await self._judge(answer)

    async def _socket(self, url: str) -> None:
        try:
            async with self._session.ws_connect(f"{url}/ws") as socket:
                for number in range(3):
                    await socket.send_str(str(number))
                    if (await socket.receive(timeout=10)).data != str(number):
                        raise _Failed(BROKEN)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp does not show the body with the code here. Any excused failure of this vendor explains it.
            raise _Failed(next(iter(self._excused(url)), f"websocket {error.status}")) from None
        self._books.good += 1

    def _excused(self, url: str) -> list[str]:
        now = time.monotonic()
        excused = self._books.excused[url.split("/")[-2]]
        return [failure for failure, end in excused.items() if now < end and not failure.endswith(OF_A_BODY)]

    async def _leave(self, url: str) -> None:
        """Disconnect in the middle of a request or of an answer."""
        try:
            async with asyncio.timeout(self._random.uniform(0.001, 0.05)):
                async with self._session.get(f"{url}/events?count=50&interval=0.1") as answer:
                    await answer.read()
        except (TimeoutError, aiohttp.ClientError):
            self._books.aborted += 1


class _Failed(Exception):
    """The failure that an answer reports."""

    def __init__(self, failure: str, request_id: str = "") -> None:
        super().__init__(failure)
        self.failure = failure
        """Its error code, or its status."""
        self.request_id = request_id


# --------------------------------------------------------------------------------------------------------- the trouble


async def failing(staged: Stage, books: Books, over: asyncio.Event) -> None:
    """Give one vendor after another, or the process, a fault for a while; reload in between."""
    dice, vendors = random.Random(7), list(staged.sandbox.vendors.values())
    coming: list[Fault] = []
    while not over.is_set():
        coming = coming or dice.sample(FAULTS, len(FAULTS))  # each as often as any other
        vendor, fault = dice.choice(vendors), coming.pop()
        books.faults[fault.name] += 1
        hurt = vendors if fault.everywhere else [vendor]
        books.excuse(hurt, fault, time.monotonic() + 3600)
        async with fault.around(staged, vendor):
            await vendor.set(**fault.switches)
            if fault.revoke:
                vendor.revoke("all")
            await asyncio.sleep(dice.uniform(1, 3))
            await vendor.set(**SOUND)
        books.excuse(hurt, fault, time.monotonic() + SETTLE)
        books.reloads += 1
        staged.write(configuration(books.reloads))
        await asyncio.sleep(dice.uniform(0.5, 2))


# --------------------------------------------------------------------------------------------------------- the process


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def noise(points: list[tuple[float, float]]) -> float:
    """Return the standard deviation around that line."""
    rise = slope(points)
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    return math.sqrt(sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in points) / len(points))


def events(log: Path, ids: set[str]) -> list[str]:
    """Return the gateway's log lines of these requests."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith("{") and json.loads(line).get("request_id") in ids - {""}]


async def soak(seconds: float, apps: int) -> bool:
    """Run the soak; print and write the result; return whether all checks hold."""
    books = Books()
    with tempfile.TemporaryDirectory() as name:
        async with stage(Path(name), configuration(0), life=TOKEN_LIFE) as staged:
            return await _loaded(staged, books, seconds=seconds, apps=apps)


def configuration(reloads: int) -> dict[str, Any]:
    """Return the last configuration file, which differs with each reload: one time-out, and a route of its own."""
    timeouts = {name: {"timeouts": {"first_byte": 20 + reloads % 2}} for name in NAMES}
    extra = {f"extra{reloads % 3}": {"prefix": "/extra", "credential": "idfy"}}
    return {"credentials": {name: {"min_interval": 0} for name in NAMES}, "routes": {**extra, **timeouts}}


async def _loaded(staged: Stage, books: Books, *, seconds: float, apps: int) -> bool:
    gateway, watched = staged.gateway, Watched(staged)
    await asyncio.sleep(2)
    at_rest, began, over = watched.state(), time.monotonic(), asyncio.Event()
    timeout, headers = aiohttp.ClientTimeout(total=40), {"X-Gatepass-Key": KEY}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        tasks = [
            asyncio.create_task(App(session, f"http://{gateway.listen}", list(NAMES), books, seed).run(over))
            for seed in range(apps)
        ]
        tasks.append(asyncio.create_task(failing(staged, books, over)))
        while time.monotonic() - began < seconds:
            gateway.check()
            books.memory.append((time.monotonic() - began, watched.memory()))
            await asyncio.sleep(1)
        over.set()
        await asyncio.gather(*tasks)
    took = time.monotonic() - began
    await _rest(watched, at_rest)
    gauges = await watched.gauges()
    refused = 1 - await gateway.metric("gatepass_config_last_load_successful")
    gauges["reload refused"] = refused
    well = _tell(books, took, before=at_rest, after=watched.state(), gauges=gauges, errors=gateway.errors())
    for line in (*events(gateway.log, books.unexplained_ids), *gateway.errors()[:10]) if not well else ():
        print(line)
    return well


async def _rest(watched: Watched, at_rest: dict[str, int]) -> None:
    await until(lambda: watched.state()["sockets"] <= at_rest["sockets"], REST_WITHIN)


def _tell(
    books: Books,
    took: float,
    *,
    before: dict[str, int],
    after: dict[str, int],
    gauges: dict[str, float],
    errors: list[str],
) -> bool:
    settled = [point for point in books.memory if point[0] >= took * WARM_UP]
    rise, around = slope(settled), noise(settled)
    grown = rise * (settled[-1][0] - settled[0][0])
    checks = {
        "no unexplained failure": not books.unexplained,
        "memory flat (it grew by less than twice its noise, or 1 MiB)": grown < max(2 * around, LEAST_GROWTH),
        "files, sockets and threads as before": all(after.get(kind, 0) <= before[kind] + 2 for kind in before),
        "nothing in flight, waiting or open": not any(gauges.values()),
        "no defect in the log": not any("crashed" in line or "Traceback" in line for line in errors),
        "no half line in the log": all(line.startswith("{") and line.endswith("}") for line in errors),
    }
    failures = ", ".join(f"{name} {count}" for name, count in books.explained.most_common()) or "none"
    summary = f"{took:.0f} s: {books.good} requests answered well ({books.good / took:.0f}/s), {books.aborted} given up"
    summary += f" by the app, {sum(books.faults.values())} faults, {books.reloads} reloads."
    memory = f"{books.memory[0][1]:.1f} MiB at the start, {settled[0][1]:.1f} at half-time, {settled[-1][1]:.1f} at the"
    memory += (
        f" end; the line through the second half: {grown:+.2f} MiB ({rise * 60:+.2f} a minute), noise {around:.2f}"
    )
    rows = {
        "faults": ", ".join(f"{name} {count}" for name, count in sorted(books.faults.items())),
        "failures that a fault explains": failures,
        "failures that nothing explains": dict(books.unexplained) or "none",
        "memory": memory,
        "before": before,
        "after": after,
        "gauges at rest": gauges,
    }
    lines = ["# Soak", "", summary, "", "| what | seen |", "|---|---|"]
    lines += [f"| {what} | {seen} |" for what, seen in rows.items()]
    lines += ["", *(f"- {'ok' if good else '**NOT OK**'}: {name}" for name, good in checks.items()), ""]
    text = "\n".join(lines)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return all(checks.values())


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Mixed load with faults; everything must be at rest at the end.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--apps", type=int, default=12)
    arguments = parser.parse_args()
    # Otherwise the vendors' server would log every request that was cancelled.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        loop_factory = asyncio.new_event_loop
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        sys.exit(0 if runner.run(soak(arguments.seconds, arguments.apps)) else 1)


if __name__ == "__main__":
    main()
