"""Several gateways with one store, each with the planes of its own machine: all planes get one token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.kit.endpoint import TokenEndpoint
from tests.kit.instances import all_show, instances
from tests.kit.planes import KEY, ask, asked_gateway, fetching
from tests.kit.valkey import block, store
from tests.kit.wire import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


async def test_planes_that_ask_on_two_machines_get_one_token_and_a_report_on_one_replaces_it_on_both(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "instance-0", tmp_path / "instance-1"]
    async with TokenEndpoint() as endpoint, store(tmp_path) as server:
        config = {**fetching(asked_gateway(tmp_path), endpoint), "store": block(server)}
        planes = [{"planes": asked_gateway(folder)["planes"]} for folder in folders]
        async with instances(tmp_path, 2, config, {}, planes) as fleet:
            await all_show(fleet, "gatepass_store_members", 2)
            one, other = [await ask(folder, "/ask/v/v/x", KEY) for folder in folders]
            assert one.one("Authorization") == other.one("Authorization")
            assert one.one("X-Gatepass-Generation") == other.one("X-Gatepass-Generation")
            assert len(endpoint.issued) == 1
            told = f"X-Gatepass-Refused: {one.one('X-Gatepass-Generation').decode()}"
            renewed = await ask(folders[0], "/ask/v/v/x", KEY, told)
            async with asyncio.timeout(PATIENCE):
                while (await ask(folders[1], "/ask/v/v/x", KEY)).all("Authorization") != renewed.all(  # noqa: ASYNC110 - of another process
                    "Authorization"
                ):
                    await asyncio.sleep(0.05)
            late = await ask(folders[1], "/ask/v/v/x", KEY, told)
            assert late.one("Authorization") == renewed.one("Authorization")
            assert len(endpoint.issued) == 2
