"""What the admin port reads from a request, and what it refuses to read.

Nothing of a request reaches the log, because nobody has been authenticated yet.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.model.http import FORM

if TYPE_CHECKING:
    from collections.abc import Collection

BODY_TIMEOUT = 10.0
"""Seconds for a request body."""
_FIELDS: Final = 16


async def read_body(request: web.Request) -> bytes:
    """Return the body. Raises HTTPException: 400 broken framing, 408 too slow, 413 too large."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:
        raise web.HTTPBadRequest from None


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form (WHATWG URL §5, always UTF-8). Raises HTTPException: 415 for another content type."""
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType
    try:
        pairs = parse_qsl(
            (await read_body(request)).decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_FIELDS,
        )
    except ValueError:
        raise web.HTTPBadRequest from None
    return dict(pairs)


def is_own_host(values: Collection[str], names: Collection[str]) -> bool:
    """Return whether `Host` names this port: an address, `localhost`, or one of `names` (lower case).

    A browser that was led here by a name that resolves to this machine (DNS rebinding) sends that name. A request
    without `Host` (HTTP/1.0) comes from no browser.
    """
    if not values:
        return True
    if len(values) > 1:
        return False
    host = _host_of(next(iter(values))).lower().rstrip(".")
    return host == "localhost" or host.endswith(".localhost") or host in names or _is_address(host)


def _host_of(authority: str) -> str:
    """Return the host of `host[:port]`; the empty text, which is no host, for anything else (RFC 9110 §7.2)."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        valid = bool(bracket) and ":" in host
    else:
        host, colon, port = authority.partition(":")
        rest, valid = colon + port, True
    return host if valid and (not rest or (rest[0] == ":" and (rest[1:].isdecimal() or not rest[1:]))) else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
