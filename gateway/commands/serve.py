"""`serve` runs the gateway until SIGTERM or SIGINT; `health` checks a running one.

A container's HEALTHCHECK runs `health` every few seconds; it reads no configuration and needs no secret.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, example, url_option

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config


@click.command(epilog=example("gatepass serve -c config.yaml", "gatepass serve -c config.yaml -c production.yaml"))
@config_option
def serve(paths: tuple[Path, ...]) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Mistakes in the configuration are printed with file and line before any port is opened; the exit status is then 2.
    SIGHUP reads the configuration again.
    """
    # Objects that are imported and built from here on are never garbage; searching them takes a tenth of the start.
    gc.disable()
    # Without this, pydantic reads the metadata of every installed package to look for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from gateway.config import Commands, load
        from gateway.serving import serve as run

        commands = Commands()

        def read() -> Config:
            return load(paths, commands=commands)

        run(read, before_exit=commands.stop)
    finally:
        gc.enable()


@click.command(epilog=example("gatepass health", "gatepass health --ready --url http://127.0.0.1:9090"))
@url_option
@click.option(
    "--ready", is_flag=True, help="Request /readyz (can it serve requests?) instead of /healthz (is it running?)."
)
@click.pass_context
def health(ctx: click.Context, url: str, ready: bool) -> None:
    """Check whether a running gateway is healthy.

    Requests a page of its admin port and connects to its data port. Exit status 0 when it is healthy, else 1.
    """
    from gateway.commands.look import check_health

    healthy, message = check_health(f"{url}/{'readyz' if ready else 'healthz'}")
    click.echo(message, err=not healthy)
    ctx.exit(0 if healthy else 1)
