"""`demo` and `sandbox`: Gatepass without a vendor account. The emulated vendors are in `gateway.sandbox`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.commands.options import FilePath, console, example

if TYPE_CHECKING:
    from pathlib import Path

PORTS = 10
"""Ports of the sandbox, in a row."""


@click.command(epilog=example("gatepass demo", "gatepass demo --keep"))
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, and print the URLs to try with curl.")
@click.pass_context
def demo(ctx: click.Context, keep: bool) -> None:
    """Run the gateway against emulated vendors and show what it does.

    Starts both and acts as an app. Shows reads, uploads, a WebSocket and an event stream, tokens that expire under
    load, a revoked token, and a token endpoint that is down. Exit status 0 only when every claim held.
    """
    import asyncio

    from gateway.sandbox import run_demo

    try:
        ctx.exit(asyncio.run(run_demo(keep=keep, console=console())))
    except asyncio.CancelledError:  # SIGTERM
        raise click.Abort from None


@click.command(epilog=example("gatepass sandbox -c config.yaml -o sandbox.yaml", "gatepass sandbox --port 7000"))
@click.option(
    "-c",
    "--config",
    "paths",
    type=FilePath(exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Write an overlay for exactly the vendors of this configuration; may be repeated.",
)
@click.option("-o", "--output", type=FilePath(dir_okay=False), help="Where to write the overlay of --config.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535 - PORTS + 1),
    default=0,
    show_default=True,
    help="The first of ten ports in a row; 0 takes free ones.",
)
@click.pass_context
def sandbox(ctx: click.Context, paths: tuple[Path, ...], output: Path | None, host: str, port: int) -> None:
    """Run the emulated vendors alone.

    Prints their addresses and how to start a gateway for them, and runs until SIGTERM or SIGINT. With --config no
    secret of yours is needed: the overlay replaces addresses and secrets by those of the emulated vendors.
    """
    import asyncio

    from gateway.config import outline
    from gateway.errors import os_reason
    from gateway.sandbox import For, run_sandbox

    if output is not None and not paths:
        raise click.UsageError("--output needs --config")
    behind = None
    if paths:
        sketch = outline(paths)
        behind = For(paths, sketch.profiles, sketch.routes)
    try:
        ctx.exit(asyncio.run(run_sandbox(host=host, ports=port, console=console(), behind=behind, output=output)))
    except OSError as error:
        if not error.filename:
            raise
        raise click.ClickException(f"cannot write {error.filename}: {os_reason(error)}") from error
