"""The two requests of `health`: one to the admin port, one to the data port.

Made for a container's HEALTHCHECK, which starts a process every few seconds: only the standard library, short
time-outs, no proxy from the environment, no redirects.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

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
        body = _in_time(partial(_ask, page))
        _reach(urlsplit(page).hostname, body.get("data"))
    except TimeoutError:
        return False, f"{page} does not answer within {TIMEOUT:g} s"
    except (http.client.HTTPException, OSError, ValueError) as error:
        return False, str(error) or type(error).__name__
    return True, f"{page} answers 200: {_state(body)}"


def connect_reason(error: OSError) -> str:
    """Return why there is no connection, in the words of the operating system or of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}".lower()
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror) or not error.errno:
        return (error.strerror or str(error)).lower()
    return os.strerror(error.errno).lower()


def _in_time(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `call` returns. Raises TimeoutError after TIMEOUT: a socket's own counts anew with each byte."""
    outcome: list[dict[str, Any] | Exception] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - raised below
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _ask(page: str) -> dict[str, Any]:
    parts = urlsplit(page)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.connect()
    except TimeoutError:
        raise
    except OSError as error:
        raise ValueError(f"no gateway answers at {parts.netloc} ({connect_reason(error)}); is it running?") from error
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        is_json = answer.headers.get_content_type() == "application/json"
        body = json.loads(answer.read(LONGEST)) if is_json else None
    except TimeoutError:
        raise
    except (http.client.HTTPException, OSError, ValueError, RecursionError):
        body = None
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ValueError(f"{page} is not the admin port of a gateway")  # noqa: TRY004 - an unhealthy gateway, not a bug
    if answer.status != HTTPStatus.OK:
        raise ValueError(f"{page} answers {answer.status}: {_state(body)}")
    return body


def _state(body: dict[str, Any]) -> str:
    """Return the state that a gateway tells, or why it does not answer; what is not printable is escaped."""
    text = body.get("state") or body.get("title") or "state unknown"
    return text if isinstance(text, str) and text.isprintable() else ascii(text)


def _reach(asked: str | None, data: Any) -> None:
    """Open and close a connection to the data port, on the page's host if the port listens on all addresses."""
    if not data:
        return
    try:
        host, port = data
        socket.create_connection((asked if host in ANY_ADDRESS else host, port), TIMEOUT).close()
    except OSError as error:  # TimeoutError is one
        raise ValueError(f"the data port {host}:{port} accepts no connection") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the data port {data!a} is no address") from error
