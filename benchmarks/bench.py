"""Compares the gateway with its peers under the same load, on one core each.

    python -m benchmarks.bench [--scenarios small,post] [--peers envoy,lua] [--rounds 5] [--seconds 3] [--quick]

All peers of a scenario run at the same time and are put under load in turn, so that other load on the machine affects
them equally. A run of everything writes `results/latest.*`, unless its rounds differ too much for a ratio to mean
anything. A run of a part writes `results/part.*`, which is not committed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import idle, load, page, peers, scenarios
from benchmarks.processes import c_compiler, cores, is_compiled, wait_for
from benchmarks.report import DIRECT, MINE, Report, Result, Results, Round, unsteady
from benchmarks.witness import Witness, demand

if TYPE_CHECKING:
    from benchmarks.peers import Peer, Place
    from benchmarks.processes import Subject
    from benchmarks.scenarios import Scenario

console = Console(stderr=True)
TOOLS = {"taskset": "util-linux", "nginx": peers.DEBIAN, "wrk": peers.DEBIAN, "h2load": peers.DEBIAN}


@dataclass(slots=True)
class Turn:
    """A running peer, and its results so far."""

    subject: Subject
    result: Result
    witness: Witness | None = None
    sent: int = 0

    def sends(self, seen: load.Load) -> None:
        """Count a load. End the run if any of its requests failed."""
        if seen.wrong or not seen.requests:
            raise SystemExit(
                f"{self.subject.name}: {seen.wrong} of {seen.requests} requests went wrong: {seen.complaint}"
            )
        self.sent += seen.requests
        if self.witness:
            self.witness.sends(seen.requests, seen.cut_off)


def request_of(scenario: Scenario, subject: Subject, folder: Path) -> load.Request:
    """Return the request that a scenario sends to a subject."""
    url, headers, body = subject.url + subject.prefix + scenario.path, scenario.headers, folder / "body"
    if subject.name == DIRECT:
        headers["Authorization"] = "Bearer bench-direct"
    if not scenario.body:
        return load.Request(url, headers)
    body.write_bytes(scenario.body)
    return load.Request(url, headers, "POST", body)


def one_round(scenario: Scenario, turn: Turn, folder: Path, seconds: int) -> Round:
    """Put one subject under load, and return what it cost."""
    request, connections = request_of(scenario, turn.subject, folder), scenario.connections
    before = turn.subject.cpu()
    if rate := scenario.per_second:
        seen = load.exactly(request, rate * seconds, connections=connections, folder=folder, per_second=rate)
    else:
        seen = load.saturate(request, seconds=seconds, connections=connections, folder=folder)
    spent = turn.subject.cpu() - before
    turn.sends(seen)
    return Round(
        cpu_us=spent / seen.requests * 1e6,
        per_second=seen.requests / seen.seconds,
        p50_ms=seen.p50 * 1e3,
        p99_ms=seen.p99 * 1e3,
        busy=spent / seen.seconds,
    )


def begin(scenario: Scenario, peer: Peer, here: Place, stack: contextlib.ExitStack) -> Turn:
    """Start a peer, wait until it serves, and warm it up."""
    subject, admin = stack.enter_context(peers.started(peer, here))
    try:
        ready = wait_for(subject.url + subject.prefix + scenarios.SMALL) - subject.began
    except TimeoutError:
        raise SystemExit(f"{peer.name} does not serve:\n{peers.said(peer, here)}") from None
    turn = Turn(subject, Result(peer.name, peer.title, ready_s=ready, rss_start_mib=subject.rss()))
    if peer.name == MINE:
        turn.witness = Witness(subject, admin, scenarios.SMALL)
    number = 2000 if len(scenario.body) < 100_000 else 20
    warm = replace(scenario, path=scenarios.SMALL if scenario.idle else scenario.path)
    turn.sends(load.exactly(request_of(warm, subject, here.folder), number, connections=8, folder=here.folder))
    return turn


def take_turns(scenario: Scenario, turns: list[Turn], folder: Path, options: argparse.Namespace) -> None:
    """Run the interleaved rounds."""
    for number in range(options.rounds):
        for turn in turns:
            console.print(f"  {scenario.name}: round {number + 1}, {turn.subject.name}", style="dim")
            seen = one_round(scenario, turn, folder, options.seconds)
            turn.result = replace(turn.result, rounds=(*turn.result.rounds, seen))


def hold_idle(scenario: Scenario, turns: list[Turn], folder: Path) -> None:
    """Open the idle connections and measure their memory."""
    for turn in turns:
        console.print(f"  {scenario.name}: {turn.subject.name}", style="dim")
        request, before = request_of(scenario, turn.subject, folder), turn.subject.rss()
        seen, after = idle.hold(request, scenario.idle, turn.subject.rss)
        turn.sends(seen)
        turn.result = replace(turn.result, connection_kib=(after - before) * 1024 / scenario.idle)


def run(scenario: Scenario, chosen: list[Peer], options: argparse.Namespace) -> list[Result]:
    """Run one scenario."""
    core, other = options.cores
    with contextlib.ExitStack() as last:
        folder = Path(last.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        here = last.enter_context(peers.place(folder, core, other, tls=scenario.tls, token_life=scenario.token_life))
        with contextlib.ExitStack() as stack:
            turns = [begin(scenario, peer, here, stack) for peer in chosen]
            if scenario.direct:
                turns.append(Turn(here.vendor, Result(DIRECT, "no proxy")))
            if scenario.idle:
                hold_idle(scenario, turns, folder)
            else:
                take_turns(scenario, turns, folder, options)
            for turn in turns:
                turn.result = replace(turn.result, rss_mib=turn.subject.rss())
                if turn.witness:
                    turn.result = replace(turn.result, token_fetches=turn.witness.close())
                    demand(scenario.token_life > 60 or bool(turn.result.token_fetches), "no token was fetched")
        for peer, turn in zip(chosen, turns, strict=False):
            if peer.lines:
                peers.check_lines(peer, here, turn.sent)
            if turn.witness:
                turn.witness.read(peers.lines_of(peer, here))
    return [turn.result for turn in turns]


def allow_files(number: int = 65536) -> None:
    """Raise the limit of open files for every process of the run, as far as this user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(number, most)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def present(names: list[str]) -> list[Peer]:
    """Return the peers that are installed; print which are not."""
    chosen = [peers.BY_NAME[name] for name in names]
    for peer in chosen:
        if peer.missing():
            console.print(f"left out: {peer.title} is not installed ({peer.missing()})", style="yellow")
    return [peer for peer in chosen if not peer.missing()]


