"""The files in a plane's folder while gateway processes start, upgrade, stop and are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.planes import asked_gateway, fetching
from tests.kit.served import Served, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def pushing(folder: Path, endpoint: TokenEndpoint) -> dict[str, Any]:
    config = fetching(asked_gateway(folder), endpoint)
    config["planes"] = {
        "push": {"edge": {"kind": "envoy-sds", "directory": str(folder / "sds"), "credentials": ["key"]}}
    }
    return config


def value(folder: Path) -> str | None:
    """The token in the file: empty if it was withdrawn, None if there is no file."""
    try:
        shown = json.loads((folder / "sds" / "key.json").read_bytes())
    except FileNotFoundError:
        return None
    return str(shown["resources"][0]["generic_secret"]["secret"]["inline_string"])


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[list[str | None]]:
    """Watch the file, and append each new content to the list."""
    found: list[str | None] = [value(folder)]

    async def look() -> None:
        while True:
            now = value(folder)
            if now != found[-1]:
                found.append(now)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()


async def ended(number: int) -> None:
    await until(lambda: not os.path.exists(f"/proc/{number}/fd"))  # noqa: PTH110 - no I/O to speak of


async def test_the_file_exists_when_the_gateway_is_ready_even_without_a_token(tmp_path: Path) -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.always = Answer(status=500)
        async with Served(tmp_path, pushing(tmp_path, endpoint)) as it:
            await it.seen("started")
            assert value(tmp_path) == ""


@pytest.mark.slow
async def test_during_an_upgrade_the_file_always_holds_a_token_and_then_the_successor_s(tmp_path: Path) -> None:
    async with TokenEndpoint() as endpoint, Served(tmp_path, pushing(tmp_path, endpoint)) as it:
        await until(lambda: bool(value(tmp_path)))
        async with watched(tmp_path) as found:
            it.signal(signal.SIGUSR2)
            successor = int((await it.seen("upgrading"))["successor"])
            await it.end()
            await until(lambda: value(tmp_path) == endpoint.issued[-1])
        assert found == endpoint.issued, "first the predecessor's token, then the successor's, and nothing between"
        os.kill(successor, signal.SIGTERM)
        await ended(successor)
        assert value(tmp_path) == ""


@pytest.mark.slow
async def test_after_a_kill_the_token_stays_until_the_next_process_has_one(tmp_path: Path) -> None:
    async with TokenEndpoint() as endpoint, Served(tmp_path, pushing(tmp_path, endpoint)) as it:
        await until(lambda: bool(value(tmp_path)))
        async with watched(tmp_path) as found:
            it.signal(signal.SIGKILL)
            await it.end()
            endpoint.latency = 0.3
            await it.start()
            await until(lambda: len(endpoint.issued) > 1 and value(tmp_path) == endpoint.issued[-1])
        assert found == endpoint.issued
