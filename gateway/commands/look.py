"""The two requests of `health`: one to the admin port, one to the data port.

Made for a container's HEALTHCHECK, which starts a process every few seconds: only the standard library, short
time-outs, no proxy from the environment, no redirects.
"""

from __future__ import annotations

import http.client
import json
import socket
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 3.0
"""Seconds for each of the two requests."""
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not listened on
LONGEST = 64 * 1024
"""Bytes of an answer that are read."""


def check_health(url: str) -> tuple[bool, str]:
    """Return whether the gateway whose admin port is at `url` is healthy, and a sentence that says why.

    Healthy means: `/healthz`, or the path of `url` (`/readyz`), answers 200, and the data port that the answer names
    accepts a connection. Never raises for an unhealthy gateway.
    """
    page = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/healthz"
    try:
        body = _ask(page)
        _reach(urlsplit(page).hostname, body.get("data"))
    except TimeoutError:
        return False, f"{page} does not answer within {TIMEOUT:g} s"
    except (http.client.HTTPException, OSError, ValueError) as error:
        return False, str(error) or type(error).__name__
    return True, f"{page} answers 200: {body.get('state', 'state unknown')}"


def _ask(page: str) -> dict[str, Any]:
    parts = urlsplit(page)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.connect()
    except TimeoutError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"no gateway answers at {parts.netloc} ({reason}); is it running?") from error
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        is_json = answer.headers.get_content_type() == "application/json"
        body = json.loads(answer.read(LONGEST)) if is_json else None
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ValueError(f"{page} is not the admin port of a gateway")  # noqa: TRY004 - an unhealthy gateway, not a bug
    if answer.status != HTTPStatus.OK:
        raise ValueError(f"{page} answers {answer.status}: {body.get('state', 'state unknown')}")
    return body


def _reach(asked: str | None, data: Any) -> None:
    """Open and close a connection to the data port, on the page's host if the port listens on all addresses."""
    if not data:
        return
    host, port = data
    try:
        socket.create_connection((asked if host in ANY_ADDRESS else host, port), TIMEOUT).close()
    except OSError as error:  # TimeoutError is one
        raise ValueError(f"the data port {host}:{port} accepts no connection") from error
