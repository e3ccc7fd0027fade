"""Finds credentials whose tokens the vendor's API refuses, although the token endpoint issues them.

A single refusal proves little: some vendors answer 401 where the token lacks a scope. So a credential counts as refused
when a route has passed `REFUSALS` refusals to apps in a row, without any accepted token in between.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model import CredentialStatus, Route
    from gateway.observe import Metrics

REFUSALS = 3
"""Refused answers in a row, after which a credential counts as refused by its vendor."""
_HAS_TOKEN = frozenset({"valid", "static"})


def with_refusals(
    statuses: Iterable[CredentialStatus], routes: Sequence[Route], metrics: Metrics
) -> list[CredentialStatus]:
    """Return the statuses; state, reason and `last_failure` tell where the vendor refuses the token."""
    return [_judged(status, routes, metrics) if status.state in _HAS_TOKEN else status for status in statuses]


def _judged(status: CredentialStatus, routes: Sequence[Route], metrics: Metrics) -> CredentialStatus:
    names = [route.name for route in routes if any(each.credential == status.name for each in route.injections)]
    refused = [each for each in map(metrics.route, names) if each.refused_in_a_row >= REFUSALS]
    if not refused:
        return status
    reason = "; ".join(
        f"{each.upstream} refused the token {each.refused_in_a_row} times in a row (route {each.name})"
        for each in refused
    )
    last = max(each.last_refusal for each in refused)
    return replace(status, state="refused_by_vendor", reason=reason, last_failure=last)
