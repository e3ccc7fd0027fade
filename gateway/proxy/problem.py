"""The gateway's own answers: RFC 9457 problem documents with a `Proxy-Status` (RFC 9209) that names the failed hop."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from http import HTTPStatus

import orjson

from gateway.errors import ClientUnknown, ExchangeError, MethodNotAllowed, RateLimited


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode("ascii")


def date_line() -> bytes:
    """Return the `Date` field for now (RFC 9110 §6.6.1), formatted once a second."""
    return _date_line(int(time.time()))


def problem(error: ExchangeError, *, route: str | None, request_id: str, close: bool, head: bool) -> bytes:
    """Return a complete response for `error`, without the body if it answers a HEAD request.

    Members: type, title, status, detail, code, route, request_id. Contains nothing of a token endpoint's or a vendor's
    answer.
    """
    body = orjson.dumps(
        {
            "type": "about:blank",
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "code": error.code,
            "route": route,
            "request_id": request_id,
        }
    )
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode("ascii"),
        date_line(),
        b"Content-Type: application/problem+json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"X-Request-Id: " + request_id.encode("latin-1"),
        proxy_status_line(error, route),
        *_extra(error),
    ]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join((*lines, b"", b"" if head else body))


def proxy_status_line(error: ExchangeError, route: str | None = None) -> bytes:
    """Return the `Proxy-Status` field of an error, which tells it from one of the vendor."""
    # `next-hop` is a token or a string (RFC 9209 §2.1.2): the route's name says which vendor without its address.
    hop = {"gateway": "", "token_endpoint": "token-endpoint", "upstream": "upstream"}[error.hop]
    next_hop = f'; next-hop="{hop}:{route}"' if hop and route else ""
    return f'Proxy-Status: gatepass; error={error.proxy_error}{next_hop}; details="{error.code}"'.encode("ascii")


def retry_lines(error: ExchangeError) -> list[bytes]:
    """Return `Retry-After` (whole seconds, rounded up) and the fields of a limit, as far as the error has them."""
    lines = [] if error.retry_after is None else [b"Retry-After: %d" % max(1, math.ceil(error.retry_after))]
    if isinstance(error, RateLimited):
        lines += [f"{name}: {value}".encode("ascii") for name, value in error.fields]
    return lines


def _extra(error: ExchangeError) -> list[bytes]:
    lines = retry_lines(error)
    if isinstance(error, ClientUnknown):
        lines.append(b'WWW-Authenticate: Bearer realm="gatepass"')
    if isinstance(error, MethodNotAllowed):
        lines.append(b"Allow: " + ", ".join(error.allow).encode("ascii"))
    return lines
