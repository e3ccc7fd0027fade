"""`routes --client NAME METHOD PATH`: why a client may, or may not, do something. Uses the gateway's own check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.model import Client, Config, Route


@dataclass(frozen=True, slots=True)
class Decision:
    """What would happen, and the lines that say why."""

    allowed: bool
    lines: tuple[str, ...]


def decide(config: Config, name: str, method: str, target: str, host: str = "") -> Decision:
    """Return what a client gets that sends `method` with `target`, a path and perhaps a query, to the name `host`.

    Raises click.UsageError when there is no such client. Rates, requests in flight and budgets are told, not judged:
    how they stand only the running gateway knows. Nor is it known from where the client calls.
    """
    from gateway.errors import ExchangeError

    client = next((each for each in config.clients if each.name == name), None)
    if client is None:
        known = ", ".join(each.name for each in config.clients) or "none"
        raise click.UsageError(f"there is no client {name!r}; there are: {known}")
    lines: list[str] = []
    try:
        route, vendor = _judge(config, client, method, (target, host), lines)
    except ExchangeError as error:
        reason = f" ({error.reason})" if error.reason else ""
        return Decision(False, (*lines, f"refused: {error.status} {error.code}: {error.detail}{reason}"))
    if not vendor:
        return Decision(True, (*lines, "allowed"))
    return Decision(True, (*lines, *_limits(client, route), f"allowed: goes to {route.upstream.authority}"))


def _judge(config: Config, client: Client, method: str, sent: tuple[str, str], lines: list[str]) -> tuple[Route, bool]:
    """Check a request as the gateway does; return its route, and whether the vendor would get the request."""
    from gateway.access import Access
    from gateway.clock import SystemClock
    from gateway.observe import Metrics
    from gateway.proxy.app_tokens import not_served
    from gateway.proxy.permission import check_permission
    from gateway.proxy.request import RequestHead
    from gateway.proxy.routing import PathRules, RouteTable, check_path, host_of, split_target, with_prefix
    from gateway.tokens import endpoints

    target, host = sent
    RequestHead(f"{method} {target} HTTP/1.1".encode())
    path, _ = split_target(target)
    check_path(path)
    named = next((route for route in config.routes if host_of([host]) in route.hosts), None)
    if named is not None:
        path = with_prefix(path, named.prefix)
        route, rest = named, path[len(named.prefix) :]
        lines.append(f"route {route.name}: {host_of([host])}, {route.prefix}")
    else:
        route, rest = RouteTable((route.prefix, route) for route in config.routes).match(path)
        lines.append(f"route {route.name}: {route.prefix}")
    offline = _offline(config)
    clients = Access(offline, clock=SystemClock(), metrics=Metrics()).clients(offline)
    allowance = clients.allowance(client.name, route.name)
    if config.access == "open":
        lines.append("access is open: no client is authenticated")
    else:
        lines.append(f"addresses of {client.name}: {', '.join(client.addresses) or 'any'}")
    endpoint = endpoints(route, config.credentials).get(rest)
    if endpoint is not None and route.app_tokens and endpoint.method == method:
        lines.append("the gateway answers this token request itself, with a token of its own")
        return route, False
    if endpoint is not None:
        raise not_served(route, endpoint)
    check_permission(
        allowance, route, PathRules(route.allow, route.deny), method=method, path=path, rest=rest, remote=None
    )
    if allowance.rules is not None:
        lines.append(f"rule of {client.name}: {allowance.rules.allowing(method, path)}")
    return route, True


def _offline(config: Config) -> Config:
    """Return the configuration without what would open a file or a socket."""
    from dataclasses import replace

    return replace(config, issuers=(), state_file=None)


def _limits(client: Client, route: Route) -> list[str]:
    from gateway.access.prepare import limit_of

    limit = limit_of(client, route.name)
    burst = f", burst {limit.burst}" if limit.burst else ""
    parts = [f"{limit.rate:g} requests per second{burst}"] if limit.rate else []
    parts += [f"{limit.in_flight} requests in flight"] if limit.in_flight else []
    for budget in client.budgets:
        if budget.route == route.name:
            told = [f"{word} {calls}" for word, calls in (("soft", budget.soft), ("hard", budget.hard)) if calls]
            parts.append(f"calls per {budget.per}: {', '.join(told)}")
    return [f"limits of {client.name}: {'; '.join(parts) or 'none'}"]


def explain(config: Config, name: str, method: str, target: str, host: str) -> bool:
    """Print the decision; return whether it is a yes."""
    decision = decide(config, name, method, target, host)
    for line in decision.lines:
        click.echo(line)
    return decision.allowed
