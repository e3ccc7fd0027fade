"""Counts the bytecodes that `gatepass serve` executes per request, while a thread of the same process sends requests.

    python -m benchmarks.counting CONFIG URL RESULT

It starts the command as a user would, and needs no knowledge of the gateway's inside. It counts every frame of the main
thread, in which the data plane runs, including libraries. It does not count the thread that writes the log.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from benchmarks import scenarios
from benchmarks.processes import wait_for
from gateway.cli import main as command
from gateway.observe.journal import INTERVAL

if TYPE_CHECKING:
    from types import FrameType

REQUESTS, BATCHES = 200, 3
"""Requests of a batch: so many that timers, which run meanwhile, hardly count. The smallest batch is the result."""
WARM_UP = 50
SETTLE = 4 * INTERVAL
"""Seconds until all requests of a batch are counted and logged."""
COUNTED = ("small", "post")
"""The scenarios whose requests are counted."""


class Client:
    """One connection that sends one request after the other, each in one piece."""

    def __init__(self, url: str, scenario: str) -> None:
        asked, place = scenarios.BY_NAME[scenario], urlsplit(url)
        fields = asked.headers | ({"Content-Length": str(len(asked.body))} if asked.body else {})
        lines = (f"{'POST' if asked.body else 'GET'} /bench{asked.path} HTTP/1.1", f"Host: {place.netloc}")
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), "\r\n"])
        self.request = head.encode() + asked.body
        self.socket = socket.create_connection((place.hostname or "", place.port or 80), timeout=60)

    def send(self, number: int) -> None:
        """Send the request `number` times, each after the whole answer to the one before."""
        for _ in range(number):
            self.socket.sendall(self.request)
            answer = b""
            while not answer.endswith(b"}"):  # the vendor's answers are all JSON objects
                if not (piece := self.socket.recv(65536)):
                    raise ConnectionError("the gateway closed the connection")
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"not answered with 200: {answer[:200]!r}")


class Counter:
    """Counts bytecodes while `on` is set."""

    def __init__(self) -> None:
        self.on = False
        self.seen = 0

    def entered(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Start to trace a frame that begins or resumes; called by `sys.settrace`."""
        del event, argument
        if not self.on:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.executed

    def executed(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Count one bytecode."""
        del frame, argument
        self.seen += event == "opcode"
        return self.executed

    def batch(self, client: Client) -> float:
        """Return the bytecodes per request of one batch."""
        self.seen, self.on = 0, True
        client.send(REQUESTS)
        time.sleep(SETTLE)
        self.on = False
        return self.seen / REQUESTS

    def count(self, client: Client) -> dict[str, float]:
        """Return the bytecodes per request and the memory that a request leaves behind."""
        client.send(WARM_UP)
        return {
            "bytecodes": min(self.batch(client) for _ in range(BATCHES)),
            "blocks of memory kept": min(kept(client) for _ in range(BATCHES)),
        }


def kept(client: Client) -> float:
    """Return how many blocks of Python's memory a request leaves behind."""
    client.send(WARM_UP)
    time.sleep(SETTLE)
    gc.collect()
    before = sys.getallocatedblocks()
    client.send(REQUESTS)
    time.sleep(SETTLE)
    gc.collect()
    return max(0.0, (sys.getallocatedblocks() - before) / REQUESTS)


def drive(counter: Counter, url: str, result: Path) -> None:
    """Send the requests, write the counts to `result`, and stop the gateway."""
    try:
        wait_for(f"{url}/bench{scenarios.SMALL}")
        found = {
            f"{name}: {what}": value for name in COUNTED for what, value in counter.count(Client(url, name)).items()
        }
        result.write_bytes(orjson.dumps(found))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve until everything is counted."""
    config, url, result = sys.argv[1:]
    counter = Counter()
    threading.Thread(target=drive, args=(counter, url, Path(result))).start()
    sys._getframe().f_trace_opcodes = True  # noqa: SLF001 - Python 3.12 counts bytecodes only if a frame wants them now
    sys.settrace(counter.entered)
    command(["serve", "-c", config], standalone_mode=False)


if __name__ == "__main__":
    main()
