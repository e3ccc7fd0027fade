"""`status`: what the status page shows, in a terminal. Reads no configuration and needs no secret.

Exit status 0 when the gateway is ready and every credential can serve, else 1: usable in a script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.ask import as_of_this_version, ask, plain
from gateway.commands.options import console, example, table, url_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

SERVES = frozenset({"valid", "static", "idle"})
COLOURS = {
    "valid": "green",
    "static": "green",
    "ready": "green",
    "idle": "default",
    "pending": "yellow",
    "starting": "yellow",
}
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*#@"
"""For a terminal that is not UTF-8."""
CURVE = 10
"""Columns of a curve: a minute and a half each."""


@click.command(epilog=example("gatepass status", "gatepass status --url http://127.0.0.1:9090 --json"))
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print the data as it is.")
@click.pass_context
def status(ctx: click.Context, url: str, as_json: bool) -> None:
    """Show how a running gateway stands.

    Its credentials, routes and clients, as its status page shows them. Exit status 0 when it is ready and every
    credential can serve, else 1.
    """
    import json

    data = ask(url, "/status.json", "credentials")
    with as_of_this_version(url, data):
        well = data["state"] == "ready" and all(each["state"] in SERVES for each in data["credentials"])
        if as_json:
            text = json.dumps(data, indent=2) + "\n"
        else:
            out = console()
            with out.capture() as shown:
                show(plain(data), out)
            text = shown.get()
    click.echo(text, nl=False, color=True)  # only now, so that there is all of it or none
    ctx.exit(0 if well else 1)


def show(data: Mapping[str, Any], out: Console | None = None) -> None:
    """Print the data for people, in at most 80 columns."""
    from gateway.admin.html import span

    out = out or console()
    digest = data["config"]["digest"][:12] or "-"
    out.print(f"Gatepass {data['version']}: {coloured(data['headline'], bad=bool(data['failing']))}")
    out.print(f"{data['state']}, up {span(data['uptime'])}, configuration {digest}\n")
    if store := data.get("store"):
        text = f"{store['members']} instances" if store["mode"] == "shared" else f"alone, because {store['reason']}"
        out.print(f"shared store {store['server']}: {text}\n", markup=False)
    for problem in data["config"].get("problems", ()):
        out.print(f"the newest configuration is refused: {problem}\n", markup=False)
    credentials = table("credential", "state", "lives", "of", "next", "token")
    for each in data["credentials"]:
        following = "-" if each["next_attempt_in"] is None else f"in {span(each['next_attempt_in'])}"
        lives, of = span(each["expires_in"]), span(each["life"])
        credentials.add_row(each["name"], coloured(each["state"]), lives, of, following, each["fingerprint"] or "-")
    out.print(credentials)
    for each in data["credentials"]:
        if each.get("origin") == "adopted":
            out.print(f"\n{each['name']}: token adopted from instance {each['instance']}", markup=False)
        elif each.get("origin"):
            out.print(f"\n{each['name']}: token fetched by this instance", markup=False)
        if each["reason"]:
            out.print(f"\n{each['name']}: {each['reason']}\n  {each['advice'] or ''}", markup=False)
    out.print(f"\nRoutes, last {span(data['window'])}; the last five columns are failures by")
    out.print(routes(data, ASCII_BLOCKS if out.options.ascii_only else BLOCKS))
    if data["clients"]:
        out.print("\nClients, since the start")
        out.print(clients(data))
    show_planes(out, data.get("planes", ()))


def show_planes(out: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of the planes, if there are any, and what hinders the pushes."""
    if rows:
        out.print("\nOther proxies")
        out.print(planes(rows))
    for each in rows:
        for problem in each["problems"]:
            out.print(f"\n{each['name']}: {problem}", markup=False)


def planes(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return a table of the planes: when each asked, or when its files were confirmed."""
    from gateway.admin.html import ago

    shown = table("plane", "last", "no token", "refused", "for")
    for each in rows:
        last = each["asked"] if each["kind"] == "ask" else each["pushed"]
        counts = ["-" if each[key] is None else str(each[key]) for key in ("refusals", "refused_tokens")]
        shown.add_row(each["name"], ago(last), *counts, ", ".join(each["of"]))
    return shown


HOPS = ("app", "gateway", "token", "conn.", "vendor")
"""Whose failure it was, in the order of the data; `conn.` is the connection to the vendor."""


def routes(data: Mapping[str, Any], blocks: str = BLOCKS) -> Any:
    """Return the table of the routes; `blocks` are what curves are drawn with."""
    shown = table("route", "requests", "", "p50 ms", "p99 ms", *HOPS, narrow=True)
    for each in data["routes"]:
        times = ["-" if each[key] is None else f"{each[key]:.0f}" for key in ("p50_ms", "p99_ms")]
        counts = [f"[red]{count}[/]" if count and hop != "app" else str(count) for hop, count in each["errors"].items()]
        shown.add_row(each["name"], str(each["requests"]), curve(each["curve"], blocks), *times, *counts)
    return shown


def clients(data: Mapping[str, Any]) -> Any:
    """Return the table of the clients."""
    shown = table("client", "ok", "vendor's", "refused", "limited", "failed", "budgets", narrow=True)
    for each in data["clients"]:
        ended = [str(each["requests"].get(how, 0)) for how in ("ok", "vendor_error", "refused")]
        failed = str(each["requests"].get("failed", 0))
        shown.add_row(
            each["name"], *ended, str(each["limited"]), failed, "\n".join(map(budget, each["budgets"])) or "-"
        )
    return shown


def budget(of: Mapping[str, Any]) -> str:
    """Return one budget: `route used/limit a day`, in the colour of how much is left."""
    text = f"{of['route']} {of['used']}/{of['hard'] or '-'} a {of['per']}"
    colour = {"spent": "red", "warned": "yellow"}.get(of["level"])
    return f"[{colour}]{text}[/]" if colour else text


def curve(counts: list[int], blocks: str = BLOCKS) -> str:
    """Return the curve of requests in blocks."""
    size = -(-len(counts) // CURVE) or 1
    sums = [sum(counts[at : at + size]) for at in range(0, len(counts), size)]
    most = max([*sums, 1])
    return "".join(blocks[-(-count * (len(blocks) - 1) // most)] for count in sums)


def coloured(state: str, *, bad: bool = False) -> str:
    """Return a state in its colour."""
    from gateway.admin.html import state_name

    return f"[{'red' if bad else COLOURS.get(state, 'red')}]{state_name(state)}[/]"
