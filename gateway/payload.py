"""Bodies of error answers: content codings undone within a bound, JSON read leniently, scalars compared as text.

Pure. For answers whose sender may label them wrongly: vendors' error bodies and answers of token endpoints.
"""

from __future__ import annotations

import json
import zlib
from typing import Final

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""`wbits` of zlib for RFC 1952, RFC 1950 and RFC 1951."""
_GZIP_MAGIC: Final[bytes] = b"\x1f\x8b"
_BOM: Final[bytes] = b"\xef\xbb\xbf"
_JSON_BEGINS: Final[bytes] = b"{["
_BLANKS: Final[bytes] = b" \t\r\n\0\xfe\xff"
"""What may stand before JSON: its white space, in UTF-16 and UTF-32 with NUL bytes, and a byte order mark."""


def decode(body: bytes, codings: str, limit: int) -> bytes | None:
    """Return at most `limit` + 1 bytes of a body without its content codings (RFC 9110 §8.4.1).

    Args:
        body: the body, perhaps only its beginning.
        codings: the value of `Content-Encoding`. A body in gzip is recognised without it, and a body that is not in
            gzip is returned as it is, because both mistakes occur.
        limit: bound in bytes of the result, whatever the compressed size.

    Returns None for a coding other than gzip, deflate and identity, and for a broken one.
    """
    names = [name for each in codings.lower().split(",") if (name := each.strip()) not in {"", "identity"}]
    if not names and body.startswith(_GZIP_MAGIC):
        names = ["gzip"]
    for name in reversed(names):
        if name in {"gzip", "x-gzip"}:
            unpacked = _inflate(body, _GZIP, limit) if body.startswith(_GZIP_MAGIC) else body
        elif name == "deflate":  # zlib by the RFC, raw by many servers
            unpacked = _inflate(body, _ZLIB, limit) or _inflate(body, _RAW, limit)
        else:
            return None
        if unpacked is None:
            return None
        body = unpacked
    return body


def _inflate(body: bytes, wbits: int, limit: int) -> bytes | None:
    out = b""
    while body and len(out) <= limit:  # gzip allows several members
        unpacker = zlib.decompressobj(wbits)
        try:
            out += unpacker.decompress(body, limit + 1 - len(out))
        except zlib.error:
            return out or None
        body = unpacker.unused_data if unpacker.eof else b""
    return out


def looks_like_json(beginning: bytes) -> bool:
    """Whether a body may be a JSON object or array; also when it is compressed, or in UTF-16 or UTF-32."""
    if beginning[:2] in {_GZIP_MAGIC, b"\xff\xfe", b"\xfe\xff"}:
        return True
    return beginning.removeprefix(_BOM).lstrip(_BLANKS)[:1] in _JSON_BEGINS


def read_json(body: bytes) -> object:
    """Return the JSON value of a body in UTF-8, UTF-16 or UTF-32; None if it is not JSON.

    A byte order mark is skipped.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def scalar_text(value: object) -> str | None:
    """Return a JSON scalar as text: a string as it is, `true`, `false`, a number; None for anything else.

    A whole number has no fraction: 498 and 498.0 are both "498".
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:  # noqa: PLR2004 - exact in a double
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None
