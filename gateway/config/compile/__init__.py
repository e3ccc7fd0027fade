"""From valid sections to the nouns of `gateway.model`: the last stage.

Fills in the defaults that depend on other keys (a route's prefix and injected header, the denied token endpoints).
Reads certificate files for their fingerprints and raises OSError if one has disappeared since it was checked.
"""

from gateway.config.compile.clients import client
from gateway.config.compile.connections import egress
from gateway.config.compile.credentials import credential
from gateway.config.compile.routes import endpoints, route
from gateway.config.compile.whole import config

__all__ = ["client", "config", "credential", "egress", "endpoints", "route"]
