"""A page of the admin port of a running gateway, for `status` and `usage`.

What answers at the address may be another program, or a gateway of another version. So nothing about the answer is
taken for granted: neither its size, nor its form, nor that its text is fit for a terminal.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TIMEOUT = 5.0
"""Seconds that the whole answer may take."""
LONGEST = 64 * 1024**2
"""Bytes of an answer that are read: usage has a row for each client, route and day."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that a terminal may obey, and those that cannot be written."""


def ask(url: str, page: str, member: str) -> dict[str, Any]:
    """Return a page of the admin port at `url`, which has this member. Raises click.ClickException with the reason."""
    import asyncio

    import aiohttp

    from gateway.commands.look import connect_reason

    foreign = f"{url}{page} is not the admin port of a gateway"
    try:
        status, body = asyncio.run(_read(f"{url}{page}"))
    except aiohttp.ClientConnectorError as error:
        cause = getattr(error, "certificate_error", None) or error.os_error
        raise click.ClickException(f"no gateway answers at {url} ({connect_reason(cause)}); is it running?") from error
    except TimeoutError as error:
        raise click.ClickException(f"{url} does not answer within {TIMEOUT:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
        raise click.ClickException(foreign) from error
    if isinstance(body, dict):
        if status == HTTPStatus.OK and member in body:
            return body
        if status != HTTPStatus.OK and isinstance(title := body.get("title"), str):
            raise click.ClickException(f"{url}{page} answers {status}: {plain(title)}")
    raise click.ClickException(foreign)


async def _read(url: str) -> tuple[int, Any]:
    """Return the status and the JSON, None if there is none. Raises as aiohttp does, or ValueError, RecursionError."""
    import json

    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.content_type != "application/json":
            return answer.status, None
        text = bytearray()
        async for part in answer.content.iter_any():
            text += part
            if len(text) > LONGEST:
                raise ValueError("too long")
    return answer.status, json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> Any:
    raise ValueError(name)


def plain(data: Any) -> Any:
    """Return the data with every character replaced that a terminal may obey or that cannot be written."""
    if isinstance(data, str):
        return CONTROL.sub("\ufffd", data)
    if isinstance(data, dict):
        return {plain(key): plain(value) for key, value in data.items()}
    return [plain(each) for each in data] if isinstance(data, list) else data


@contextmanager
def as_of_this_version(url: str, data: Mapping[str, Any]) -> Iterator[None]:
    """Raise click.ClickException if the data lacks what the block reads: another version answered, or a stranger."""
    from rich.errors import ConsoleError

    from gateway import __version__

    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, ConsoleError) as error:
        its = plain(version) if isinstance(version := data.get("version"), str) else "unknown"
        raise click.ClickException(
            f"the answer of {url} cannot be shown: its version is {its}, and this is gatepass {__version__}; "
            "use the gatepass of the gateway's version"
        ) from error