def about(options: argparse.Namespace, chosen: list[Peer]) -> dict[str, object]:
    """Return the facts that a reader needs to judge a run: date, machine, versions, rounds."""
    gone = [peers.BY_NAME[name].title for name in options.peers if peers.BY_NAME[name] not in chosen]
    parts = [f"{name} {version(name)}" for name in ("aiohttp", "uvloop")]
    parts.append(f"hot path compiled by mypyc {version('mypy')}, {c_compiler()}" if is_compiled() else "not compiled")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": [f"Python {platform.python_version()}", *parts, *filter(None, map(peers.version, chosen))],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "left_out": gone,
    }


def complain(found: Results) -> bool:
    """Print which ratios differ too much between rounds; return whether any does."""
    shaky = unsteady(found)
    for scenario, peer, figure, spread in shaky:
        console.print(f"{scenario}: {figure} ÷ {peer} differs by {spread:.0%} between rounds", style="yellow")
    return bool(shaky)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenarios", default=",".join(scenarios.BY_NAME))
    parser.add_argument("--peers", default=",".join(peers.BY_NAME), help="beside the gateway, which always takes part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="length of one round of one peer")
    parser.add_argument("--quick", action="store_true", help="other defaults: small JSON, Envoy and the plain proxy")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(scenarios="small", peers="envoy,plain", rounds=3)
    options = parser.parse_args()
    names, options.peers = options.scenarios.split(","), list(dict.fromkeys([MINE, *options.peers.split(",")]))
    if unknown := {*names} - {*scenarios.BY_NAME} | {*options.peers} - {*peers.BY_NAME}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for tool, package in TOOLS.items():
        if not peers.find(tool):
            sys.exit(f"{tool} is not installed: {package}")
    options.cores = core, other = cores()
    if core == other:
        console.print("one core for everything: the figures mean little", style="yellow")
    os.sched_setaffinity(0, {other})
    allow_files()
    chosen = present(options.peers)
    found: Results = {}
    for name in names:
        scenario = scenarios.BY_NAME[name]
        takes_part = [peer for peer in chosen if not scenario.only or peer.name in scenario.only]
        found[name] = run(scenario, takes_part, options)
        if complain({name: found[name]}):
            console.print(f"{name} once more; what that shows counts, whichever is better", style="yellow")
            found[name] = run(scenario, takes_part, options)
        Console(width=130).print(page.on_terminal(scenario, found[name]))
    whole = set(names) == set(scenarios.BY_NAME) and set(options.peers) == set(peers.BY_NAME)
    if complain(found) and whole:
        page.write(Report(about(options, chosen), found), "part")
        sys.exit(
            "not recorded: ratios with such a spread mean nothing; run again on a quiet machine (see results/part.md)"
        )
    report = Report(about(options, chosen), found)
    if whole:
        page.remember(report)
    page.write(report, "latest" if whole else "part")


if __name__ == "__main__":
    main()
