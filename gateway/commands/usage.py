"""`usage`: what clients have used of vendors in a month, and what it costs. Reads no configuration, needs no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import console, example, table, url_option
from gateway.commands.status import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("client", "route", "day", "calls", "billed", "cost", "currency")


@click.command(epilog=example("gatepass usage", "gatepass usage --month 2026-11 --csv > november.csv"))
@url_option
@click.option("--month", metavar="YYYY-MM", help="The month, in UTC. Default: the current one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per client, route and day, as CSV (RFC 4180).")
def usage(url: str, month: str | None, as_csv: bool) -> None:
    """Show how many calls each client has made, and what they cost.

    Asks the admin port of a running gateway. With a `store` the figures are the sums over all instances. Billed are
    the calls that a vendor answered with 101, 2xx or 3xx. The cost is known for routes with a `price`.
    """
    data = ask(url, "/usage.json" + (f"?month={month}" if month else ""), "totals")
    if not data.get("complete", True):
        click.echo("The store is away: calls of other instances may be missing.", err=True)
    if as_csv:
        _print_csv(data)
    else:
        _print_table(data)


def _print_csv(data: Mapping[str, Any]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in data["days"])
    click.echo(text.getvalue(), nl=False)


def _print_table(data: Mapping[str, Any]) -> None:
    shown = table("client", "route", "calls", "billed", "cost")
    for row in data["totals"]:
        cost = "-" if row["cost"] is None else f"{row['cost']} {row['currency']}"
        shown.add_row(row["client"], row["route"], str(row["calls"]), str(row["billed"]), cost)
    out = console()
    out.print(f"Usage in {data['month']}")
    out.print(shown)
