"""What several commands share: `--config` and `--url`, how an example stands in a help text, and the table's look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

config_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-c",
    "--config",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    default=(Path("config.yaml"),),
    show_default=True,
    envvar="GATEPASS_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Configuration file; may be repeated, a later one is laid over the earlier.",
)

DEFAULT_URL = "http://127.0.0.1:9090"
url_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="GATEPASS_HEALTH_URL",
    show_envvar=True,
    help="Address of the admin port.",
)


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

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)
