"""`routes`, `schema` and `init`: show a configuration, print its JSON Schema, write a first one.

None of them opens a socket.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from gateway.commands.options import FilePath, config_option, console, example, no_secrets_option, table

SCHEMA_FILE = "gatepass.schema.json"

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from gateway.model import Injection, Route


@click.command(
    epilog=example("gatepass routes -c config.yaml", "gatepass routes --client onboarding-web POST /orders/v1/scan")
)
@config_option
@no_secrets_option
@click.option("--client", metavar="NAME", help="Explain whether this client may send METHOD and PATH.")
@click.option("--host", metavar="HOST", default="", help="Host name that the app uses, if a route has `hosts`.")
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.pass_context
def routes(
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    no_secrets: bool,
    client: str | None,
    host: str,
    method: str | None,
    path: str | None,
) -> None:
    """List the routes of the data port, or explain a decision.

    One row per route: its prefix, the vendor's API and what is injected; below, methods and limits. With --client,
    METHOD and PATH (with the route's prefix, as the app sends it; with --host it is optional): whether that client may
    send the request, and which rule decides; exit status 1 when it may not. Connects to nothing.
    """
    from gateway.config import load

    if len({client is None, method is None, path is None}) != 1:
        raise click.UsageError("--client, METHOD and PATH go together")
    if host and client is None:
        raise click.UsageError("--host needs --client, METHOD and PATH")
    config = load(paths, placeholders=no_secrets)
    if client is not None and method is not None and path is not None:
        from gateway.commands.explain import explain

        ctx.exit(0 if explain(config, client, method, path, host) else 1)
    out, shown = console(), table("route", "prefix, hosts", "upstream", "injects token of", narrow=True)
    listed = config.routes
    for route in listed:
        shown.add_row(*route_row(route))
    out.print(shown)
    out.print()
    for route in listed:
        out.print(f"{route.name}: {route_limits(route)}", markup=False)


def route_row(route: Route) -> tuple[str, ...]:
    """Return one route in words."""
    upstream = f"{route.upstream.scheme}://{route.upstream.authority}{route.upstream.base_path}"
    return (
        route.name,
        "\n".join((f"{route.prefix}/*", *route.hosts)),
        upstream,
        "\n".join(map(injected, route.injections)) or "-",
    )


def injected(injection: Injection) -> str:
    """Return the credential, with the header unless it is Authorization."""
    header = injection.header
    return injection.credential if header == "Authorization" else f"{injection.credential} in {header}"


def route_limits(route: Route) -> str:
    """Return a route's methods and limits in words."""
    methods = " ".join(sorted(route.methods)) if route.methods else "all"
    body = "any size" if route.max_body is None else f"{route.max_body / 1024**2:g} MiB"
    return f"methods {methods}; first byte {route.timeouts.first_byte:g} s; body {body}"


@click.command(epilog=example("gatepass schema > gatepass.schema.json"))
def schema() -> None:
    """Print the configuration's JSON Schema.

    For an editor, or for a pipeline that validates a configuration before it is deployed.
    """
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """Return the JSON Schema as text."""
    import json

    from gateway.config import json_schema

    return json.dumps(json_schema(), indent=2) + "\n"


@click.command(epilog=example("gatepass init", "gatepass init VENDOR VENDOR --output config.yaml"))
@click.argument("vendors", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=FilePath(dir_okay=False),
    help="File to write, with its JSON Schema beside it; an existing one is kept. Default: standard output.",
)
@click.option(
    "--secret-files",
    metavar="FOLDER",
    callback=lambda _ctx, _param, folder: folder if folder is None else a_folder(folder),
    help="Read each secret from a file in FOLDER. Default: from an environment variable.",
)
def init(vendors: tuple[str, ...], output: Path | None, secret_files: str | None) -> None:
    """Write a first configuration for your vendors.

    Writes one for the VENDORS named; without a name, lists the known vendors.
    """
    from gateway.config import profiles, starter

    known = profiles()
    if not vendors:
        shown = table("vendor", "what it is")
        for name, line in known.items():
            shown.add_row(name, line)
        console().print(shown)
        return
    for vendor in vendors:
        require(vendor, known, "vendor")
    write(starter(vendors, secret_files), output)


def a_folder(name: str) -> str:
    """Return the name of a folder that can be written in `${file:…}`. Raises click.BadParameter."""
    if not name.isprintable() or name != name.strip() or not name or "}" in name or "${" in name:
        raise click.BadParameter(
            "must be a folder whose name has no `}`, no `${`, no control character, and no blank at an end"
        )
    return name


def require(name: str, known: Collection[str], what: str) -> None:
    """Raise `click.UsageError` (exit status 2) with the nearest name when `name` is not among the `known`."""
    if name in known:
        return
    from gateway.config.names import nearest_or_all

    raise click.UsageError(f"unknown {what} {name!r}{nearest_or_all(name, known)}")


def write(text: str, output: Path | None) -> None:
    """Write to a new file, or to standard output."""
    if output is None:
        click.echo(text, nl=False)
        return
    from gateway.files import write_new

    schema_file = output.with_name(SCHEMA_FILE)
    try:
        refuse_foreign(schema_file)
        write_new(output, f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n{text}")
        try:
            schema_file.unlink(missing_ok=True)
            write_new(schema_file, schema_text())
        except OSError:
            output.unlink()  # so that the same command works once there is room
            raise
    except FileExistsError:
        raise click.UsageError(f"{output} exists; it is left as it is") from None
    except OSError as error:
        raise click.UsageError(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}") from None
    following = f"gatepass check -c {shlex.quote(str(output))}"
    click.echo(f"wrote {output} and {schema_file} (for editors); next: {following}", err=True)


def refuse_foreign(path: Path) -> None:
    """Raise `click.UsageError` if there is a file that is not the JSON Schema of some version. Raises OSError."""
    import json

    from gateway.config import json_schema

    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("title") != json_schema()["title"]:
        raise click.UsageError(f"{path} exists and is not the schema of gatepass; move it away, or write elsewhere")
