"""Who may call: an app is known by the SHA-256 of its key, and may call the routes that its entry names.

Knows the configuration's clients, no HTTP: the handler takes the key and the bearer out of the head. A key is
hashed and looked up, so no comparison's duration tells anything about a key. Messages name the client and the route,
never what was presented.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.access.keys import PREFIX, well_formed
from gateway.errors import ClientForbidden, ClientUnknown

if TYPE_CHECKING:
    from gateway.model import Config, Route

OPEN = "-"
"""The client's name in logs and metrics where access is open."""


class Clients:
    """The clients of one configuration. Immutable; a reload makes a new one.

    Raises ValueError when two clients share a key: the second would act under the first one's name.
    """

    __slots__ = ("_by_digest", "_open")

    def __init__(self, config: Config) -> None:
        self._open = config.access == "open"
        self._by_digest: dict[bytes, tuple[str, frozenset[str] | None]] = {}
        for client in config.clients:
            for digest in map(bytes.fromhex, client.keys_sha256):
                holder = self._by_digest.setdefault(digest, (client.name, client.routes))
                if holder[0] != client.name:
                    raise ValueError(f"clients {holder[0]} and {client.name} have the same key")

    def admit(self, key: bytes | None, bearer: bytes | None, route: Route) -> str:
        """Return the name of the client, or `-` where access is open. The hot path.

        `key` is the value of `X-Gatepass-Key`, `bearer` the credentials of `Authorization: Bearer`; None where the
        field is absent. With a key present the bearer is not judged, and on a route that passes Authorization it is
        the end user's and no key of ours. Raises ClientUnknown, ClientForbidden.
        """
        if self._open:
            return OPEN
        presented = key
        if presented is None and route.authorization == "inject":
            presented = bearer
        if presented is None:
            raise _no_key(route)
        client = self._by_digest.get(hashlib.sha256(presented).digest())
        if client is None:
            raise _unknown_key(presented)
        name, routes = client
        if routes is not None and route.name not in routes:
            raise ClientForbidden(
                f"The client {name} may not use the route {route.name}",
                reason=f"clients.{name}.routes does not name {route.name}",
            )
        return name


def _no_key(route: Route) -> ClientUnknown:
    where = "X-Gatepass-Key"
    if route.authorization == "inject":
        where += " or as Authorization: Bearer"
    return ClientUnknown(f"Send your gateway key in {where}", reason="no key was sent")


def _unknown_key(presented: bytes) -> ClientUnknown:
    """Say the same to every app; tell the operator what kind of mistake it looks like."""
    if well_formed(presented):
        reason = "a well-formed key that no client has: removed, or of another gateway"
    elif presented.startswith(PREFIX.encode()):
        reason = "a key with a wrong checksum: mistyped or cut"
    else:
        reason = "not one of our keys"
    return ClientUnknown("The gateway key is not known", reason=reason)
