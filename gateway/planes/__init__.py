"""Other proxies as data planes: they send the requests, and get their tokens here.

A plane asks for each request, or the tokens of its credentials are pushed to it (docs/planes.md). Imported only if
`planes` is configured.
"""

from gateway.planes.running import DataPlanes

__all__ = ["DataPlanes"]
