"""Other proxies as data planes: they forward the requests of apps, and get the tokens from Gatepass.

A plane asks for each request, or the tokens of its credentials are pushed to it (docs/planes.md). Imported only if the
configuration has a `planes` block.
"""

from gateway.planes.running import DataPlanes

__all__ = ["DataPlanes"]
