"""The files from which Envoy reads tokens: each is a `DiscoveryResponse` with one generic secret, as JSON. Pure.

Envoy's format is `envoy.service.discovery.v3` and `envoy.extensions.transport_sockets.tls.v3.Secret`. Envoy keeps its
last secret if a file is empty, malformed or removed. So a token is withdrawn by writing an empty secret: Envoy's
credential injector then rejects requests, and nothing is sent to the vendor.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from gateway.model import Token

OWNER: Final = "gatepass"
"""`control_plane.identifier` of our files. A file without it is never overwritten."""
ENDING: Final = ".json"
"""Ending of a file's name, by which Envoy chooses the parser."""
_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_WITHDRAWN: Final = "withdrawn"
_NEVER: Final = "never"


class Stated(NamedTuple):
    """What one of our files says about its token."""

    credential: str
    until: float
    """End of the token, seconds since the epoch; `-inf` if there is none, `inf` for a static key."""
    digest: bytes
    """SHA-256 of the token, as `digest` returns it."""

    @property
    def is_withdrawn(self) -> bool:
        """Whether the file holds no token."""
        return self.until == -math.inf


def file_name(credential: str) -> str:
    """Return the name of a credential's file."""
    return credential + ENDING


def document(credential: str, token: Token | None, until: float = -math.inf) -> bytes:
    """Return the content of a credential's file.

    Args:
        credential: its name, which is also the name of Envoy's secret.
        token: the token, or None to withdraw the last one.
        until: end of the token, seconds since the epoch; `inf` for a static key.
    """
    version = f"{token.fingerprint} until {_instant(until)}" if token is not None else _WITHDRAWN
    resource = {"@type": _SECRET, "name": credential, "generic_secret": {"secret": _value(token)}}
    shown = {"version_info": version, "control_plane": {"identifier": OWNER}, "resources": [resource]}
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def stated(content: bytes) -> Stated | None:
    """Return what a file's content says; None if Gatepass has not written it."""
    try:
        shown = orjson.loads(content)
        if shown["control_plane"]["identifier"] != OWNER:
            return None
        (resource,) = shown["resources"]
        until = str(shown["version_info"]).rpartition(" ")[2]
        value = resource["generic_secret"]["secret"]
        data = b64decode(value["inline_bytes"]) if "inline_bytes" in value else value["inline_string"].encode()
        end = -math.inf if until == _WITHDRAWN else _seconds(until)
        return Stated(str(resource["name"]), end, sha256(data).digest())
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def digest(token: Token) -> bytes:
    """Return the SHA-256 (32 bytes) of a token as Envoy sends it."""
    return sha256(_encoded(token)).digest()


def digests(field: bytes) -> frozenset[bytes]:
    """Return the SHA-256 of all of a field's value, and of what follows its first blank: either may be the token."""
    return frozenset(sha256(part).digest() for part in (field, field.partition(b" ")[2]) if part)


def _encoded(token: Token) -> bytes:
    return token.value.reveal().encode("latin-1", "surrogateescape")


def _value(token: Token | None) -> dict[str, str]:
    """Return a token as Envoy's `DataSource`; bytes beyond ASCII, as the data port sends them, in base64."""
    value = _encoded(token) if token is not None else b""
    return {"inline_string": value.decode()} if value.isascii() else {"inline_bytes": b64encode(value).decode()}


def _instant(seconds: float) -> str:
    if math.isinf(seconds):
        return _NEVER
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(instant: str) -> float:
    return math.inf if instant == _NEVER else datetime.fromisoformat(instant).timestamp()
