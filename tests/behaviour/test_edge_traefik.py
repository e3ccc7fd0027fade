"""Traefik as a plane that asks, with the shipped configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import edges
from tests.kit.edge_cases import EdgeCases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.edges import Edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edges.traefik(tmp_path_factory.mktemp("traefik")) as it:
        yield it


class TestTraefik(EdgeCases):
    """Runs the cases of `EdgeCases`."""
