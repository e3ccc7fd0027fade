"""Compares what a request costs with a committed baseline, in counts that do not depend on the machine's load.

    python -m benchmarks.guard [--update]

Bytecodes (`counting`) depend on Python's minor version and are always counted. Instructions and allocations depend on
the build of Python and are counted if valgrind is installed; also for the compiled gateway, if `make compiled` has made
one. For that, every allocation of Python is made an allocation of the C library. Only the main thread counts, in which
the data plane runs. What it does without requests is subtracted, because the work of timers depends on the machine's
speed. A figure without a baseline is shown and never fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.counting import COUNTED, WARM_UP, Client
from benchmarks.peers import find
from benchmarks.processes import COMPILED, ROOT, c_compiler, is_compiled, render, running, vendor, wait_for
from benchmarks.scenarios import SMALL
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

BASELINE = Path(__file__).parent / "guard.json"
TOLERANCE = 0.05
LONG = 200
"""Requests in one count of instructions."""
SLACK = 0.5
"""A figure below 1 may grow by this, because a share of nearly nothing means nothing."""
Figures = dict[str, float]


def configured(folder: Path, upstream: int) -> tuple[Path, str]:
    """Write the configuration of a gateway; return its path and the gateway's URL."""
    port = free_port()
    ports: dict[str, Any] = {"port": port, "admin": free_port(), "upstream": upstream, "token_port": upstream}
    return render("gatepass.yaml", folder, tls=False, **ports), f"http://127.0.0.1:{port}"


def bytecodes(folder: Path, upstream: int) -> Figures:
    """Return the counts of `benchmarks.counting`, which runs as its own process."""
    config, url = configured(folder, upstream)
    result = folder / "bytecodes.json"
    command = [sys.executable, "-m", "benchmarks.counting", str(config), url, str(result)]
    with (folder / "counting.log").open("wb") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, check=True, timeout=120)
    found = Figures(orjson.loads(result.read_bytes()))
    if not all(found[f"{name}: bytecodes"] for name in COUNTED):
        sys.exit("nothing was counted")
    return found


def instructions(folder: Path, upstream: int, core: int, home: Path) -> Figures:
    """Return machine instructions and allocations per request, of the gateway in `home`."""
    config, url = configured(folder, upstream)
    command = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"),
        *("--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={folder}/counts"),
        *(sys.executable, "-m", "gateway", "serve", "-c", str(config)),
    ]
    environ = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}
    figures: Figures = {}
    with running("counted", url, core, *command, output=folder / "counted.log", environ=environ, home=home) as subject:
        wait_for(f"{url}/bench{SMALL}", seconds=60)
        control(subject.pid, "--instr=on")
        for name in COUNTED:
            client = Client(url, name)
            client.send(WARM_UP)
            dump(subject.pid, folder)
            idle, idle_s = timed(lambda: time.sleep(1), subject.pid, folder)
            busy, busy_s = timed(lambda: client.send(LONG), subject.pid, folder)  # noqa: B023 - called at once
            figures |= {f"{name}: {what}": (busy[what] - idle[what] / idle_s * busy_s) / LONG for what in busy}
    return figures


def timed(does: Callable[[], None], pid: int, folder: Path) -> tuple[Figures, float]:
    """Return what callgrind counts during a call, and how many seconds the call took."""
    began = time.perf_counter()
    does()
    return dump(pid, folder), time.perf_counter() - began


def dump(pid: int, folder: Path) -> Figures:
    """Return what callgrind has counted in the main thread since the last dump."""
    control(pid, "--dump")
    [file] = folder.glob("counts.*-01")
    found = read_dump(file.read_text(encoding="utf-8", errors="replace"))
    for file in folder.glob("counts.*"):
        file.unlink()
    return found


def control(pid: int, order: str) -> None:
    """Send an order to callgrind."""
    subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True, timeout=60)


def read_dump(dump: str) -> Figures:
    """Return the instructions and allocations in a file of callgrind."""
    total = re.search(r"^(?:summary|totals): (\d+)", dump, re.MULTILINE)
    asked = re.findall(r"^cfn=(?:malloc|calloc|realloc)(?:'\d+)?\ncalls=(\d+)", dump, re.MULTILINE)
    return {"instructions": float(total[1]) if total else 0.0, "allocations": float(sum(map(int, asked)))}


def rounded(figures: Figures) -> Figures:
    """Return the figures with the four digits that the baseline keeps."""
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def worse(seen: float, held: float) -> bool:
    """Return whether a figure has grown by more than the tolerance."""
    return seen > held * (1 + TOLERANCE) + (SLACK if held < 1 else 0)


def shown(key: str, figures: Figures, held: Figures) -> Table:
    """Return a table that compares figures with the baseline."""
    table = Table("a request", "seen", "baseline", "", title=f"What a request costs: {key}")
    for name, seen in figures.items():
        base = held.get(name)
        if base is None:
            table.add_row(name, f"{seen:,.1f}", "none", "")
        else:
            change = f"{seen / base - 1:+.1%}" if base >= 1 else f"{seen - base:+.1f}"
            table.add_row(name, f"{seen:,.1f}", f"{base:,.1f}", change, style="red" if worse(seen, base) else "")
    return table


def main() -> None:
    """Count, print the comparison, and exit with 1 if a figure has grown too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the figures as the new baseline")
    update = parser.parse_args().update
    minor, build = ".".join(platform.python_version_tuple()[:2]), f"{platform.python_version()} {platform.machine()}"
    core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="guard-") as name, vendor(Path(name), core) as upstream:
        seen = {minor: rounded(bytecodes(Path(name), upstream))}
        if find("valgrind"):
            seen[build] = rounded(instructions(Path(name), upstream, core, ROOT))
            if is_compiled():
                key = f"{build}, compiled by mypyc {version('mypy')}, {c_compiler()}"
                seen[key] = rounded(instructions(Path(name), upstream, core, COMPILED))
    held: dict[str, Figures] = orjson.loads(BASELINE.read_bytes()) if BASELINE.exists() else {}
    for key, figures in seen.items():
        Console(width=100).print(shown(key, figures, held.get(key, {})))
    if update:
        BASELINE.write_bytes(orjson.dumps(held | seen, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        return
    grown = [
        name for key, found in seen.items() for name, value in found.items()
        if name in held.get(key, {}) and worse(value, held[key][name])
    ]  # fmt: skip
    sys.exit(f"grown by more than {TOLERANCE:.0%}: {', '.join(grown)}" if grown else 0)


if __name__ == "__main__":
    main()
