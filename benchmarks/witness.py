"""Compares the gateway's own records of a run with the load: its log lines and counters must match the sent requests.

A gateway that skips work would make the bench worthless. So each feature is seen at work: keys (a request without one),
rules (a request that no rule allows), a limit (a client that may send one request), budgets, counters and log lines.
Every difference ends the run.
"""

from __future__ import annotations

import time
import urllib.request
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import orjson
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import KEY, PROBE, ask, is_compiled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.processes import Subject

REFUSALS = (
    (None, "GET", 401, "a request without a key"),
    (KEY, "DELETE", 403, "one that no rule allows"),
    (PROBE, "GET", 200, "a first request"),
    (PROBE, "GET", 429, "one over a limit"),
)
COUNTED = ("gatepass_requests_total", "gatepass_client_requests_total", "gatepass_client_budget_used bench")
"""Each must grow by the number of requests that were sent."""


def demand(holds: bool, what: str) -> None:
    """End the run unless a condition holds."""
    if not holds:
        raise SystemExit(f"the gateway's own records are wrong: {what}")


def sums(exposition: str) -> dict[str, float]:
    """Return the sum of each metric's samples by name, and by name and client."""
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found[sample.name] += sample.value
            if client := sample.labels.get("client"):
                found[f"{sample.name} {client}"] += sample.value
    return found


def kinds(lines: Iterable[bytes]) -> Counter[tuple[str, int]]:
    """Return the logged requests by client and status. End the run if a line with status 200 is incomplete."""
    found: Counter[tuple[str, int]] = Counter()
    for line in map(orjson.loads, lines):
        if line["event"] == "request":
            found[line["client"], line["status"]] += 1
            complete = line["status"] != 200 or all(line[name] for name in ("fingerprint", "path", "request_id"))
            demand(complete, f"a line lacks something: {line}")
    return found


class Witness:
    """The records of one gateway, from before the load to its end."""

    def __init__(self, subject: Subject, admin: int, path: str) -> None:
        for key, method, status, what in REFUSALS:
            seen = ask(subject.url + subject.prefix + path, key, method)
            demand(seen == status, f"{what} was answered with {seen}")
        self.admin = f"http://127.0.0.1:{admin}/metrics"
        self.sent = self.cut_off = 0
        with urllib.request.urlopen(self.admin) as page:
            demand((b'compiled="yes"' in page.read()) == is_compiled(), "its hot path is not the one that was compiled")
        self.before = self.at_rest()

    def at_rest(self) -> dict[str, float]:
        """Wait until no request runs; return the sums of all metrics."""
        last = -1.0
        while True:
            with urllib.request.urlopen(self.admin) as page:
                found = sums(page.read().decode())
            if not found["gatepass_requests_in_flight"] and found["gatepass_requests_total"] == last:
                return found
            last = found["gatepass_requests_total"]
            time.sleep(0.1)

    def sends(self, requests: int, cut_off: int) -> None:
        """Count what the load generator has sent."""
        self.sent += requests
        self.cut_off += cut_off

    def close(self) -> int:
        """Compare the counters with what was sent, while the gateway still runs; return how many tokens it fetched."""
        self.after = self.at_rest()
        most = self.sent + self.cut_off
        for name in COUNTED:
            grown = self.grown(name)
            demand(self.sent <= grown <= most, f"{name} grew by {grown:,.0f}, sent were {self.sent:,} to {most:,}")
        demand(not self.after["gatepass_log_events_dropped_total"], "lines were lost")
        demand(not self.grown("gatepass_token_waits_total"), "requests waited for a token")
        return int(self.grown("gatepass_token_fetches_total"))

    def grown(self, name: str) -> float:
        """Return by how much a metric has grown under the load."""
        return self.after[name] - self.before[name]

    def read(self, log: Path) -> None:
        """Compare the log lines with the counters, after the gateway has ended."""
        with log.open("rb") as file:
            found = kinds(file)
        counted = self.after["gatepass_requests_total"]
        demand(found.total() == counted, f"{found.total():,} lines, {counted:,.0f} requests counted: {dict(found)}")
        demand(found["bench", 200] >= self.sent, f"{found['bench', 200]:,} lines with 200, sent were {self.sent:,}")
