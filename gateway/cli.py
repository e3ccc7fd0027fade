"""The command line: the group of all commands, and the exit statuses of their errors.

Each command is in `gateway.commands` and imports its needs when it runs, so that `gatepass --help` and the container's
`gatepass health` start quickly. Exit statuses: 0 success, 1 a check failed, 2 a mistake in the configuration or on the
command line.
"""

from __future__ import annotations

from typing import Any

import click

from gateway import __version__
from gateway.commands.check import check, token
from gateway.commands.config import init, routes, schema
from gateway.commands.keys import keys
from gateway.commands.options import example
from gateway.commands.play import demo, sandbox
from gateway.commands.serve import health, serve
from gateway.commands.status import status
from gateway.errors import ConfigError, GatepassError

EXIT_CONFIG = 2
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
                click.echo(str(problem), err=True)
            ctx.exit(EXIT_CONFIG)
        except GatepassError as error:
            raise click.ClickException(str(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are first needed."""
        del ctx
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=FIRST_STEPS)
@click.version_option(__version__, prog_name="gatepass")
def main() -> None:
    """Put a fresh vendor token on every request, so that apps need none."""


for command in (demo, init, check, serve, status, token, keys, routes, schema, health, sandbox):
    main.add_command(command)
