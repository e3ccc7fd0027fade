"""What knowing a client costs: CPU per request with access open, with a key, and with rules, rate and budget as well.

    python -m benchmarks.access [--requests 200000]

Runs the very calls of the hot path (identify, admit, release) on one core, without sockets, so that the figure is the
cost of access and of nothing else. Exit status 1 when a known key, a rate check and a budget check together cost more
than `LIMIT_US` over open access.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from time import monotonic, process_time
from typing import Literal

from rich.console import Console
from rich.table import Table

from gateway.access import Access, Clients, hash_key
from gateway.clock import SystemClock
from gateway.model import Address, Client, ClientBudget, ClientLimit, Config, Route, Upstream
from gateway.observe import Metrics

KEY = b"gp_bench-key-of-no-value"
LIMIT_US = 3.0
ROUNDS = 7
PLENTY = 10**9
ROUTE = Route("bench", "/bench", Upstream("https", "vendor.example", 443), ())
KNOWN = Client("bench", (hash_key(KEY),), frozenset({"bench"}))
LIMITED = replace(
    KNOWN,
    limits=(ClientLimit(rate=1e9, burst=PLENTY, in_flight=PLENTY),),
    budgets=(ClientBudget("bench", "day", hard=PLENTY, soft=PLENTY),),
)
SUBJECTS = {
    "open access": None,
    "a key": KNOWN,
    "a key, a rate and a budget": LIMITED,
    "the same, with rules": replace(LIMITED, allow=("GET,POST /bench/v1/**",), deny=("/bench/v1/admin/**",)),
}


def clients_of(client: Client | None) -> Clients:
    """Return what the gateway builds for a configuration with this client; none: access is open."""
    access: Literal["clients", "open"] = "open" if client is None else "clients"
    config = Config(Address("127.0.0.1", 0), None, access, (client,) if client else (), {}, (ROUTE,))
    return Access(config, clock=SystemClock(), metrics=Metrics()).clients(config)


def round_of(clients: Clients, requests: int) -> float:
    """Return CPU microseconds per request."""
    path = "/bench/v1/checks/7f4c2a"
    began = process_time()
    for _ in range(requests):
        allowance = clients.identify(KEY, None, ROUTE)
        allowance.check("GET", path, "10.0.0.1")
        allowance.admit(monotonic()).release(200)
    return (process_time() - began) / requests * 1e6


def main() -> None:
    """Measure, print, and say whether the limit holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access", description="The price of access control.")
    parser.add_argument("--requests", type=int, default=100_000, help="per round and subject")
    requests = parser.parse_args().requests
    built = {name: clients_of(client) for name, client in SUBJECTS.items()}
    rounds: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(ROUNDS):  # interleaved, so that a neighbour on the machine hurts all alike
        for name, clients in built.items():
            rounds[name].append(round_of(clients, requests))
    figures = {name: min(found) for name, found in rounds.items()}  # what disturbs a round only ever adds
    bare = figures["open access"]
    table = Table("", "CPU per request, µs", "over open access, µs", title="Access")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.2f}", f"{figure - bare:+.2f}")
    Console().print(table)
    cost = figures["a key, a rate and a budget"] - bare
    sys.exit(cost > LIMIT_US and f"a key, a rate and a budget cost {cost:.2f} µs, more than {LIMIT_US:g} µs")


if __name__ == "__main__":
    main()
