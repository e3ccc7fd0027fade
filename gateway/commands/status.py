"""`status`: what the status page shows, in a terminal. Reads no configuration and needs no secret.

Exit status 0 when the gateway is ready and every credential can serve, else 1: usable in a script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import console, example, table, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVES = frozenset({"valid", "static", "idle"})
TIMEOUT = 5.0
COLOURS = {
    "valid": "green",
    "static": "green",
    "ready": "green",
    "idle": "default",
    "pending": "yellow",
    "starting": "yellow",
}
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE = 20
"""Columns of a curve: three quarters of a minute each."""


@click.command(epilog=example("gatepass status", "gatepass status --url http://127.0.0.1:9090 --json"))
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print the data as it is.")
@click.pass_context
def status(ctx: click.Context, url: str, as_json: bool) -> None:
    """Show how a running gateway stands.

    Its credentials, routes and clients, as its status page shows them. Exit status 0 when it is ready and every
    credential can serve, else 1.
    """
    import asyncio
    import json

    import aiohttp

    try:
        said = asyncio.run(read(f"{url.rstrip('/')}/status.json"))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise click.ClickException(str(error) or f"{url} does not answer within {TIMEOUT:g} s") from error
    if as_json:
        click.echo(json.dumps(said, indent=2))
    else:
        show(said)
    well = said["state"] == "ready" and all(each["state"] in SERVES for each in said["credentials"])
    ctx.exit(0 if well else 1)


async def read(url: str) -> dict[str, Any]:
    """Ask the admin port. Raises aiohttp.ClientError, OSError, and ValueError when it is no gateway's."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session, session.get(url) as answer:
        body = await answer.json() if answer.content_type == "application/json" else None
        if not isinstance(body, dict) or "credentials" not in body:
            raise ValueError(f"{url} is not the admin port of a gateway")
        return body


def show(said: Mapping[str, Any]) -> None:
    """Print it for people."""
    from gateway.admin.html import span

    out = console()
    digest = said["config"]["digest"][:12] or "-"
    state = coloured(said["state"])
    out.print(f"Gatepass {said['version']}: {state}, up {span(said['uptime'])}, configuration {digest}\n")
    for problem in said["config"].get("problems", ()):
        out.print(f"the newest configuration is refused: {problem}\n", markup=False)
    credentials = table("credential", "state", "lives", "of", "next", "token")
    for each in said["credentials"]:
        following = "-" if each["next_attempt_in"] is None else f"in {span(each['next_attempt_in'])}"
        lives, of = span(each["expires_in"]), span(each["life"])
        credentials.add_row(each["name"], coloured(each["state"]), lives, of, following, each["fingerprint"] or "-")
    out.print(credentials)
    for each in said["credentials"]:
        if each["reason"]:
            click.echo(f"{each['name']}: {each['reason']}\n  {each['advice'] or ''}\n")
    out.print(routes(said))
    if said["clients"]:
        out.print()
        out.print(clients(said))


def routes(said: Mapping[str, Any]) -> Any:
    """Return the table of the routes."""
    from gateway.admin.html import span

    shown = table(f"route, last {span(said['window'])}", "requests", "", "p50", "p99", *HOPS)
    for each in said["routes"]:
        times = ["-" if each[key] is None else f"{each[key]:g} ms" for key in ("p50_ms", "p99_ms")]
        counts = [f"[red]{count}[/]" if count and hop != "app" else str(count) for hop, count in each["errors"].items()]
        shown.add_row(each["name"], str(each["requests"]), curve(each["curve"]), *times, *counts)
    return shown


HOPS = ("app", "gateway", "token", "way", "vendor")
"""Whose failure it was, in the order of the data."""


def clients(said: Mapping[str, Any]) -> Any:
    """Return the table of the clients."""
    shown = table("client, since the start", "ok", "vendor's", "refused", "limited", "failed", "budgets")
    for each in said["clients"]:
        ended = [str(each["requests"].get(how, 0)) for how in ("ok", "vendor_error", "refused")]
        budgets = ", ".join(f"{b['route']} {b['used']}/{b['hard'] or '-'} a {b['per']}" for b in each["budgets"])
        failed = str(each["requests"].get("failed", 0))
        shown.add_row(each["name"], *ended, str(each["limited"]), failed, budgets or "-")
    return shown


def curve(counts: list[int]) -> str:
    """Return the curve of requests in blocks."""
    size = -(-len(counts) // CURVE) or 1
    sums = [sum(counts[at : at + size]) for at in range(0, len(counts), size)]
    most = max([*sums, 1])
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // most)] for count in sums)


def coloured(state: str) -> str:
    """Return a state in its colour."""
    return f"[{COLOURS.get(state, 'red')}]{state.replace('refused_by_vendor', 'refused by the vendor')}[/]"
