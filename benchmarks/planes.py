"""Measures what it costs when another proxy asks Gatepass for the token of each request.

    python -m benchmarks.planes [--rounds 5] [--seconds 2]

First, how many questions one Gatepass answers on one core: its CPU time per question, and the rate over 32 connections
to its Unix socket. Then nginx that asks (`auth_request`) beside nginx that has the token in its configuration: CPU of
nginx and of Gatepass per request, and p99. Each process has one core. With fewer than three cores, nginx and Gatepass
share one, so the rate of nginx means little; CPU per request does not depend on that.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.beside import compare, place_from_arguments
from benchmarks.processes import gateway_home, is_compiled, render, running, wait_for
from benchmarks.scenarios import HEADERS, SMALL
from tests.kit.ports import free_port

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Place
    from benchmarks.processes import Subject

CONNECTIONS = 32
QUESTION = "\r\n".join(
    [
        "GET /ask/bench HTTP/1.1",
        "Host: gatepass",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
        "X-Original-Method: GET",
        f"X-Original-URI: /bench{SMALL}",
        "X-Forwarded-For: 127.0.0.1",
        "",
        "",
    ]
).encode()


@contextlib.contextmanager
def gatepass(here: Place) -> Iterator[Subject]:
    """Run a gateway that is asked."""
    port, admin = free_port(), free_port()
    values: dict[str, Any] = {
        "port": port,
        "admin": admin,
        "upstream": here.upstream,
        "token_port": here.upstream,
        "uid": os.getuid(),
    }
    config = render("planes-gatepass.yaml", here.folder, **values)
    command = (sys.executable, "-m", "gateway", "serve", "-c", str(config))
    output = here.folder / "gatepass.out"
    with running("gatepass", "", here.core, *command, output=output, home=gateway_home()) as subject:
        wait_for(f"http://127.0.0.1:{port}/bench{SMALL}")
        while not (here.folder / "planes.sock").exists():  # opened last
            time.sleep(0.01)
        yield subject


@contextlib.contextmanager
def nginx(here: Place, *, asks: bool) -> Iterator[Subject]:
    """Run nginx, which asks or has the token itself."""
    name, port = "asking" if asks else "constant", free_port()
    config = render(
        "planes-nginx.conf", here.folder, f"{name}.conf", name=name, port=port, upstream=here.upstream, asks=asks
    )
    command = (peers.find("nginx") or "nginx", "-p", str(here.folder), "-c", str(config))
    url = f"http://127.0.0.1:{port}/bench"
    with running(name, url, here.core, *command, output=here.folder / f"{name}.out") as subject:
        wait_for(url + SMALL)
        yield subject


def questions(path: Path, seconds: float) -> int:
    """Ask over `CONNECTIONS` connections, one question at a time on each; return how many were answered with 200."""
    ready, answered, end = selectors.DefaultSelector(), 0, time.perf_counter() + seconds
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(path))
            ready.register(sock, selectors.EVENT_READ, sock)
            sock.sendall(QUESTION)
        while time.perf_counter() < end:
            for key, _ in ready.select():
                answer = key.data.recv(4096)
                if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\r\n\r\n"):
                    raise SystemExit(f"not an answer with a token: {answer[:80]!r}")
                answered += 1
                key.data.sendall(QUESTION)
    return answered


def main() -> None:
    """Measure and print."""
    with place_from_arguments("benchmarks.planes", __doc__) as (here, options), contextlib.ExitStack() as stack:
        gateway = stack.enter_context(gatepass(here))
        Console().print(asked(gateway, here.folder / "planes.sock", options))
        proxies = [stack.enter_context(nginx(here, asks=asks)) for asks in (False, True)]
        costs = compare(gateway, proxies, CONNECTIONS, here, options)
    table = Table("", "nginx, CPU µs", "Gatepass, CPU µs", "p99, ms", title="nginx, small JSON, GET")
    titles = {"asking": "asks Gatepass", "constant": "its own header"}
    for name, cost in costs.items():
        table.add_row(titles[name], f"{cost.cpu_us:.1f}", f"{cost.gateway_us:.1f}", f"{cost.p99_ms:.1f}")
    Console().print(table)


def asked(gateway: Subject, path: Path, options: argparse.Namespace) -> Table:
    """Return the table of questions."""
    cpu, rates = [], []
    questions(path, 1.0)
    for _ in range(options.rounds):
        before = gateway.cpu()
        answered = questions(path, options.seconds)
        cpu.append((gateway.cpu() - before) / answered * 1e6)
        rates.append(answered / options.seconds)
    how = "compiled" if is_compiled() else "not compiled"
    table = Table("", "CPU per question, µs", "questions a second on one core", "seen", title=f"Questions ({how})")
    usual = statistics.median(cpu)
    spread = f"± {(max(cpu) - min(cpu)) / usual / 2:.0%}"
    table.add_row(
        "Gatepass", f"{usual:.1f} {spread}", f"{1e6 / usual:,.0f} {spread}", f"{statistics.median(rates):,.0f}"
    )
    return table


if __name__ == "__main__":
    main()
