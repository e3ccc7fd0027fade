"""What knowing a client costs: CPU per request with access open, with a key, and with rules, rate and budget as well.

    python -m benchmarks.access [--requests 200000]

Runs the very calls of the hot path (identify, admit, release) on one core, without sockets, so that the figure is the
cost of access and of nothing else. Exit status 1 when a known key, a rate check and a budget check together cost more
than `LIMIT_US` over open access, or a remembered pass more than `PASS_LIMIT_US` over a key.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace
from time import monotonic, process_time
from typing import Literal

from rich.console import Console
from rich.table import Table

from gateway.access import Access, Clients, hash_key
from gateway.clock import SystemClock
from gateway.model import Address, Client, ClientBudget, ClientLimit, Config, Route, Secret, Upstream
from gateway.observe import Metrics

KEY = b"gp_bench-key-of-no-value"
LIMIT_US = 3.0
PASS_LIMIT_US = 3.0
"""A remembered pass over a key."""
PASS = "a remembered pass"
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
    PASS: KNOWN,
    "the same, with rules": replace(LIMITED, allow=("GET,POST /bench/v1/**",), deny=("/bench/v1/admin/**",)),
}


def clients_of(client: Client | None) -> Clients:
    """Return what the gateway builds for a configuration with this client; none: access is open."""
    access: Literal["clients", "open"] = "open" if client is None else "clients"
    config = Config(
        (Address("127.0.0.1", 0),),
        None,
        access,
        (client,) if client else (),
        {},
        (ROUTE,),
        app_token_key=Secret("a key of no value, for the bench"),
    )
    return Access(config, clock=SystemClock(), metrics=Metrics()).clients(config)


def pass_of(clients: Clients) -> bytes:
    """Return a pass of the client."""
    return asyncio.run(clients.issue(clients.holder((KEY,), ROUTE, frozenset()), ROUTE))[0].encode()


def round_of(clients: Clients, presented: bytes, requests: int) -> float:
    """Return CPU microseconds per request; each on a connection of its own, which remembers no key."""
    path = "/bench/v1/checks/7f4c2a"
    began = process_time()
    for _ in range(requests):
        allowance = clients.identify(presented, None, ROUTE)
        allowance.check("GET", path, "10.0.0.1")
        allowance.admit(monotonic()).release(200)
    return (process_time() - began) / requests * 1e6


def main() -> None:
    """Measure, print, and say whether the limit holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access", description="The price of access control.")
    parser.add_argument("--requests", type=int, default=100_000, help="per round and subject")
    requests = parser.parse_args().requests
    built = {name: clients_of(client) for name, client in SUBJECTS.items()}
    presented = {name: pass_of(clients) if name == PASS else KEY for name, clients in built.items()}
    rounds: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(ROUNDS):  # interleaved, so that a neighbour on the machine hurts all alike
        for name, clients in built.items():
            rounds[name].append(round_of(clients, presented[name], requests))
    figures = {name: min(found) for name, found in rounds.items()}  # what disturbs a round only ever adds
    bare = figures["open access"]
    table = Table("", "CPU per request, µs", "over open access, µs", title="Access")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.2f}", f"{figure - bare:+.2f}")
    Console().print(table)
    cost, extra = figures["a key, a rate and a budget"] - bare, figures[PASS] - figures["a key"]
    if cost > LIMIT_US:
        sys.exit(f"a key, a rate and a budget cost {cost:.2f} µs, more than {LIMIT_US:g} µs")
    if extra > PASS_LIMIT_US:
        sys.exit(f"{PASS} costs {extra:.2f} µs more than a key, more than {PASS_LIMIT_US:g} µs")


if __name__ == "__main__":
    main()
