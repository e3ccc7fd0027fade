"""What calls cost: a route's price, and amounts of money."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal  # noqa: TC003 - pydantic reads it at run time


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a currency."""

    amount: Decimal
    currency: str
    """ISO 4217, as `EUR`."""

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"
