"""The pure parts of the bench: what is read from the load generators, how figures compare, what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from benchmarks import guard, load, page, peers, scenarios, witness
from benchmarks.processes import ROOT, compiled_for, render
from benchmarks.report import (
    DIRECT,
    RUNS_KEPT,
    Goal,
    Report,
    Result,
    Round,
    added,
    kept,
    ratio,
    ratio_spread,
    unsteady,
)

if TYPE_CHECKING:
    from pathlib import Path

WRK = """\
Running 3s test @ http://127.0.0.1:8080/bench/v1/checks/7f4c2a
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    21.80ms   12.99ms 158.98ms   91.09%
  Latency Distribution
     50%  980.00us
     75%   24.85ms
     90%   32.46ms
     99%    1.20s
  7953 requests in 3.10s, 2.98MB read
"""
WRONG = "  Socket errors: connect 0, read 3, write 1, timeout 2\n  Non-2xx or 3xx responses: 10\n"
DUMP = """\
fn=handle
cfn=malloc
calls=7 0
cfn=malloc_usable
calls=5 0
cfn=realloc
calls=2 0
totals: 4100
"""


def result(name: str, *cpu: float, ready_s: float | None = None) -> Result:
    rounds = tuple(Round(cpu_us=one, per_second=1e6 / one, p50_ms=1.0, p99_ms=2.0, busy=0.95) for one in cpu)
    return Result(name, name.title(), rounds, ready_s)


def waiting(name: str, p99: float) -> Result:
    return Result(name, name.title(), (Round(cpu_us=50, per_second=1000, p50_ms=1, p99_ms=p99, busy=0.1),))


def test_wrk_tells_requests_seconds_and_latencies() -> None:
    assert load.read_wrk(WRK) == load.Load(7953, 0, 3.1, 0.00098, 1.2)


def test_wrk_tells_what_went_wrong() -> None:
    """Errors of sockets and bad statuses alike."""
    assert load.read_wrk(WRK + WRONG).wrong == 16


def test_what_is_no_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a report"):
        load.read_wrk("unable to connect")


def test_h2load_s_log_gives_each_latency() -> None:
    """Start in µs, status, time to the last byte in µs; a failed request has the status -1."""
    seen = load.read_h2load("1000000\t200\t1000\n1500000\t200\t1000\n1999000\t-1\t1000\n")
    assert (seen.requests, seen.wrong, seen.seconds, seen.p50) == (3, 1, 1.0, 0.001)


def test_a_ratio_is_the_median_of_paired_rounds() -> None:
    """A neighbour that slows one round down slows both of its proxies down."""
    mine, its = result("gatepass", 10, 200, 12), result("envoy", 20, 400, 20)
    assert ratio(mine, its, "cpu_us") == 0.5
    assert ratio_spread(mine, its, "cpu_us") == pytest.approx(0.2)
    assert ratio_spread(result("gatepass", 10), its, "cpu_us") is None


def test_a_ratio_that_differs_by_more_than_half_is_not_steady() -> None:
    steady = [result("gatepass", 10, 11, 10), result("envoy", 20, 20, 20), result("caddy", 40, 40, 40)]
    assert unsteady({"small": steady}) == []
    jumpy = [result("gatepass", 10, 30, 10), result("envoy", 20, 20, 20)]
    assert {(peer, figure) for _, peer, figure, _ in unsteady({"small": jumpy})} == {
        ("envoy", "cpu_us"),
        ("envoy", "per_second"),
    }


def test_a_ratio_to_nothing_is_none() -> None:
    assert ratio(result("gatepass", 10), None, "cpu_us") is None
    assert ratio(result("gatepass", 10), Result("envoy", "Envoy"), "cpu_us") is None


def test_what_a_proxy_adds_is_counted_from_direct() -> None:
    direct = waiting(DIRECT, 1.5)
    assert added(waiting("gatepass", 2.0), [direct]) == 0.5
    assert added(direct, [direct]) is None


@pytest.mark.parametrize(("cpu", "met"), [(8, True), (8.1, False)])
def test_a_goal_is_met_up_to_its_bound(cpu: float, met: bool) -> None:
    goal = Goal("small", "envoy", "cpu_us", at_most=0.8)
    seen = goal.seen({"small": [result("gatepass", cpu), result("envoy", 10)]})
    assert seen is not None
    assert goal.met(seen) is met


def test_a_goal_that_was_not_measured_is_neither_met_nor_missed() -> None:
    assert Goal("small", "envoy", "cpu_us", at_most=0.8).seen({"small": [result("gatepass", 1)]}) is None


def test_a_goal_without_a_scenario_is_a_median_over_all_of_them() -> None:
    """A start is measured once in each; the first one alone is that of a cold disk."""
    found = {name: [result("gatepass", 1, ready_s=ready)] for name, ready in (("small", 0.9), ("tls", 0.5), ("x", 0.6))}
    assert Goal("", "", "ready_s", at_most=0.7).seen({**found, "y": [result("envoy", 1, ready_s=9)]}) == 0.6
    assert Goal("", "", "ready_s", at_most=0.7).seen({"y": [result("gatepass", 1)]}) is None


def test_a_report_survives_its_file() -> None:
    report = Report({"rounds": 3}, {"small": [result("gatepass", 10.0, 20.0, ready_s=0.5)]})
    assert Report.read(orjson.loads(orjson.dumps(report.stored()))) == report


def test_a_page_has_a_row_for_each_subject_and_says_who_is_missing() -> None:
    about = {
        "rounds": 3,
        "load": 2.0,
        "seconds": 2,
        "date": "2026-01-01",
        "machine": "a",
        "versions": ["b 1"],
        "left_out": ["Caddy"],
    }
    text = page.markdown(Report(about, {"small": [result("gatepass", 10), result("envoy", 20)]}), "x.svg")
    assert "| Gatepass | 10 | 100,000 |" in text
    assert "| Envoy | 20 | 50,000 | 1.00 | 2.00 |  |  | 0.50 | 2.00 |" in text
    assert "Left out, because not installed: Caddy." in text


def test_what_was_not_busy_served_at_least_so_much() -> None:
    idle = Result("nginx", "nginx", (Round(cpu_us=18, per_second=30_000, p50_ms=1, p99_ms=2, busy=0.6),))
    assert page.rate(idle) == "≥ 30,000"


def test_the_picture_has_a_bar_for_each_proxy() -> None:
    drawn = page.picture(Report({}, {"small": [result("gatepass", 10), result("envoy", 20), result(DIRECT, 1)]}))
    assert drawn.count("<rect ") == 2
    assert 'class="mine"' in drawn


def test_the_document_has_a_place_for_the_result() -> None:
    assert page.MARKED.search(page.DOCUMENT.read_text(encoding="utf-8"))


def test_callgrind_s_file_gives_instructions_and_calls_for_memory() -> None:
    """Of malloc, calloc and realloc, and of nothing that only begins like them."""
    assert guard.read_dump(DUMP) == {"instructions": 4100, "allocations": 9}


@pytest.mark.parametrize(
    ("seen", "held", "worse"), [(104, 100, False), (106, 100, True), (0.4, 0.0, False), (0.6, 0.0, True)]
)
def test_a_cost_may_grow_by_a_twentieth(seen: float, held: float, worse: bool) -> None:
    assert guard.worse(seen, held) is worse


def test_metrics_are_summed_by_name_and_client() -> None:
    text = '# TYPE a counter\na_total{client="bench",route="x"} 2\na_total{client="bench",route="y"} 3\na_total 1\n'
    found = witness.sums(text)
    assert (found["a_total"], found["a_total bench"]) == (6, 5)


def test_a_line_without_a_fingerprint_ends_the_run() -> None:
    line = {"event": "request", "client": "bench", "status": 200, "fingerprint": None, "path": "/x", "request_id": "1"}
    with pytest.raises(SystemExit, match="lacks something"):
        witness.kinds([orjson.dumps(line)])


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("peer", [peer for peer in peers.PEERS if peer.config], ids=lambda peer: peer.name)
def test_every_configuration_can_be_written(peer: peers.Peer, tls: bool, tmp_path: Path) -> None:
    ports: dict[str, Any] = {"port": 1, "admin": 2, "upstream": 3, "token_port": 4}
    for template in (peer.config, *peer.more):
        written = render(template, tmp_path, name=peer.name, tls=tls, lines="lines", **ports, **peer.values)
        assert "{{" not in written.read_text(encoding="utf-8")


def test_a_peer_that_is_not_installed_says_where_it_comes_from() -> None:
    assert peers.Peer("x", "X", ("no-such-command",), package=peers.WHEEL).missing() == peers.WHEEL


@pytest.mark.parametrize(("name", "size"), [("post", 20_000), ("upload", 5 * 1024 * 1024)])
def test_bodies_have_the_size_that_the_scenario_names(name: str, size: int) -> None:
    assert size * 0.98 < len(scenarios.BY_NAME[name].body) < size * 1.02


ABOUT = {"date": "2026-11-20", "machine": "2 cores", "load": 2.0, "rounds": 2, "seconds": 1, "left_out": []}


def test_a_run_is_summarised_by_its_cpu_ratios() -> None:
    results = [result("gatepass", 10, 12), result("envoy", 20, 24), result(DIRECT, 1, 1)]
    waits = [result("gatepass"), result("envoy")]
    summary = Report(ABOUT, {"small": results, "idle": waits}).summary()
    assert summary["cpu"] == {"small": {"envoy": 0.5}}
    assert summary["date"] == "2026-11-20"


def test_readme_quotes_the_lowest_and_the_highest_run() -> None:
    runs = [
        {"date": f"2026-11-{day}", "cpu": {"small": {"envoy": ratio}}}
        for day, ratio in ((20, 0.7), (21, 0.4), (22, 0.5))
    ]
    text = page.ranges(runs)
    assert "| small request | Envoy, credential_injector | 0.40 to 0.70 |" in text
    assert "3 recorded runs" in text
    assert "HAProxy" not in text, "a peer that no run had"


def test_only_the_newest_runs_are_kept() -> None:
    runs = [{"date": str(number)} for number in range(20)]
    assert kept(runs)[-1] == {"date": "19"}
    assert len(kept(runs)) == RUNS_KEPT


def test_readme_shows_the_recorded_runs() -> None:
    found = page.MARKED.search(page.README.read_text(encoding="utf-8"))
    assert found is not None
    assert page.ranges(page.recorded()) in found[0]


@pytest.mark.parametrize("name", ["", "-3.13"])
def test_the_compiled_gateway_of_each_environment_is_found(name: str) -> None:
    """Where the Makefile puts it; else the bench would measure plain Python without a word."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "COMPILED := build/compiled$(patsubst .venv%,%,$(VENV))" in makefile
    assert compiled_for(ROOT / f".venv{name}") == ROOT / "build" / f"compiled{name}"
