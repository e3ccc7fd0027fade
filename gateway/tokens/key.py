"""Keys of token recipes: a SHA-256 over every input, the secrets included.

Two credentials share a token only if all inputs are equal. The inputs are encoded as JSON with a tag at every level, so
that two different recipes never have the same encoding.
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

_IDENTITY_FIELDS = frozenset(
    {"clientid", "username", "user", "appid", "appkey", "accountid", "account", "tenant", "tenantid"}
)
"""Fields that name the account, even if the value came from `${…}`; in lower case without punctuation."""


def cache_key(grant: Grant) -> str:
    """Return the hex SHA-256 over everything in a grant, the secrets included."""
    return _digest(_encode(grant, secrets=True))


def identity(credential: Credential) -> str:
    """Return the hex SHA-256 over the endpoint, the account and the scope of a credential, without the secrets.

    If two configurations of a credential have the same identity, only secrets were rotated, and the old token may be
    used until the new secret has fetched one. Another client id is another identity.
    """
    return _digest(_encode(credential.grants[:1], secrets=False))


def _digest(encoded: object) -> str:
    return hashlib.sha256(json.dumps(encoded, separators=(",", ":")).encode("ascii")).hexdigest()


def _encode(value: object, *, secrets: bool, identifies: bool = False) -> object:  # noqa: PLR0911 - one return per kind
    if isinstance(value, Secret):
        return ["text", value.reveal()] if secrets or identifies else ["secret"]
    if isinstance(value, str | Path):
        return ["text", str(value)]
    if value is None or isinstance(value, bool | int | float):
        return ["plain", repr(value)]
    if isinstance(value, Basic):
        parts = _encode(value.username, secrets=secrets, identifies=True), _encode(value.password, secrets=secrets)
        return ["basic", value.encode, *parts]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        if not secrets:  # a client certificate is rotated like a secret, and a proxy is only a way
            names = [name for name in names if name not in {"fingerprint", "egress"}]
        return [type(value).__name__, [[n, _encode(getattr(value, n), secrets=secrets)] for n in names]]
    if isinstance(value, dict):
        return [
            "object",
            [[str(n), _encode(v, secrets=secrets, identifies=_names_identity(n))] for n, v in value.items()],
        ]
    if isinstance(value, frozenset | set):
        return ["set", sorted(json.dumps(_encode(item, secrets=secrets)) for item in value)]
    if isinstance(value, tuple | list):
        return ["list", [_encode(item, secrets=secrets, identifies=_is_identity_value(value, item)) for item in value]]
    msg = f"a grant cannot hold a {type(value).__name__}"
    raise TypeError(msg)


def _names_identity(name: object) -> bool:
    return re.sub(r"[^a-z]", "", str(name).lower()) in _IDENTITY_FIELDS


def _is_identity_value(pair: tuple[object, ...] | list[object], item: object) -> bool:
    """Whether `item` is the value of a (name, value) pair whose name is an identity field."""
    return len(pair) == 2 and isinstance(pair[0], str) and item is pair[1] and _names_identity(pair[0])  # noqa: PLR2004
