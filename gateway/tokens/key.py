"""What makes two token recipes the same: a SHA-256 over every input, the secrets included.

Two credentials share a token only when nothing that could change what is issued differs between them. Encoded as JSON
with a tag at every level, so that no two different recipes have one encoding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model import Basic, Secret

if TYPE_CHECKING:
    from gateway.model import Credential, Grant

_WHO = frozenset({"clientid", "username", "user", "appid", "appkey", "accountid", "account", "tenant", "tenantid"})
"""Names, without case and punctuation, of fields that say who asks, even when they came from `${…}`."""


def cache_key(grant: Grant) -> str:
    """Return the hex SHA-256 over everything in a grant, secrets opened."""
    return _digest(_encode(grant, secrets=True))


def identity(credential: Credential) -> str:
    """Return the hex SHA-256 over who asks for what and where, without the secrets.

    Two configurations of one credential with the same identity differ only in their secrets: that is a rotation, and
    the old token may serve until the new secret has fetched one. Another client id is another identity.
    """
    return _digest(_encode(credential.grants[:1], secrets=False))


def _digest(encoded: object) -> str:
    return hashlib.sha256(json.dumps(encoded, separators=(",", ":")).encode("ascii")).hexdigest()


def _encode(value: object, *, secrets: bool, who: bool = False) -> object:  # noqa: PLR0911 - one return per kind
    if isinstance(value, Secret):
        return ["text", value.reveal()] if secrets or who else ["secret"]
    if isinstance(value, str | Path):
        return ["text", str(value)]
    if value is None or isinstance(value, bool | int | float):
        return ["plain", repr(value)]
    if isinstance(value, Basic):
        parts = _encode(value.username, secrets=secrets, who=True), _encode(value.password, secrets=secrets)
        return ["basic", value.encode, *parts]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        if not secrets and "fingerprint" in names:  # a client certificate is renewed like a secret
            names.remove("fingerprint")
        return [type(value).__name__, [[n, _encode(getattr(value, n), secrets=secrets)] for n in names]]
    if isinstance(value, dict):
        return ["object", [[str(n), _encode(v, secrets=secrets, who=_is_who(n))] for n, v in value.items()]]
    if isinstance(value, frozenset | set):
        return ["set", sorted(json.dumps(_encode(item, secrets=secrets)) for item in value)]
    if isinstance(value, tuple | list):
        return ["list", [_encode(item, secrets=secrets, who=_follows_who(value, item)) for item in value]]
    msg = f"a grant cannot hold a {type(value).__name__}"
    raise TypeError(msg)


def _is_who(name: object) -> bool:
    return re.sub(r"[^a-z]", "", str(name).lower()) in _WHO


def _follows_who(pair: tuple[object, ...] | list[object], item: object) -> bool:
    """Whether `item` is the value of a (name, value) pair whose name says who asks."""
    return len(pair) == 2 and isinstance(pair[0], str) and item is pair[1] and _is_who(pair[0])  # noqa: PLR2004
