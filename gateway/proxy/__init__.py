"""The data plane: an app's request in, the vendor's answer out, with the pass on it.

`handler.py` is the hot path and reads top to bottom; `routing.py`, `fields.py`, `request.py` and `response.py` are its
pure rules; `server.py` and `upstream.py` are the sockets on either side. Sees tokens only through `model.Tokens`.
"""

from gateway.proxy.handler import Handler
from gateway.proxy.pool import Pool, TlsContexts
from gateway.proxy.port import DataServer, listen
from gateway.proxy.prepared import Snapshot, prepare_routes

__all__ = ["DataServer", "Handler", "Pool", "Snapshot", "TlsContexts", "listen", "prepare_routes"]
