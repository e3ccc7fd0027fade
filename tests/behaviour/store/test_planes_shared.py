"""Several gateways with one store: each pushes the same token to the plane of its own machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.endpoint import TokenEndpoint
from tests.kit.planes import ask, asked_gateway, fetching
from tests.kit.served import Served, until
from tests.kit.valkey import block, store

if TYPE_CHECKING:
    from pathlib import Path


def pushing(folder: Path, endpoint: TokenEndpoint, shared: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir()
    config = fetching(asked_gateway(folder), endpoint)
    push = {"kind": "envoy-sds", "directory": str(folder / "sds"), "credentials": ["key"], "uid": os.getuid()}
    config["planes"] = {"listen": f"unix:{folder}/planes.sock", "push": {"edge": push}}
    return {**config, "store": shared}


def value(folder: Path) -> str:
    try:
        shown = json.loads((folder / "sds" / "key.json").read_bytes())
    except FileNotFoundError:
        return ""
    return str(shown["resources"][0]["generic_secret"]["secret"]["inline_string"])


@pytest.mark.slow
async def test_one_token_is_pushed_on_two_machines_and_a_report_on_one_replaces_it_on_both(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with store(tmp_path) as server, TokenEndpoint() as endpoint:
        shared = block(server)
        async with (
            Served(one, pushing(one, endpoint, shared)),
            Served(two, pushing(two, endpoint, shared)),
        ):
            await until(lambda: value(one) == value(two) != "")
            first = value(one)
            assert endpoint.count == 1
            sent = (f"X-Gatepass-Sent: Bearer {first}", "Content-Length: 0")
            assert (await ask(one, "/replace/key", *sent, method="POST")).status == 204
            await until(lambda: value(one) == value(two) not in {first, ""})
            assert endpoint.count == 2
            assert (await ask(two, "/replace/key", *sent, method="POST")).status == 204
            assert endpoint.count == 2, "the second machine's late report about the old token fetches nothing"
