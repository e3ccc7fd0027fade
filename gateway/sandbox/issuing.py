"""Issues a token for an accepted token request, and writes its lifetime into the answer.

Implements the switches `life`, `same_token`, `single_active` and `expires_in`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway.sandbox.switches import Override

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued
    from gateway.sandbox.rules import Granted, VendorRules


def issue(vendor: VendorRules, granted: Granted) -> tuple[Issued, float]:
    """Return a new token, or the current one again, and its remaining lifetime in seconds."""
    live = [issued for issued in vendor.ledger.live() if issued.service == granted.service]
    if vendor.switches.same_token and live:
        return live[-1], round(live[-1].expires_at - vendor.clock.monotonic(), 3)
    revoked = live if vendor.switches.single_active else []
    for issued in [*revoked, *([granted.replaces] if granted.replaces else [])]:
        issued.revoked = True
    life = vendor.switches.life or granted.life
    issued = vendor.make_token(granted, life)
    vendor.ledger.add(issued)
    vendor.counters.tokens_issued += 1
    return issued, life


def write_expiry(
    answer: dict[str, Any], field: str, left: float, override: Override | Literal["missing"] | None
) -> None:
    """Write the lifetime in seconds into the answer, or the value of the switch `expires_in`."""
    if isinstance(override, Override):
        answer[field] = override.value
    elif override is None:
        answer[field] = int(left) if left == int(left) else left
