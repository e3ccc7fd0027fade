"""The command line: the group of all commands, and the exit statuses of their errors.

Each command is in `gateway.commands` and imports its needs when it runs, so that `gatepass --help` and the container's
`gatepass health` start quickly. Exit statuses: 0 success, 1 a check failed, 2 a mistake in the configuration or on the
command line.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

import click

from gateway import __version__
from gateway.commands.ask import plain
from gateway.commands.check import check, token
from gateway.commands.config import init, routes, schema
from gateway.commands.keys import keys
from gateway.commands.options import example
from gateway.commands.play import demo, sandbox
from gateway.commands.serve import health, serve
from gateway.commands.status import status
from gateway.commands.usage import usage
from gateway.errors import ConfigError, GatepassError

EXIT_CONFIG = 2
NO_FILE = "cannot be read: no such file or directory"
FIRST_STEPS = example(
    "gatepass demo     # see it work, without a vendor account",
    "gatepass init     # list the known vendors, write a configuration for yours",
    "gatepass check    # fetch one real token per credential",
    "gatepass serve    # run the gateway",
)


class Commands(click.Group):
    """A group that prints each problem of a configuration on a line of its own and exits 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and report its error; a configuration error has one line per problem."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(plain(str(problem)), err=True)
            if any(problem.message == NO_FILE for problem in error.problems):
                click.echo("`gatepass init VENDOR -o config.yaml` writes a first one; -c FILE names another", err=True)
            ctx.exit(EXIT_CONFIG)
        except GatepassError as error:
            raise click.ClickException(str(error)) from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; an error of the operating system, such as a full disk, is one line and status 1."""
        escape_unwritable()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.EPIPE:  # whoever closed the pipe wants no more, not even an error
                place = f"{error.filename}: " if error.filename else ""
                with contextlib.suppress(OSError):
                    click.echo(f"Error: {place}{(error.strerror or str(error)).lower()}", err=True)
            drop_unwritten()
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are first needed."""
        del ctx
        return list(self.commands)


def escape_unwritable() -> None:
    """Let a character that standard output cannot encode be written as an escape, not end the command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_unwritten() -> None:
    """Drop what standard output and error cannot take: Python would try again at its exit, and make the status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=FIRST_STEPS)
@click.version_option(__version__, prog_name="gatepass", message="%(prog)s %(version)s")
def main() -> None:
    """Put a fresh vendor token on every request, so that apps need none."""


@click.command("help", epilog=example("gatepass help", "gatepass help check", "gatepass help keys new"))
@click.argument("command", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of a command."""
    shown: click.Command = main
    above = ctx.parent
    for name in command:
        inner = shown.get_command(ctx, name) if isinstance(shown, click.Group) else None
        if inner is None:
            raise click.UsageError(f"there is no command {' '.join(command)!r}")
        above = click.Context(inner, info_name=name, parent=above)
        shown = inner
    click.echo(shown.get_help(above) if above is not None else "")


@click.command(epilog=example("gatepass version"))
def version() -> None:
    """Print the version."""
    click.echo(f"gatepass {__version__}")


for command in (demo, init, check, serve, status, usage, token, keys, routes, schema, health, sandbox, help_, version):
    main.add_command(command)
