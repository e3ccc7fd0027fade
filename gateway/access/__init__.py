"""Who may call and what they may call. Knows the model and the errors; no HTTP, no tokens, no I/O."""

from gateway.access.clients import OPEN, Clients
from gateway.access.keys import hash_key, new_key, well_formed

__all__ = ["OPEN", "Clients", "hash_key", "new_key", "well_formed"]
