"""Prints the demo: a heading and a table for each act, and at the end one line for each claim.

The output is the same in a terminal and in a log file: nothing depends on colour alone, and no line is redrawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise of Gatepass, whether it was kept, and the figures that show it."""

    promise: str
    figures: str
    held: bool


@dataclass
class Report:
    """Prints each act when it ends, and collects the claims."""

    console: Console
    claims: list[Claim] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line without breaking it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def act(self, number: int, title: str, what: str) -> None:
        """Print the heading of an act."""
        self.console.print(f"\n[bold]{number}. {escape(title)}[/bold]\n[dim]{escape(what)}[/dim]", highlight=False)

    def table(self, columns: Row, rows: list[Row]) -> None:
        """Print a table; columns of figures, as their names show, are aligned right."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            right = column in {"ms", "median ms", "slowest ms", "requests", "failed", "expired", "token requests"}
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table, highlight=False)

    def claim(self, promise: str, figures: str, *, held: bool) -> None:
        """Collect a claim for the end."""
        self.claims.append(Claim(promise, figures, held))

    def verdict(self) -> bool:
        """Print all claims; return whether all are true."""
        self.console.print("\n[bold]What was promised, and what happened[/bold]", highlight=False)
        for claim in self.claims:
            mark = "[green]✓[/green]" if claim.held else "[bold red]✗[/bold red]"
            self.console.print(
                f" {mark} {escape(claim.promise)}: {escape(claim.figures)}", highlight=False, soft_wrap=True
            )
        return bool(self.claims) and all(claim.held for claim in self.claims)
