"""Measures the gateway's memory while large bodies pass, and the time that it takes to start.

    python -m benchmarks.memory [--mib 1024]

Sends one large body up and one down through `gatepass serve`. Prints the peak resident size, which must not grow with
the body, and the time from the start of the process to the first answer of a vendor.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.processes import KEY, Subject, connect, cores, gatepass, vendor, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = bytes(1024 * 1024)


def blocks(mib: int) -> Iterator[bytes]:
    """Yield the pieces of a body, so that the whole body is never in memory."""
    for _ in range(mib):
        yield BLOCK


def upload(subject: Subject, mib: int) -> float:
    """Upload a body; return the seconds until its answer."""
    with contextlib.closing(connect(subject.url.removeprefix("http://"))) as client:
        began = time.perf_counter()
        headers = {"X-Gatepass-Key": KEY, "Content-Length": str(mib * len(BLOCK))}
        client.request("PUT", "/bench/up", body=blocks(mib), headers=headers)
        answer = client.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the upload was answered with {answer.status}")
        return time.perf_counter() - began


def download(subject: Subject, mib: int) -> float:
    """Download a body; return the seconds until its last byte."""
    with contextlib.closing(connect(subject.url.removeprefix("http://"))) as client:
        began = time.perf_counter()
        client.request("GET", f"/bench/down?{mib * len(BLOCK)}", headers={"X-Gatepass-Key": KEY})
        answer = client.getresponse()
        view, size = memoryview(bytearray(len(BLOCK))), 0
        while read := answer.readinto(view):
            size += read
        if (answer.status, size) != (200, mib * len(BLOCK)):
            raise SystemExit(f"the download was answered with {answer.status} and {size} bytes")
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory and start-up.")
    parser.add_argument("--mib", type=int, default=1024, help="size of each body")
    mib = parser.parse_args().mib
    own, other = cores()
    table = Table("", "seconds", "peak RSS, MiB", title=f"{mib} MiB up and down")
    with (
        tempfile.TemporaryDirectory() as name,
        vendor(Path(name), other) as upstream,
        gatepass(Path(name), own, upstream) as subject,
    ):
        ready = wait_for(f"{subject.url}/bench/first") - subject.began
        table.add_row("start to first 200", f"{ready:.2f}", f"{subject.peak_rss():.1f}")
        for word, move in (("up", upload), ("down", download)):
            seconds = move(subject, mib)
            table.add_row(f"{mib} MiB {word}", f"{seconds:.2f}", f"{subject.peak_rss():.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
