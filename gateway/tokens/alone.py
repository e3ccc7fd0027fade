"""How instances share a vendor's limits while the shared store is away: each goes by its rank. Pure.

An instance that was alone before the outage (`members` is 1) waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import Credential

SPARE = 1.05
"""A slot is this many times `min_interval`, so that a late request and a punctual one are never too close together."""
LATEST = 0.4
"""A request may start this late in its slot, as a share of `min_interval`."""
PUNCTUAL = 0.001
"""Seconds before a slot that count as its beginning, because clocks are not exact."""
STEP = 1.0
"""Seconds between the requests of two ranks when a vendor accepts only the newest token."""


def alone_wait(
    credential: Credential, *, members: int, rank: int, wall: float | None, left: float, margin: float, bare: float,
    renews: bool,
) -> float:  # fmt: skip
    """Return the seconds until this instance may request a token for itself; 0 for now.

    Args:
        credential: its settings.
        members: instances before the outage.
        rank: the place of this one among them.
        wall: the store's clock as far as is known; the same for all instances.
        left: remaining lifetime of the token in use, 0 without one.
        margin: how long before its end the token would be renewed.
        bare: seconds for which there has been no token.
        renews: this instance fetched the last token.
    """
    if members <= 1:
        return 0.0
    if credential.single_active_token and not renews:
        # A new token would end the one that the others use: first the instance that fetched the last one.
        return left if left > 0 else max(0.0, rank * max(STEP, credential.min_interval) - bare)
    if credential.min_interval > 0 and wall is not None:
        return _until_slot(wall, credential.min_interval, members, rank)
    return max(0.0, left - margin * (1 - rank / (2 * members))) if left > 0 else 0.0


def _until_slot(wall: float, interval: float, members: int, rank: int) -> float:
    """Return the seconds until the next slot of this rank: the instances take turns, by the store's clock."""
    slot = interval * SPARE
    phase = (wall - rank * slot) % (members * slot)
    wait = members * slot - phase
    return 0.0 if phase <= interval * LATEST or wait < PUNCTUAL else wait
