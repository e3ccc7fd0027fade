"""The results of a run as numbers: rounds, medians, ratios, goals. Pure; `page` shows them."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Final

MINE = "gatepass"
DIRECT = "direct"
"""Not a peer: the load goes directly to the vendor."""


@dataclass(frozen=True, slots=True)
class Round:
    """One subject under load for some seconds."""

    cpu_us: float
    """CPU per request, microseconds."""
    per_second: float
    p50_ms: float
    p99_ms: float
    busy: float
    """Share of its core that the subject used. Below 0.9 something else was the limit, and `per_second` is too low."""


@dataclass(frozen=True, slots=True)
class Result:
    """One subject in one scenario. `None`: does not apply."""

    name: str
    title: str
    rounds: tuple[Round, ...] = ()
    ready_s: float | None = None
    """From its start to its first 200."""
    rss_start_mib: float | None = None
    rss_mib: float | None = None
    """After the load."""
    connection_kib: float | None = None
    """Memory of one idle connection."""
    token_fetches: int | None = None
    """Under load; no request waited for a fetch."""

    def median(self, figure: str) -> float | None:
        """Return the median of a figure over the rounds; a figure that is measured once, as it is."""
        seen: list[float] = [getattr(one, figure) for one in self.rounds] if figure in Round.__slots__ else []
        alone: float | None = getattr(self, figure, None)
        return statistics.median(seen) if seen else alone

    def spread(self, figure: str) -> float:
        """Return the range of the rounds as a share of their median."""
        seen: list[float] = [getattr(one, figure) for one in self.rounds]
        return (max(seen) - min(seen)) / statistics.median(seen)


Results = dict[str, list[Result]]
"""By scenario."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    about: dict[str, Any]
    """Machine, versions, rounds."""
    results: Results

    def stored(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return the date, the load and every CPU ratio of the run, to be kept beside those of other runs."""
        ratios = {
            scenario: {
                one.name: round(seen, 3)
                for one in results
                if one.name not in {MINE, DIRECT} and (seen := ratio(mine, one, "cpu_us")) is not None
            }
            for scenario, results in self.results.items()
            if (mine := named(results, MINE)) is not None
        }
        parts = ("date", "machine", "load", "rounds", "seconds")
        return {part: self.about[part] for part in parts} | {"cpu": {name: its for name, its in ratios.items() if its}}

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Report:
        """Return the report whose `stored` form is given."""
        results = {name: [result_of(one) for one in found] for name, found in stored["results"].items()}
        return cls(stored["about"], results)


RUNS_KEPT: Final = 8
"""Recorded runs that are quoted together."""


def kept(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest runs that are kept."""
    return runs[-RUNS_KEPT:]


def result_of(stored: dict[str, Any]) -> Result:
    """Return the result whose stored form is given."""
    return Result(**{**stored, "rounds": tuple(Round(**one) for one in stored["rounds"])})


def named(results: list[Result], name: str) -> Result | None:
    """Return one subject's result."""
    return next((one for one in results if one.name == name), None)


STEADY: Final = 0.5
"""A ratio whose rounds differ by more than this share of their median means nothing and is not recorded."""


def ratios(mine: Result | None, its: Result | None, figure: str) -> list[float]:
    """Return the gateway's figure divided by a peer's for each round, in which one ran right after the other.

    Returns one ratio for a figure that is measured once, and none if either figure is missing.
    """
    if mine is None or its is None:
        return []
    if figure in Round.__slots__:
        pairs = [(getattr(a, figure), getattr(b, figure)) for a, b in zip(mine.rounds, its.rounds, strict=False)]
    else:
        pairs = [(mine.median(figure), its.median(figure))]
    return [above / below for above, below in pairs if above and below]


def ratio(mine: Result | None, its: Result | None, figure: str) -> float | None:
    """Return the median of the paired ratios."""
    seen = ratios(mine, its, figure)
    return statistics.median(seen) if seen else None


def ratio_spread(mine: Result | None, its: Result | None, figure: str) -> float | None:
    """Return the range of the paired ratios as a share of their median."""
    seen = ratios(mine, its, figure)
    return (max(seen) - min(seen)) / statistics.median(seen) if len(seen) > 1 else None


def unsteady(results: Results) -> list[tuple[str, str, str, float]]:
    """Return scenario, peer, figure and spread of each goal's ratio that is not steady enough to be recorded."""
    found = []
    for scenario, peer, _, _ in RATIOS:
        seen = results.get(scenario, [])
        for figure in ("cpu_us", "per_second"):
            spread = ratio_spread(named(seen, MINE), named(seen, peer), figure)
            if spread is not None and spread > STEADY:
                found.append((scenario, peer, figure, spread))
    return found


def added(one: Result, results: list[Result]) -> float | None:
    """Return the milliseconds that a proxy adds to the 99th percentile without one."""
    direct, its = named(results, DIRECT), one.median("p99_ms")
    bare = direct.median("p99_ms") if direct else None
    return its - bare if its is not None and bare is not None and one is not direct else None


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that the gateway must reach, relative to a peer, or absolute if `peer` is empty.

    Without a scenario, the median over all scenarios counts, because the gateway starts once in each.
    """

    scenario: str
    peer: str
    figure: str
    at_most: float | None = None
    at_least: float | None = None

    def seen(self, results: Results) -> float | None:
        """Return the measured figure; None if it was not measured."""
        if not self.scenario:
            ours = [named(found, MINE) for found in results.values()]
            figures = [figure for one in ours if one is not None and (figure := one.median(self.figure)) is not None]
            return statistics.median(figures) if figures else None
        found = results.get(self.scenario, [])
        mine, its = named(found, MINE), named(found, self.peer)
        if mine is None or (self.peer and its is None):
            return None
        if self.figure == "p99_added_ms" and its:
            above, below = added(mine, found), added(its, found)
            return above / below if above is not None and below else None
        return ratio(mine, its, self.figure) if self.peer else mine.median(self.figure)

    def met(self, seen: float) -> bool:
        """Return whether a figure reaches the goal."""
        return (self.at_most is None or seen <= self.at_most) and (self.at_least is None or seen >= self.at_least)


RATIOS = (
    ("small", "envoy", 0.80, 1.25),
    ("small", "traefik", 0.40, 2.0),
    ("small", "caddy", 0.28, 2.5),
    ("small", "plain", 0.22, 4.5),
    ("small", "lua", 2.7, 0.4),
    ("post", "envoy", 0.90, 1.1),
    ("download", "envoy", 1.1, 0.9),
    ("upload", "envoy", 1.1, 0.9),
)
"""Scenario and peer; the most CPU per request and the fewest requests per second, as ratios to the peer."""
GOALS = (
    *(Goal(scenario, peer, "cpu_us", at_most=cpu) for scenario, peer, cpu, _ in RATIOS),
    *(Goal(scenario, peer, "per_second", at_least=rate) for scenario, peer, _, rate in RATIOS),
    Goal("constant", "envoy", "p99_added_ms", at_most=1.0),
    Goal("small", "envoy", "rss_mib", at_most=1.0),
    Goal("", "", "ready_s", at_most=0.7),
)
