"""`demo` and `sandbox`: Gatepass without a vendor's account. The emulated vendors live in `gateway.sandbox`."""

from __future__ import annotations

import click

from gateway.commands.options import console, example


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


@click.command(epilog=example("gatepass sandbox", "gatepass sandbox --port 7000"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=0, show_default=True, help="The first of ten ports in a row; 0 takes free ones.")
@click.pass_context
def sandbox(ctx: click.Context, host: str, port: int) -> None:
    """Run the emulated vendors alone.

    Prints their addresses and how to start a gateway for them, and runs until SIGTERM or SIGINT.
    """
    import asyncio

    from gateway.sandbox import run_sandbox

    try:
        ctx.exit(asyncio.run(run_sandbox(host=host, ports=port, console=console())))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}: {error.strerror}") from error
