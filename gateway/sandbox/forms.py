"""Parses token requests as a strict server does: form bodies and HTTP Basic.

Follows RFC 6749 §2.3.1, RFC 7617 and the WHATWG urlencoded form; raises `BadForm` for anything else.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from gateway.model import Secret

if TYPE_CHECKING:
    from aiohttp import web

FORM = "application/x-www-form-urlencoded"


class BadForm(Exception):
    """`status` is 415 if the content type is wrong, and 400 if the body is malformed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the form's fields. Raises BadForm; a repeated field is an error (RFC 6749 §3.2)."""
    if request.headers.get("Content-Type", "").split(";")[0].strip().lower() != FORM:
        raise BadForm(415, f"Content-Type must be {FORM}")
    try:
        pairs = parse_qsl(
            (await request.read()).decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=50
        )
    except ValueError as error:
        raise BadForm(400, "the body is no urlencoded form") from error
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadForm(400, "a parameter is repeated")
    return dict(pairs)


def read_basic(request: web.Request) -> tuple[Secret, Secret] | None:
    """Return user name and password of HTTP Basic, undecoded as in RFC 7617; None without a valid header."""
    values = request.headers.getall("Authorization", [])
    if len(values) != 1 or values[0][:6].lower() != "basic ":
        return None
    try:
        name, colon, password = base64.b64decode(values[0][6:], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (Secret(name), Secret(password)) if colon else None
