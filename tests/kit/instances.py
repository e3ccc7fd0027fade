"""Several real gateway processes with one configuration, before the emulated vendors, which count what they issue."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import yaml

from gateway.sandbox import Sandbox
from tests.kit.configuration import ROOT
from tests.kit.served import Served
from tests.kit.wire import connect, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


def vendors_config(
    sandbox: Sandbox, names: Sequence[str], credential: Mapping[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    """Return the shipped configuration for some of the sandbox's vendors; `credential` and `top` add settings."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    overlay = yaml.safe_load(sandbox.overlay())
    credentials = {name: {**config["credentials"][name], **overlay["credentials"][name]} for name in names}
    return {
        "credentials": {name: {**keys, "min_interval": 0, **(credential or {})} for name, keys in credentials.items()},
        "routes": {name: {**config["routes"][name], **overlay["routes"][name]} for name in names},
        "logs": {"format": "json", "access": False, "level": "debug"},
        **top,
    }


@asynccontextmanager
async def vendors() -> AsyncIterator[Sandbox]:
    """Run the emulated vendors; limits of their token endpoints are off."""
    async with Sandbox() as sandbox:
        for vendor in sandbox.vendors.values():
            await vendor.set(rate_limit=False)
        yield sandbox


@asynccontextmanager
async def instances(
    folder: Path,
    count: int,
    config: Mapping[str, Any],
    environ: Mapping[str, str],
    each: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[list[Served]]:
    """Run `count` gateways, started at once and all ready; `each` adds settings to single ones, by their place."""
    async with AsyncExitStack() as stack:
        made = []
        for place in range(count):
            home = folder / f"instance-{place}"
            home.mkdir()
            own = each[place] if place < len(each) else {}
            it = Served(home, {**config, **own}, environ=environ)
            stack.push_async_callback(it.stop)
            made.append(it)
        await asyncio.gather(*(it.start() for it in made))
        yield made


async def call(it: Served, vendor: str, path: str = "/sandbox/status/200") -> int:
    """Send one GET through an instance and return the status."""
    app = await connect(it.address)
    try:
        await app.send(get(f"/{vendor}{path}"))
        return (await app.message()).status
    finally:
        app.close()


async def all_show(fleet: list[Served], sample: str, value: float, seconds: float = 15.0) -> None:
    """Wait until a metric has this value on every instance."""
    async with asyncio.timeout(seconds):
        for it in fleet:
            while await it.metric(sample) != value:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
