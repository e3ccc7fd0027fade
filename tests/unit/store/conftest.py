"""A real store for the tests of one module."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.valkey import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """A store for all tests of a module; each works in a namespace of its own."""
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        it = Store("valkey", Path(folder))
        loop.run_until_complete(it.start())
        yield it
        loop.run_until_complete(it.kill())
    loop.close()
