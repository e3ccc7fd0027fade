"""The store that several instances share: Valkey or Redis. Imported only if the configuration has a `store` block.

Other packages use `client.py`. `connection.py` alone sends commands with redis-py; other modules only catch its errors.
No request with a valid token and a granted call waits for the store.
"""

from gateway.store.client import SharedStore
from gateway.store.script import Script
from gateway.store.sealing import Sealing

__all__ = ["Script", "Sealing", "SharedStore"]
