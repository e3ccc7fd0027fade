"""Encrypts the records of tokens in the store, and names the store's keys.

Each record has a random key of its own (AES-256-GCM), which is encrypted once under each of `store.keys`. So a new key
can be rolled out one instance after the other: each instance decrypts what any other one wrote. The associated data
binds a record to its place. Names are HMAC-SHA256 under the last of the keys. Keys are derived with HKDF (RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import Undecryptable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Secret

VERSION = 1
NONCE = 12
"""Bytes of a nonce (NIST SP 800-38D §5.2.1.1)."""
TAG = 16
"""Bytes of an authentication tag."""
KEY = 32
"""Bytes of a key of AES-256."""
WRAPPED = NONCE + KEY + TAG
"""Bytes of a record's own key, encrypted under one of the keys."""
NAME_DIGITS = 32
"""Hex digits of a name."""


class Sealing:
    """Encrypts and names with the `store.keys` of one configuration; its `repr` shows no key."""

    def __init__(self, keys: Sequence[Secret], namespace: str) -> None:
        self._namespace = namespace.encode()
        self._wrapping = tuple(AESGCM(_derived(key, b"records")) for key in keys)
        self._names = tuple(_derived(key, b"names") for key in reversed(keys))

    def __repr__(self) -> str:
        return f"<sealing under {len(self._wrapping)} keys>"

    def name(self, *parts: str) -> str:
        """Return the name that stands for `parts` in the store: 32 hex digits."""
        return self._name(self._names[0], parts)

    def other_names(self, *parts: str) -> list[str]:
        """Return the names that `parts` have for instances whose last key is another one of our keys."""
        return [self._name(key, parts) for key in self._names[1:]]

    def _name(self, key: bytes, parts: Sequence[str]) -> str:
        digest = hmac.new(key, digestmod=hashlib.sha256)
        for part in (self._namespace, *(each.encode("utf-8", "surrogateescape") for each in parts)):
            digest.update(len(part).to_bytes(4, "big") + part)  # with lengths, so that no two lists of parts are alike
        return digest.hexdigest()[:NAME_DIGITS]

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Encrypt a record so that only `unseal` with the same `bound_to` decrypts it."""
        own = secrets.token_bytes(KEY)
        wrapped = b"".join(_encrypt(key, own, bound_to) for key in self._wrapping)
        return bytes((VERSION, len(self._wrapping))) + wrapped + _encrypt(AESGCM(own), plain, bound_to)

    def unseal(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Decrypt a record. Raises Undecryptable if no key fits, or if it was sealed with another `bound_to`."""
        head, count = sealed[:1], sealed[1] if len(sealed) > 1 else 0
        start = 2 + count * WRAPPED
        if head != bytes((VERSION,)) or not count or len(sealed) < start + NONCE + TAG:
            raise Undecryptable
        for at in range(2, start, WRAPPED):
            for key in self._wrapping:
                try:
                    own = _decrypt(key, sealed[at : at + WRAPPED], bound_to)
                    return _decrypt(AESGCM(own), sealed[start:], bound_to)
                except InvalidTag:
                    continue
        raise Undecryptable


def _derived(key: Secret, purpose: bytes) -> bytes:
    material = key.reveal().encode("utf-8", "surrogateescape")
    return HKDF(hashes.SHA256(), KEY, salt=None, info=b"gatepass store " + purpose).derive(material)


def _encrypt(key: AESGCM, plain: bytes, bound_to: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + key.encrypt(nonce, plain, bound_to)


def _decrypt(key: AESGCM, sealed: bytes, bound_to: bytes) -> bytes:
    return key.decrypt(sealed[:NONCE], sealed[NONCE:], bound_to)
