"""The check behind `gatepass health`: one look at the admin port and one at the data port, from outside.

Made for a container's HEALTHCHECK: short time-outs, no proxy of the environment, no redirect, an answer in words.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

TIMEOUT = 3.0
"""Seconds for each of the two looks."""
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not listened on


async def check_health(url: str) -> tuple[bool, str]:
    """Return whether the gateway whose admin port is at `url` is well, and a sentence that says so or why not.

    Well means: `/healthz`, or the path that `url` has (`/readyz`), answers 200, and the data port that the answer
    names accepts a connection. Never raises for what it finds.
    """
    page = URL(url)
    if page.path in {"", "/"}:
        page = page.with_path("/healthz")
    try:
        body = await _ask(page)
        await _reach(page, body.get("data"))
    except TimeoutError:
        return False, f"{page} does not answer within {TIMEOUT:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return False, str(error) or type(error).__name__
    return True, f"{page} answers 200: {body.get('state', 'state unknown')}"


async def _ask(page: URL) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(page, allow_redirects=False) as answer,
    ):
        body = await answer.json() if answer.content_type == "application/json" else None
        if not isinstance(body, dict):
            raise ValueError(f"{page} is not the admin port of a gateway")  # noqa: TRY004  a finding, no bug
        if answer.status != HTTPStatus.OK:
            raise ValueError(f"{page} answers {answer.status}: {body.get('state', 'state unknown')}")
        return body


async def _reach(page: URL, data: Any) -> None:
    """Open and close a connection to the data port, over the page's own host if it listens on all addresses."""
    if not data:
        return
    host, port = data
    target = page.host if host in ANY_ADDRESS else host
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(target, port)
    except OSError as error:  # TimeoutError is one
        raise ValueError(f"the data port {host}:{port} takes no connection") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
