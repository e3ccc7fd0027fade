"""Amounts of money: `500 EUR`, and numbers of calls or amounts."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from gateway.config.keys.numbers import DECIMAL, count
from gateway.config.keys.section import kind, refuse, revealed
from gateway.model import Money

CURRENCY = re.compile(r"[A-Z]{3}")
MONEY = re.compile(rf"(?P<amount>{DECIMAL.pattern}) (?P<currency>{CURRENCY.pattern})")


def price(value: object) -> Decimal:
    """Return an amount of more than zero, exactly as written."""
    value = revealed(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:.9f}".rstrip("0").rstrip(".")
    if not isinstance(value, str) or not DECIMAL.fullmatch(value) or not Decimal(value):
        refuse("must be an amount of more than zero, as 0.35")
    return Decimal(value)


def currency(value: object) -> str:
    """Return a currency of ISO 4217."""
    value = revealed(value)
    return value if isinstance(value, str) and CURRENCY.fullmatch(value) else refuse("must be a currency, as EUR")


def count_or_money(value: object) -> int | Money:
    """Return a number of calls, or an amount of money."""
    value = revealed(value)
    match = MONEY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and " " in value:
            refuse("must be a number of calls, or an amount with its currency, as 500 EUR")
        return count(value)
    return Money(price(match["amount"]), match["currency"])


Price = Annotated[Decimal, *kind("amount", price, type=["number", "string"], exclusiveMinimum=0)]
Currency = Annotated[str, *kind("currency", currency, type="string", pattern=f"^{CURRENCY.pattern}$")]
_EITHER = [{"type": "integer", "minimum": 1}, {"type": "string"}]
CountOrMoney = Annotated[int | Money, *kind("number or amount", count_or_money, anyOf=_EITHER)]
