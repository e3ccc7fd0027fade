"""Measures what it costs Envoy to use tokens that Gatepass pushes.

    python -m benchmarks.pushed [--rounds 5] [--seconds 2]

Three Envoys run at the same time and are put under load in turn: with a constant token; with the token from a file that
a running Gatepass writes; and with reports of refused tokens as well, as in deploy/planes/envoy-sds. The figures are
CPU time of Envoy and of Gatepass per request, and p99.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.beside import compare, place_from_arguments
from benchmarks.processes import ROOT, gateway_home, render, running, wait_for
from benchmarks.scenarios import SMALL
from tests.kit.ports import free_port

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
    with place_from_arguments("benchmarks.pushed", __doc__) as (here, options), contextlib.ExitStack() as stack:
        gateway = stack.enter_context(gatepass(here))
        proxies = [stack.enter_context(envoy(here, how)) for how in TITLES]
        costs = compare(gateway, proxies, CONNECTIONS, here, options)
    table = Table("Envoy, small JSON, GET", "Envoy, CPU µs", "Gatepass, CPU µs", "requests/s", "p99, ms")
    for name, (cpu, beside, rate, p99) in costs.items():
        table.add_row(TITLES[name], f"{cpu:.1f}", f"{beside:.2f}", f"{rate:,.0f}", f"{p99:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
