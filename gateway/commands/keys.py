"""`keys new`: a key for an app. The key is printed once; the configuration contains only its SHA-256."""

from __future__ import annotations

import click

from gateway.commands.options import example


@click.group()
def keys() -> None:
    """Make keys for the apps behind the gateway."""


@keys.command(
    epilog=example("gatepass keys new onboarding-web", "gatepass keys new billing --route orders --route ledger")
)
@click.argument("name")
@click.option("--route", "routes", multiple=True, help="A route that the app may use; may be repeated. Default: all.")
def new(name: str, routes: tuple[str, ...]) -> None:
    """Make a key for the app NAME, and the lines for the configuration that admit it.

    The key is printed once and stored nowhere. The app sends it as X-Gatepass-Key, or as Authorization: Bearer.
    """
    from gateway.access import hash_key, new_key

    key = new_key()
    click.echo(f"# The key of {name}. It is shown only now; give it to the app, as a secret.\n{key}\n")
    click.echo("# For the configuration:")
    click.echo(client_lines(name, hash_key(key), routes), nl=False)


def client_lines(name: str, digest: str, routes: tuple[str, ...]) -> str:
    """Return the YAML of one client, its name quoted where YAML would read it as something else."""
    import yaml

    entry: dict[str, object] = {"name": name, "key_sha256": digest}
    if routes:
        entry["routes"] = list(routes)
    return yaml.safe_dump({"clients": [entry]}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
