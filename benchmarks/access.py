"""Measures the CPU that access control costs per request: open access, a key, and a key with rules, rate and budget.

    python -m benchmarks.access [--requests 200000]

Calls what the hot path calls (identify, check, admit, release) on one core, without sockets, so that the figure
contains nothing but access control. The exit status is 1 if a known key, a rate check and a budget check together cost
more than `LIMIT_US` over open access, or if a remembered pass costs more than `PASS_LIMIT_US` over a key.
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
"""The most that a remembered pass may cost over a key."""
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
    """Return what the gateway builds for a configuration with this client; without a client, access is open."""
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
    """Return CPU microseconds per request. Every request has its own connection, so no key is remembered."""
    path = "/bench/v1/checks/7f4c2a"
    began = process_time()
    for _ in range(requests):
        allowance = clients.identify(presented, None, ROUTE)
        allowance.check("GET", path, "10.0.0.1")
        allowance.admit(monotonic()).release(200)
    return (process_time() - began) / requests * 1e6


def main() -> None:
    """Measure, print the table, and exit with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access", description="The price of access control.")
    parser.add_argument("--requests", type=int, default=100_000, help="per round and subject")
    requests = parser.parse_args().requests
    built = {name: clients_of(client) for name, client in SUBJECTS.items()}
    presented = {name: pass_of(clients) if name == PASS else KEY for name, clients in built.items()}
    rounds: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(ROUNDS):  # interleaved, so that other load on the machine affects all subjects equally
        for name, clients in built.items():
            rounds[name].append(round_of(clients, presented[name], requests))
    figures = {name: min(found) for name, found in rounds.items()}  # other load can only make a round dearer
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
