"""When an instance may request a token while the shared store is away: its rank among the instances decides. Pure.

An instance that was the only one before the outage (`members` is 1) never waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model import Credential

SPARE = 1.05
"""A slot is this many times `min_interval`, so that a late and a punctual request keep the interval between them."""
LATEST = 0.4
"""Latest start of a request in its slot, as a fraction of `min_interval`."""
PUNCTUAL = 0.001
"""Seconds before a slot that already count as part of it, because clocks are not exact."""
STEP = 1.0
"""Seconds between the requests of two ranks when a vendor accepts only the newest token."""


def alone_wait(
    credential: Credential, *, members: int, rank: int, wall: float | None, left: float, margin: float, bare: float,
    renews: bool,
) -> float:  # fmt: skip
    """Return the seconds until this instance may request a token by itself; 0 if it may now.

    Args:
        credential: its settings.
        members: number of live instances before the outage.
        rank: the place of this instance among them, from 0.
        wall: the store's clock in seconds since the epoch, nearly the same on all instances; None if it is not known.
        left: remaining lifetime of the token in use in seconds; 0 without a token.
        margin: seconds before its end at which the token would be renewed.
        bare: seconds for which there has been no token.
        renews: whether this instance fetched the last token.
    """
    if members <= 1:
        return 0.0
    if credential.single_active_token and not renews:
        # A new token ends the one that the others use, so only the instance that fetched the last one renews it.
        return left if left > 0 else max(0.0, rank * max(STEP, credential.min_interval) - bare)
    if credential.min_interval > 0 and wall is not None:
        return _until_slot(wall, credential.min_interval, members, rank)
    return max(0.0, left - margin * (1 - rank / (2 * members))) if left > 0 else 0.0


def _until_slot(wall: float, interval: float, members: int, rank: int) -> float:
    """Return the seconds until this rank's next slot; the ranks take turns by the store's clock."""
    slot = interval * SPARE
    phase = (wall - rank * slot) % (members * slot)
    wait = members * slot - phase
    return 0.0 if phase <= interval * LATEST or wait < PUNCTUAL else wait
