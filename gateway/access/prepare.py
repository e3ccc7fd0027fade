"""Prepares what the clients of a configuration may do: one allowance per client and route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.access.allowance import Allowance
from gateway.access.budgets import Budget
from gateway.access.rules import Rules
from gateway.addresses import Networks
from gateway.model import ClientLimit

if TYPE_CHECKING:
    from gateway.access.counters import CounterStore
    from gateway.model import Client, Clock, Config
    from gateway.observe import Metrics


def allowances_of(
    client: Client, config: Config, store: CounterStore, metrics: Metrics, clock: Clock
) -> dict[str, Allowance]:
    """Return the allowances of a client by route, for the routes that it may use."""
    rules, networks = Rules(client.name, client.allow, client.deny), Networks(client.addresses)
    allowances = {}
    for route in config.routes:
        if client.routes is None or route.name in client.routes:
            counted = metrics.client(client.name, route.name)
            allowances[route.name] = Allowance(
                client.name,
                route.name,
                metrics=counted,
                rate_state=store.rate_state(client.name, route.name),
                token_rate_state=store.rate_state(client.name, f"{route.name} tokens"),
                limit=limit_of(client, route.name),
                rules=rules,
                networks=networks,
                budgets=[
                    Budget(client.name, budget, store=store, wall=clock.wall, metrics=counted)
                    for budget in client.budgets
                    if budget.route == route.name
                ],
            )
    return allowances


def limit_of(client: Client, route: str) -> ClientLimit:
    """Return the limits on one route; if several entries apply, the last one wins, field by field."""
    rate = burst = in_flight = None
    for limit in client.limits:
        if limit.routes is None or route in limit.routes:
            rate = rate if limit.rate is None else limit.rate
            burst = burst if limit.burst is None else limit.burst
            in_flight = in_flight if limit.in_flight is None else limit.in_flight
    return ClientLimit(None, rate, burst, in_flight)
