"""Builds the clients of a configuration as the gateway does, for tests that need no socket."""

from __future__ import annotations

from typing import Any, Literal

from gateway.access import Access, Clients
from gateway.model import Address, Client, Config, Route, Upstream
from gateway.observe import Metrics
from tests.kit.clock import FakeClock


def a_route(name: str, authorization: Literal["inject", "pass"] = "inject") -> Route:
    return Route(name, f"/{name}", Upstream("https", "vendor.example", 443), (), authorization=authorization)


ORDERS, LEDGER, PASSING = a_route("orders"), a_route("ledger"), a_route("orders", "pass")


def config_of(*clients: Client, access: Literal["clients", "open"] = "clients", **more: Any) -> Config:
    return Config((Address("127.0.0.1", 0),), None, access, clients, {}, (ORDERS, LEDGER), **more)


def clients_of(
    *clients: Client, access: Literal["clients", "open"] = "clients", clock: FakeClock | None = None, **more: Any
) -> Clients:
    config = config_of(*clients, access=access, **more)
    return Access(config, clock=clock or FakeClock(), metrics=Metrics()).clients(config)
