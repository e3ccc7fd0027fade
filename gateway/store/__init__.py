"""The store that several instances share: Valkey or Redis. Imported only if the configuration has a `store` block.

`client.py` is what others use; `connection.py` alone knows redis-py. Nothing of a request waits for the store.
"""

from gateway.store.client import SharedStore
from gateway.store.script import Script
from gateway.store.sealing import Sealing

__all__ = ["Script", "Sealing", "SharedStore"]
