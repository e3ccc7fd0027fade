"""What `/usage.json` and the status page say of usage: calls, billed calls and money, by client, route and day."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway.access import DAYS_KEPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.access import Usage
    from gateway.model import Money

MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


def this_month() -> str:
    """Return the current month, as `2026-11` (UTC)."""
    return datetime.now(UTC).strftime("%Y-%m")


def has_begun(month: str) -> bool:
    """Whether a month has begun somewhere: other instances' clocks may be a day ahead."""
    return month <= (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m")


def kept_from(month: str) -> str | None:
    """Return the first day of which usage is surely kept, if a month begins before it; otherwise None."""
    first = (datetime.now(UTC) - timedelta(days=DAYS_KEPT - 1)).date().isoformat()
    return first if f"{month}-01" < first else None


def report(month: str, days: Iterable[Usage], prices: Mapping[str, Money | None]) -> dict[str, Any]:
    """Return the usage of a month; `cost` is a text, because money is no binary fraction, and None without a price."""
    rows = [_row(each, prices.get(each.route)) for each in days]
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        total = totals.setdefault((row["client"], row["route"]), {**row, "calls": 0, "billed": 0})
        total.pop("day", None)
        total["calls"] += row["calls"]
        total["billed"] += row["billed"]
        total["cost"] = _cost(total["billed"], prices.get(row["route"]))
    return {"month": month, "kept_from": kept_from(month), "days": rows, "totals": list(totals.values())}


def _row(usage: Usage, price: Money | None) -> dict[str, Any]:
    return {
        **usage._asdict(),
        "cost": _cost(usage.billed, price),
        "currency": price.currency if price is not None else None,
    }


def _cost(calls: int, price: Money | None) -> str | None:
    """Return the exact amount, so that the costs of days add up to the total; with two decimals at least."""
    if price is None:
        return None
    cost = price.amount * calls
    return str(max(cost, cost.quantize(Decimal("0.01")), key=_decimals))


def _decimals(amount: Decimal) -> int:
    return -int(amount.as_tuple().exponent)
