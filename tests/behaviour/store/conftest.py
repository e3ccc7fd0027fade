"""A real store and a token endpoint, new for each test that asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.endpoint import TokenEndpoint
from tests.kit.valkey import Store, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """A token endpoint that answers after 50 ms."""
    async with TokenEndpoint(latency=0.05) as served:
        yield served


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Store]:
    async with store(tmp_path) as it:
        yield it
