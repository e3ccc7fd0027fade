"""Which clients may call, what they may call, and how much. Knows no vendor and no HTTP."""

from gateway.access.allowance import Admission, Allowance
from gateway.access.certificates import NOBODY, certificate_names
from gateway.access.clients import OPEN, Clients, Holder, LastKey
from gateway.access.counters import DAYS_KEPT, Counter, CounterStore, MemoryCounters, RateState
from gateway.access.escrow_needed import EscrowNeeded
from gateway.access.keys import hash_key, new_key, well_formed
from gateway.access.refetch import SigningKeysNeeded
from gateway.access.state import Access, shared_counters
from gateway.access.usage import Usage

__all__ = [
    "DAYS_KEPT",
    "NOBODY",
    "OPEN",
    "Access",
    "Admission",
    "Allowance",
    "Clients",
    "Counter",
    "CounterStore",
    "EscrowNeeded",
    "Holder",
    "LastKey",
    "MemoryCounters",
    "RateState",
    "SigningKeysNeeded",
    "Usage",
    "certificate_names",
    "hash_key",
    "new_key",
    "shared_counters",
    "well_formed",
]
