"""The last quarter of an hour, from counters that only go up."""

from __future__ import annotations

import pytest

from gateway.admin.history import STEPS, History, hop_of, quantile
from gateway.observe import Metrics


@pytest.mark.parametrize(
    ("status", "code", "hop"),
    [
        ("200", "", None),
        ("404", "", None),
        ("503", "", "vendor"),
        ("401", "client_unknown", "app"),
        ("499", "client_gone", "app"),
        ("500", "internal", "gateway"),
        ("503", "token_unavailable", "token_endpoint"),
        ("502", "credential_refused", "token_endpoint"),
        ("504", "upstream_timeout", "upstream"),
        ("502", "aborted", "upstream"),
    ],
)
def test_every_failure_belongs_to_the_hop_that_failed(status: str, code: str, hop: str | None) -> None:
    assert hop_of(status, code) == hop


def answer(metrics: Metrics, times: int, status: int = 200, code: str = "", seconds: float = 0.004) -> None:
    for _ in range(times):
        metrics.route("idfy").request("GET", status, code, seconds, None, 0, 0)


def test_a_summary_holds_what_happened_since_the_oldest_sample_and_no_more() -> None:
    metrics = Metrics()
    history = History(metrics)
    answer(metrics, 100, seconds=30.0)
    for _ in range(STEPS):
        history.take()
    answer(metrics, 3)
    answer(metrics, 2, 503, "token_unavailable")
    [summary] = history.routes(["idfy"])
    assert (summary.total, summary.requests) == (105, 5)
    assert summary.errors["token_endpoint"] == 2
    assert summary.p99 is not None
    assert summary.p99 <= 0.005, "the slow ones are older than the window"
    assert summary.curve == (0,) * (STEPS - 1) + (5,)


def test_the_curve_has_a_place_for_every_step_from_the_start() -> None:
    metrics = Metrics()
    history = History(metrics)
    answer(metrics, 2)
    history.take()
    answer(metrics, 7)
    [summary] = history.routes(["idfy"])
    assert summary.curve == (0,) * (STEPS - 2) + (2, 7)


def test_a_route_without_a_request_has_no_latency() -> None:
    [summary] = History(Metrics()).routes(["quiet"])
    assert (summary.requests, summary.p50, summary.p99, max(summary.curve)) == (0, None, None, 0)


def test_a_route_that_was_taken_away_and_came_back_is_not_counted_backwards() -> None:
    metrics = Metrics()
    history = History(metrics)
    answer(metrics, 50)
    for _ in range(STEPS):
        history.take()
    metrics.keep("route", ())
    answer(metrics, 4)
    [summary] = history.routes(["idfy"])
    assert summary.requests == 4
    assert min(summary.curve) == 0


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [(0.5, [10, 0, 0, 0], 0.5), (0.5, [0, 10, 0, 0], 1.5), (0.99, [0, 0, 0, 10], 4.0), (0.5, [0, 0, 0, 0], None)],
    ids=["first bucket", "second", "beyond", "none"],
)
def test_a_quantile_is_what_prometheus_would_say(share: float, counts: list[int], expected: float | None) -> None:
    assert quantile(share, counts, (1.0, 2.0, 4.0)) == expected
