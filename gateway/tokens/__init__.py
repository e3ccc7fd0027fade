"""Tokens: fetch them, refresh them before they expire, replace them when a vendor rejects one.

A vendor is known only as a recipe (`model.Grant`). The data plane knows only the protocol `model.Tokens`. `grant.py`,
`expiry.py`, `outcome.py` and `pace.py` are pure: they do no I/O and hold no clock.
"""

from gateway.tokens.cache import TokenCache
from gateway.tokens.endpoint import endpoints
from gateway.tokens.once import fetch_once, probe_once
from gateway.tokens.set import TokenSet
from gateway.tokens.store import MemoryStore, Store

__all__ = ["MemoryStore", "Store", "TokenCache", "TokenSet", "endpoints", "fetch_once", "probe_once"]
