"""`usage`: what clients have used of vendors in a month, and what it costs. Reads no configuration, needs no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.ask import as_of_this_version, ask, plain
from gateway.commands.options import console, example, table, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("client", "route", "day", "calls", "billed", "cost", "currency")


def a_month(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """Return the month; an empty text is a mistake, because a script would get another month than it wants."""
    from gateway.admin.usage import MONTH

    if text is not None and not MONTH.fullmatch(text):
        raise click.BadParameter("must be a year and a month, as 2026-11")
    return text


@click.command(epilog=example("gatepass usage", "gatepass usage --month 2026-11 --csv > november.csv"))
@url_option
@click.option("--month", metavar="YYYY-MM", callback=a_month, help="The month, in UTC. Default: the current one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per client, route and day, as CSV (RFC 4180).")
def usage(url: str, month: str | None, as_csv: bool) -> None:
    """Show how many calls each client has made, and what they cost.

    Asks the admin port of a running gateway. With a `store` the figures are the sums over all instances. Billed are
    the calls that a vendor answered with 101, 2xx or 3xx. The cost is known for routes with a `price`.
    """
    data = ask(url, "/usage.json" + (f"?month={month}" if month else ""), "totals")
    if not data.get("complete", True):
        click.echo("The store is away: calls of other instances may be missing.", err=True)
    if data.get("kept_from"):
        click.echo(f"Calls before {plain(str(data['kept_from']))} are no longer kept and may be missing.", err=True)
    with as_of_this_version(url, data):
        text = _csv(plain(data)) if as_csv else _table(plain(data))
    click.echo(text, nl=False, color=True)  # only now, so that there is all of it or none


def _csv(data: Mapping[str, Any]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in data["days"])
    return text.getvalue()


def _table(data: Mapping[str, Any]) -> str:
    shown = table("client", "route", "calls", "billed", "cost")
    for row in data["totals"]:
        cost = "-" if row["cost"] is None else f"{row['cost']} {row['currency']}"
        shown.add_row(row["client"], row["route"], str(row["calls"]), str(row["billed"]), cost)
    out = console()
    with out.capture() as text:
        out.print(f"Usage in {data['month']}")
        out.print(shown)
    return text.get()
