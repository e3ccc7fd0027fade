"""From a granted token request to a token in the books, and to the life that the answer tells.

Knows the switches that change either: `life`, `same_token`, `single_active`, `expires_in`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gateway.sandbox.switches import Override

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued
    from gateway.sandbox.vendor import Vendor


@dataclass(slots=True)
class Granted:
    """What a token request earned: the vendor's decision before a token is made."""

    life: float
    scopes: frozenset[str] = frozenset()
    service: str = ""
    replaces: Issued | None = None


def issue(vendor: Vendor, granted: Granted) -> tuple[Issued, float]:
    """Return a token, new or the same again, and the seconds that it has left."""
    live = [issued for issued in vendor.ledger.live() if issued.service == granted.service]
    if vendor.switches.same_token and live:
        return live[-1], round(live[-1].expires_at - vendor.clock.monotonic(), 3)
    doomed = live if vendor.switches.single_active else []
    for issued in [*doomed, *([granted.replaces] if granted.replaces else [])]:
        issued.revoked = True
    life = vendor.switches.life or granted.life
    issued = vendor.make_token(granted, life)
    vendor.ledger.add(issued)
    vendor.counters.tokens_issued += 1
    return issued, life


def write_expiry(
    answer: dict[str, Any], field: str, left: float, override: Override | Literal["missing"] | None
) -> None:
    """Write the life into the answer: the true one, whole where it is whole, or what was switched on."""
    if isinstance(override, Override):
        answer[field] = override.value
    elif override is None:
        answer[field] = int(left) if left == int(left) else left
