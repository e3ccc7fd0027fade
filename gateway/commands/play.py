"""`demo` and `sandbox`: Gatepass without a vendor's account. The emulated vendors live in `gateway.sandbox`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import console, example, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox import Sandbox


@click.command(epilog=example("gatepass demo", "gatepass demo --keep"))
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, and print the URLs to try with curl.")
@click.pass_context
def demo(ctx: click.Context, keep: bool) -> None:
    """See it work against emulated vendors.

    Starts them and the gateway, and acts as an app behind it. Shows reads, uploads, a WebSocket and an event stream,
    tokens that run out under load, a revoked token, and a token endpoint that is down. Exit status 0 only when every
    claim held.
    """
    import asyncio

    from gateway.sandbox import run_demo

    ctx.exit(asyncio.run(run_demo(keep=keep, console=console())))


@click.command(
    epilog=example("gatepass sandbox --overlay sandbox.yaml", "gatepass serve -c config.yaml -c sandbox.yaml")
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; the ports are free ones.")
@click.option(
    "--overlay",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write a second configuration file here, that points config.yaml at the emulated vendors.",
)
def sandbox(host: str, overlay: Path | None) -> None:
    """Run the emulated vendors alone.

    Prints their addresses, and runs until SIGTERM or SIGINT.
    """
    import asyncio

    def show(vendors: Sandbox) -> None:
        if overlay is not None:
            overlay.write_text(vendors.overlay(), encoding="utf-8")
        print_addresses(vendors)

    asyncio.run(run_sandbox(host, show))


async def run_sandbox(host: str, show: Callable[[Sandbox], None]) -> None:
    """Start the vendors, `show` where they are, and wait for a signal to stop."""
    import asyncio
    import signal

    from gateway.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    vendors = Sandbox(host=host)
    await vendors.start()
    try:
        show(vendors)
        await stop.wait()
    finally:
        await vendors.stop()


def print_addresses(vendors: Sandbox) -> None:
    """Print where each vendor listens, and the variables that config.yaml reads (made-up values, so no secrets)."""
    shown = table("vendor", "API", "token endpoint", "control")
    for name, vendor in vendors.vendors.items():
        shown.add_row(name, vendor.base_url, vendor.token_url, vendor.control_url)
    console().print(shown)
    for name, value in vendors.environ().items():
        click.echo(f"export {name}='{value}'")
