"""Clients and issuers: who may call, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.keys.client import ClientSection
    from gateway.config.keys.issuer import IssuerSection


def client(keys: ClientSection, prices: Mapping[str, model.Money | None]) -> model.Client:
    """Return the client of a section; `prices` by route turn budgets in money into numbers of calls."""
    hashes = keys.keys_sha256 or ((keys.key_sha256,) if keys.key_sha256 else ())
    return model.Client(
        name=keys.name,
        keys_sha256=(*hashes, *(key.sha256 for key in keys.keys)),
        routes=_names(keys.routes),
        key_ends=tuple((key.sha256, key.expires) for key in keys.keys if key.expires is not None),
        jwt=tuple(model.ClientClaims(each.issuer, each.claims) for each in keys.jwt),
        certificates=keys.certificates,
        addresses=keys.addresses,
        allow=keys.allow,
        deny=keys.deny,
        limits=tuple(
            model.ClientLimit(_names(each.routes), each.rate, each.burst, each.in_flight) for each in keys.limits
        ),
        budgets=tuple(
            model.ClientBudget(
                each.route,
                each.per,
                _calls(each.hard, prices[each.route]),
                _calls(each.soft, prices[each.route]),
                _calls(each.outage_allowance, prices[each.route]) or 0,
            )
            for each in keys.budgets
        ),
    )


def _calls(limit: int | model.Money | None, price: model.Money | None) -> int | None:
    """Return how many calls an amount pays for; a number of calls as it is."""
    if not isinstance(limit, model.Money) or price is None:
        return limit if isinstance(limit, int) else None
    return int(limit.amount / price.amount)


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def issuer(name: str, keys: IssuerSection, way: model.Egress | None) -> model.Issuer:
    """Return an issuer, whose keys are fetched through the proxy `way`."""
    return model.Issuer(name=name, egress=way, **keys.model_dump())
