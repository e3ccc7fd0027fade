"""Measures what it costs Envoy to use tokens that Gatepass pushes.

    python -m benchmarks.pushed [--rounds 5] [--seconds 2]

Three Envoys run at the same time and are put under load in turn: with a constant token; with the token from a file that
a running Gatepass writes; and with reports of refused tokens as well, as in deploy/planes/envoy-sds. The figures are
CPU time of Envoy and of Gatepass per request, and p99.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import load, peers
from benchmarks.processes import ROOT, cores, free_port, gateway_home, render, running, wait_for
from benchmarks.scenarios import HEADERS, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers import Place
    from benchmarks.processes import Subject

CONNECTIONS = 64
SHIPPED = ROOT / "deploy" / "planes" / "envoy-sds" / "envoy.yaml"
TITLES = {
    "constant": "constant token",
    "files": "token from a file",
    "reports": "the same, with reports of refused tokens",
}
FIRST_FILE = 30.0
"""Most seconds until Gatepass has written the file."""


def shipped_filters() -> str:
    """Return the filters of the shipped configuration that belong to reports, as YAML."""
    clusters = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["static_resources"]["clusters"]
    (options,) = next(each for each in clusters if each["name"] == "idfy")["typed_extension_protocol_options"].values()
    return yaml.safe_dump([each for each in options["http_filters"] if each["name"] not in {"token", "codec"}])


@contextlib.contextmanager
def gatepass(here: Place) -> Iterator[Subject]:
    """Run a gateway that pushes, until its token is in the file."""
    values: dict[str, Any] = {"port": free_port(), "token_port": here.upstream, "uid": os.getuid()}
    config = render("pushed-gatepass.yaml", here.folder, **values)
    command = (sys.executable, "-m", "gateway", "serve", "-c", str(config))
    output = here.folder / "gatepass.out"
    with running("gatepass", "", here.core, *command, output=output, home=gateway_home()) as subject:
        file, end = here.folder / "sds" / "bench.json", time.monotonic() + FIRST_FILE
        while not file.exists() or "withdrawn" in file.read_text(encoding="utf-8"):
            if time.monotonic() > end:
                raise SystemExit(output.with_suffix(".err").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.05)
        yield subject


@contextlib.contextmanager
def envoy(here: Place, how: str) -> Iterator[Subject]:
    """Run one Envoy."""
    port = free_port()
    filters = textwrap.indent(shipped_filters(), " " * 12)
    values: dict[str, Any] = {
        "how": how,
        "port": port,
        "upstream": here.upstream,
        "lines": here.folder / f"{how}.lines",
    }
    config = render("pushed-envoy.yaml", here.folder, f"{how}.yaml", filters=filters, **values)
    options = ("--concurrency", "1", "--disable-hot-restart", "-l", "error")
    command = (peers.find("envoy") or "envoy", "-c", str(config), *options)
    url = f"http://127.0.0.1:{port}/bench"
    with running(how, url, here.core, *command, output=here.folder / f"{how}.out") as subject:
        wait_for(url + SMALL)
        yield subject


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pushed", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of a round")
    options = parser.parse_args()
    core, other = cores()
    os.sched_setaffinity(0, {other})
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        here = stack.enter_context(peers.place(folder, core, other, tls=False, token_life=3600))
        gateway = stack.enter_context(gatepass(here))
        proxies = [stack.enter_context(envoy(here, how)) for how in TITLES]
        Console().print(compared(gateway, proxies, folder, options))


def compared(gateway: Subject, proxies: list[Subject], folder: Path, options: argparse.Namespace) -> Table:
    """Return the table of the three."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {proxy.name: [] for proxy in proxies}
    for _ in range(options.rounds):
        for proxy in proxies:
            before, others = proxy.cpu(), gateway.cpu()
            request = load.Request(proxy.url + SMALL, HEADERS)
            seen = load.saturate(request, seconds=options.seconds, connections=CONNECTIONS, folder=folder)
            if seen.wrong:
                raise SystemExit(f"{proxy.name}: {seen.wrong} requests went wrong: {seen.complaint}")
            spent, beside = (proxy.cpu() - before) / seen.requests, (gateway.cpu() - others) / seen.requests
            rows[proxy.name].append((spent * 1e6, beside * 1e6, seen.requests / seen.seconds, seen.p99 * 1e3))
    table = Table("Envoy, small JSON, GET", "Envoy, CPU µs", "Gatepass, CPU µs", "requests/s", "p99, ms")
    for name, found in rows.items():
        cpu, beside, rate, p99 = (statistics.median(column) for column in zip(*found, strict=True))
        table.add_row(TITLES[name], f"{cpu:.1f}", f"{beside:.2f}", f"{rate:,.0f}", f"{p99:.1f}")
    return table


if __name__ == "__main__":
    main()
