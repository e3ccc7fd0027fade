"""`serve` runs the gateway until SIGTERM or SIGINT; `health` asks a running one whether it is well.

`health` is what a container's HEALTHCHECK calls every few seconds: it reads no configuration and needs no secret.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, example, url_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.model import Config


@click.command(epilog=example("gatepass serve -c config.yaml", "gatepass serve -c config.yaml -c production.yaml"))
@config_option
def serve(paths: tuple[Path, ...]) -> None:
    """Run the gateway.

    Until SIGTERM or SIGINT. A mistake in the configuration is printed with its file and line, and the exit status is
    2, before any port is opened. SIGHUP reads the configuration again.
    """
    # What is imported and built from here on lives for ever: to search it for garbage is a tenth of a start.
    gc.disable()
    try:
        with _lean():
            from gateway.config import Commands, load
            from gateway.serving import serve as run

        commands = Commands()

        def read() -> Config:
            return load(paths, commands=commands)

        run(read)
    finally:
        gc.enable()


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Import in this block what a gateway needs, and no more: a quarter of a start.

    structlog would import `rich` for tracebacks in colour, pydantic would search every package for plugins, aiohttp
    would read the system's certificate authorities, twice; whoever connects in `serve` brings a context of its own.
    """
    for_now = {"PYDANTIC_DISABLE_PLUGINS": "__all__", "SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    before = {name: os.environ.get(name) for name in for_now}
    os.environ.update(for_now)
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # what the import system takes for "not installed"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if hidden:
            del sys.modules["rich"]


@click.command(epilog=example("gatepass health", "gatepass health --ready --url http://127.0.0.1:9090"))
@url_option
@click.option("--ready", is_flag=True, help="Ask /readyz (may it get requests?) instead of /healthz (does it live?).")
@click.pass_context
def health(ctx: click.Context, url: str, ready: bool) -> None:
    """Ask whether a running gateway is well.

    Asks its admin port; exit status 0 when it is well, else 1.
    """
    from gateway.commands.look import check_health

    well, answer = check_health(f"{url.rstrip('/')}/{'readyz' if ready else 'healthz'}")
    click.echo(answer, err=not well)
    ctx.exit(0 if well else 1)
