"""The data plane: sends an app's request to the vendor with the token, and the vendor's answer back.

`handler.py` is the hot path and reads top to bottom; `routing.py`, `fields.py`, `request.py` and `response.py` are its
pure rules; `client.py` and `upstream.py` are the connections on either side. Sees tokens only through `model.Tokens`.
"""

from gateway.proxy.handler import Handler
from gateway.proxy.listening import check_reach, listen, open_port
from gateway.proxy.pool import Pool
from gateway.proxy.port import DataServer
from gateway.proxy.prepared import Snapshot, prepare_routes
from gateway.proxy.room import VendorRoom

__all__ = [
    "DataServer",
    "Handler",
    "Pool",
    "Snapshot",
    "VendorRoom",
    "check_reach",
    "listen",
    "open_port",
    "prepare_routes",
]
