"""Every failure that an app can see is on the page, with the status that the code gives it, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.errors import ExchangeError, TokenError, UpstreamError

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<code>\w+)` \| (?P<status>\d{3}|-) \| (?P<hop>\w[\w ]*) \|", re.MULTILINE)
ROOTS = {TokenError, UpstreamError}
"""Classes that are only caught, never raised."""
NEVER_ANSWERED = {"aborted", "client_gone"}


def every(kind: type[ExchangeError]) -> set[type[ExchangeError]]:
    """Return the class and all below it."""
    return {kind}.union(*(every(below) for below in kind.__subclasses__()))


def test_the_page_and_the_code_hold_the_same_failures() -> None:
    shown = {(row["code"], row["status"], row["hop"].replace(" ", "_")) for row in ROW.finditer(PAGE)}
    raised = {
        (kind.code, "-" if kind.code in NEVER_ANSWERED else str(kind.status), kind.hop)
        for kind in every(ExchangeError) - ROOTS
        if kind.__module__ == "gateway.errors"
    }
    assert shown == raised


def test_each_failure_stands_on_the_page_once() -> None:
    codes = [row["code"] for row in ROW.finditer(PAGE)]
    assert len(codes) == len(set(codes))
