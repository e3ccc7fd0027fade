"""`keys new`: a key for an app. The key is printed once; the configuration contains only its SHA-256."""

from __future__ import annotations

import click

from gateway.commands.options import example

ADMIN = "admin"


@click.group()
def keys() -> None:
    """Make keys for apps and for the admin port."""


@keys.command(
    epilog=example(
        "gatepass keys new onboarding-web",
        "gatepass keys new billing --route orders --route ledger",
        "gatepass keys new admin",
    )
)
@click.argument("name")
@click.option("--route", "routes", multiple=True, help="A route that the app may use; may be repeated. Default: all.")
def new(name: str, routes: tuple[str, ...]) -> None:
    """Make a key for the app NAME, and print the configuration lines for it.

    The key is printed once and stored nowhere. The app sends it as X-Gatepass-Key, or as Authorization: Bearer.
    The name `admin` makes a key for actions on the admin port instead.
    """
    from gateway.access import hash_key, new_key

    for each in (name, *routes):
        require_name(each)
    key = new_key()
    if name == ADMIN:
        if routes:
            raise click.UsageError("an admin key has no routes")
        click.echo(f"# An admin key. It is shown only now; keep it as a secret.\n{key}\n")
        click.echo(f"# For the configuration:\nadmin_keys_sha256: [{hash_key(key)}]")
        return
    click.echo(f"# The key of {name}. It is shown only now; give it to the app, as a secret.\n{key}\n")
    click.echo("# For the configuration:")
    click.echo(client_lines(name, hash_key(key), routes), nl=False)


def require_name(name: str) -> None:
    """Raise `click.UsageError` for a name that the configuration would refuse."""
    from gateway.config.names import NAME, NAME_RULE

    if not NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is no name: {NAME_RULE}")


def client_lines(name: str, digest: str, routes: tuple[str, ...]) -> str:
    """Return the YAML of one client, its name quoted where YAML would read it as something else."""
    import yaml

    entry: dict[str, object] = {"name": name, "key_sha256": digest}
    if routes:
        entry["routes"] = list(routes)
    return yaml.safe_dump({"clients": [entry]}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
