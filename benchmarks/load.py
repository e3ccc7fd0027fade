"""The load: `wrk` where it is installed, else a small generator of our own on raw asyncio.

Both keep a number of connections busy, one request after another on each, and report the requests that were answered
with 200, anything else, and latencies. `wrk` is the better one: it leaves more of the core to the upstream.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import cast

import orjson
import uvloop

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw. Seconds throughout."""

    requests: int
    wrong: int
    seconds: float
    p50: float
    p99: float


def name() -> str:
    """Return which generator `run` uses."""
    return "wrk" if shutil.which("wrk") else "benchmarks.load"


def run(url: str, headers: dict[str, str], *, seconds: float, connections: int, core: int) -> Load:
    """Put load on a URL from one core, and wait for its end."""
    if shutil.which("wrk"):
        fields = [part for field, value in headers.items() for part in ("-H", f"{field}: {value}")]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", *fields, url]
    else:
        arguments = orjson.dumps([url, headers, seconds, connections]).decode()
        command = [sys.executable, "-m", "benchmarks.load", arguments]
    shown = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True, check=True).stdout
    return read_wrk(shown) if shutil.which("wrk") else Load(**orjson.loads(shown))


def read_wrk(shown: str) -> Load:
    """Read wrk's report. Errors of sockets and statuses other than 2xx and 3xx count as wrong."""
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s", shown).groups()
    wrong = sum(
        int(number)
        for line in re.findall(r"(?:Non-2xx|Socket errors).*", shown)
        for number in re.findall(r" (\d+)", line)
    )
    p50, p99 = (float(value) * UNITS[unit] for value, unit in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s)", shown))
    return Load(int(requests), wrong, float(seconds), p50, p99)


class Connection(asyncio.Protocol):
    """One connection that sends the next request when the answer to the last is whole."""

    def __init__(self, request: bytes, latencies: list[float], wrong: list[bytes]) -> None:
        self.request, self.latencies, self.wrong = request, latencies, wrong
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        """Send one request and note when."""
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count an answer when it is whole: Content-Length or chunked."""
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not end or (len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n")):
            return
        self.latencies.append(time.perf_counter() - self.began)
        if not head.startswith(b"HTTP/1.1 200"):
            self.wrong.append(head)
        self.buffer = b""
        self.send()


async def generate(url: str, headers: dict[str, str], seconds: float, connections: int) -> Load:
    """Keep the connections busy for so many seconds."""
    host, _, path = url.removeprefix("http://").partition("/")
    fields = "".join(f"{field}: {value}\r\n" for field, value in headers.items())
    request = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
    latencies: list[float] = []
    wrong: list[bytes] = []
    loop = asyncio.get_running_loop()
    address, _, port = host.partition(":")
    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(request, latencies, wrong), address, int(port))
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    latencies.sort()
    count = len(latencies)
    return Load(count, len(wrong), took, latencies[count // 2], latencies[count * 99 // 100])


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(generate(*orjson.loads(sys.argv[1])))))
