"""How file descriptors are shared between connections of apps and connections to vendors.

A request needs at most one connection to a vendor, so as many as there are connections of apps are enough. Only idle
connections can exceed that, where there are many pools: while descriptors are short, the one that has been idle longest
is closed for each new connection, whichever pool it belongs to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model import Config

_log = get_logger("gatepass")
_FETCHES_KEPT: Final = 64
"""Token requests at a time for which descriptors are kept in any case; at the start, each credential sends one."""
REFUSED: Final = 256
"""Connections of apps above a bound that get a 503 at the same time."""


def room_for_apps(descriptors: int, pools: int) -> int:
    """Return how many of the descriptors connections of apps may take; `pools` is the size of all pools together.

    At most half are kept for vendors, because no request needs more than one connection to a vendor.
    """
    return max(1, descriptors - min(pools, descriptors // 2))


def room_for_vendors(descriptors: int, pools: int, connections: int) -> int | None:
    """Return how many connections all vendors together may have; None if full pools fit twice.

    `connections` is the bound on connections of apps.
    """
    limit = descriptors - min(room_for_apps(descriptors, pools), connections + REFUSED)
    return limit if limit < 2 * pools else None


class Occupant:
    """What a pool is to the room: connections, of which idle ones can be closed."""

    @property
    def size(self) -> int:
        """Connections that it may have at most."""
        raise NotImplementedError

    @property
    def descriptors(self) -> int:
        """Connections that are open, being opened or being closed."""
        raise NotImplementedError

    @property
    def longest_idle(self) -> float:
        """Loop time since when its longest idle connection is idle; infinite if none is idle."""
        raise NotImplementedError

    def evict(self) -> None:
        """Close its longest idle connection at once."""
        raise NotImplementedError


class VendorRoom:
    """The connections to all vendors together."""

    def __init__(self, descriptors: int | None = None) -> None:
        """Build a room; `descriptors` are for connections of apps and to vendors together, None for any number."""
        self._descriptors = descriptors
        self.limit: int | None = None
        """How many there may be; None: any number."""
        self.pools: Callable[[], Iterable[Occupant]] = tuple
        """Returns every pool that may hold connections."""

    def divide(self, config: Config, occupants: Iterable[Occupant]) -> int | None:
        """Set how many connections vendors may have; return how many apps may have, None for any number.

        `occupants` are the pools of the configuration.
        """
        if self._descriptors is None:
            return None
        pools, connections = sum(pool.size for pool in occupants), config.limits.connections
        fetches = max(0, len(config.credentials) - _FETCHES_KEPT)
        descriptors = self._descriptors - min(fetches, self._descriptors // 4)
        self.limit = room_for_vendors(descriptors, pools, connections)
        room = room_for_apps(descriptors, pools)
        if room < connections:
            _log.warning("few_descriptors", connections=connections, fit=room, pools=pools)
        return room

    def make(self) -> None:
        """Close idle connections until no more than `limit` are open, the one that is being opened included."""
        if self.limit is None:
            return
        pools = list(self.pools())
        surplus = sum(pool.descriptors for pool in pools) - self.limit
        while surplus > 0 and self._evict(pools):
            surplus -= 1

    def evict(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        return self._evict(list(self.pools()))

    @staticmethod
    def _evict(pools: list[Occupant]) -> bool:
        oldest = min(pools, key=lambda pool: pool.longest_idle, default=None)
        if oldest is None or oldest.longest_idle == math.inf:
            return False
        oldest.evict()
        return True
