"""Tokens: fetch them, keep them fresh, replace them when a vendor refuses one.

Knows vendors only as recipes (`model.Grant`). The data plane sees none of this but `model.Tokens`. The middle is pure:
`grant.py`, `expiry.py`, `outcome.py` and `pace.py` do no I/O and hold no clock.
"""

from gateway.tokens.cache import TokenCache
from gateway.tokens.once import fetch_once, probe_once
from gateway.tokens.set import TokenSet
from gateway.tokens.store import MemoryStore, Store

__all__ = ["MemoryStore", "Store", "TokenCache", "TokenSet", "fetch_once", "probe_once"]
