"""What several commands share: options, the examples of help texts, and the look of tables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table


class FilePath(click.Path):
    """The path of a file. An empty one is refused: it would mean the working directory, and no script wants that."""

    def __init__(self, **extra: Any) -> None:
        """Take what `click.Path` takes."""
        super().__init__(path_type=Path, **extra)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click.BadParameter."""
        if not os.fspath(value):
            self.fail("the name of the file is empty", param, ctx)
        return super().convert(value, param, ctx)


config_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-c",
    "--config",
    "paths",
    type=FilePath(readable=False),  # the loader says who may not read it
    multiple=True,
    default=(Path("config.yaml"),),
    show_default=True,
    envvar="GATEPASS_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Configuration file; may be repeated, each one is merged over those before.",
)

no_secrets_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--no-secrets",
    is_flag=True,
    help="Use placeholders for variables and files that are missing, and run no program; for pipelines.",
)

DEFAULT_URL = "http://127.0.0.1:9090"
url_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="GATEPASS_HEALTH_URL",
    show_envvar=True,
    callback=lambda _ctx, _param, value: full_url(value),
    help="Address of the admin port.",
)


def full_url(text: str) -> str:
    """Return the URL of an admin port, `http://` before it if it has no scheme. Raises click.BadParameter.

    A user or password is refused, because every user of the machine can read the command line.
    """
    from urllib.parse import urlsplit

    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
        sound = parts.scheme in {"http", "https"} and host and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isprintable() or re.search(r"[\s?#]", url):
        raise click.BadParameter("must be a URL as http://127.0.0.1:9090")
    if "@" in parts.netloc:
        raise click.BadParameter("must be a URL without user and password")
    return url.rstrip("/")


def example(*lines: str) -> str:
    r"""Return the end of a help text that shows `lines` as they are typed (`\b` tells click not to wrap them)."""
    return "\b\nExample:\n" + "\n".join(f"  $ {line}" for line in lines)


def table(*columns: str, narrow: bool = False) -> Table:
    """Return an empty table in the look of all commands; `narrow`: one space between columns instead of two."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        header_style="bold",
        padding=(0, 0 if narrow else 1),
    )
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def console() -> Console:
    """Return the terminal, or what stands in its place; without a terminal no line is cut to 80 columns."""
    from rich.console import Console

    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=200)
