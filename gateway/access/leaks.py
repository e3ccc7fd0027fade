"""Finds what may be a key or JWT of the gateway in an Authorization value that goes to a vendor. Pure.

Schemes write credentials in many forms (RFC 9110 §11.4): `Bearer X`, `Token token="X"`, `X, realm=y`, and in base64 as
user or password (RFC 7617). So every part of the value is a candidate, in base64 and percent-encoded, too.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

MOST_PARTS: Final = 256
"""Parts of a value that are checked. No scheme has nearly as many."""
_SEPARATORS: Final = re.compile(rb"[\s,;:=\"'&?<>()\[\]{}|\\]+")
_KEY: Final = re.compile(rb"gp_[0-9A-Za-z]{49}")
_JWT: Final = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+")
"""Begins where a word begins, so that a long word without a dot is searched once and not from each of its letters."""
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{8,}")
_VISIBLE: Final = re.compile(rb"[\t -~\x80-\xff]+\Z")


def candidates(value: bytes) -> set[bytes] | None:
    """Return every part of `value` that may be a key or JWT; None if it has more than `MOST_PARTS` parts."""
    texts = {value, unquote_to_bytes(value)}
    texts |= {plain for text in tuple(texts) for plain in _in_base64(text)}
    texts |= {unquote_to_bytes(text) for text in tuple(texts)}
    possible: set[bytes] = set()
    for text in texts:
        parts = _SEPARATORS.split(text)
        if len(parts) > MOST_PARTS:
            return None
        possible.update(parts, _KEY.findall(text), _JWT.findall(text))
        # Keys may hold any character, so also what stands behind a scheme, a user's name, and between quotes.
        _, _, behind = text.strip().partition(b" ")
        user, _, password = text.partition(b":")
        possible |= {text.strip(), behind.strip(), user.strip(), password.strip(), *re.findall(rb'"([^"]*)"', text)}
    return possible - {b""}


def _in_base64(text: bytes) -> set[bytes]:
    decoded = set()
    for part in _BASE64.findall(_JWT.sub(b" ", text))[:MOST_PARTS]:  # the parts of a JWT are claims, not keys
        whole = part[: len(part) // 4 * 4 + (len(part) % 4 if len(part) % 4 != 1 else 0)]
        plain = base64.b64decode(whole + b"=" * (-len(whole) % 4), altchars=b"-_" if set(whole) & set(b"-_") else None)
        if _VISIBLE.match(plain) is not None:  # a ticket of Kerberos is binary, and holds no key
            decoded.add(plain)
    return decoded
