"""Keys of internal apps: how a key is made, hashed and recognised.

A key is `gp_`, 256 random bits in base62 (43 digits), and the CRC-32 of both in base62 (6 digits). A scanner of
repositories recognises a leaked key by prefix and checksum, and the log tells when a copy was truncated. Only the
SHA-256 of a key decides whether it is accepted, not its form.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "gp_"
BODY_DIGITS = 43
"""Base62 digits of 256 bits."""
CHECK_DIGITS = 6
"""Base62 digits of 32 bits."""


def new_key() -> str:
    """Return a new key of 52 characters; show it once, and store only its `hash_key`."""
    head = PREFIX + _base62(secrets.randbits(256), BODY_DIGITS)
    return head + _checksum(head)


def hash_key(key: str | bytes) -> str:
    """Return the SHA-256 of a key in lower-case hex, as in the configuration's `key_sha256`."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def well_formed(key: str | bytes) -> bool:
    """Return whether this has the form of our keys and a right checksum. For hints only, never for a decision."""
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    head = text[:-CHECK_DIGITS]
    return (
        len(text) == len(PREFIX) + BODY_DIGITS + CHECK_DIGITS
        and text.startswith(PREFIX)
        and set(head[len(PREFIX) :]) <= set(ALPHABET)
        and text[-CHECK_DIGITS:] == _checksum(head)
    )


PASS_PREFIX = b"eyJhbGciOiJIUzI1NiIsImtpZCI6I"
"""How a pass begins: `{"alg":"HS256","kid":"` in base64url. No issuer's JWT does, because HS256 is not accepted."""
PASS_ISSUER = "gatepass"
"""The `iss` of a pass."""


def is_pass(presented: bytes) -> bool:
    """Whether this looks like a pass of a gateway (`passes.py`), verified or not: no vendor may get it."""
    if not presented.startswith(PASS_PREFIX):
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(presented.split(b".")[1] + b"=="))
    except (ValueError, IndexError, RecursionError):
        return False
    return isinstance(claims, dict) and claims.get("iss") == PASS_ISSUER


def _checksum(head: str) -> str:
    return _base62(zlib.crc32(head.encode()), CHECK_DIGITS)


def _base62(number: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(reversed(out))
