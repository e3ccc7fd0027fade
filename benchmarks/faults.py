"""What each fault does: what apps see, what the operator sees, and how long recovery takes.

    python -m benchmarks.faults [--only NAME] [--seconds 5]

Each fault lasts some seconds, alone, while apps call two vendors; only one of them is at fault, unless the fault is the
process's own. Writes `results/faults.md`. Recovery is the time from the end of the fault to the last failure. It counts
from the moment at which the vendor, the file or the process is well again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import uvloop

from benchmarks.soak import NAMES
from benchmarks.surroundings import KEY, Stage, stage
from benchmarks.troubles import FAULTS, SOUND, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox.vendor import Vendor

RESULT = Path(__file__).parent / "results" / "faults.md"
HURT, OTHER = "idfy", "uqudo"
"""The vendor that is at fault, and one that is well."""
APPS = 6
"""Apps at each vendor."""
SLOW = 1.0
"""Seconds from which an answer counts as late."""
QUIET = 3.0
"""Seconds without a failure after which a fault is over."""
AT_ONCE = 0.1
"""Seconds below which recovery is not told: a request that had begun."""
LONGEST = 60.0
"""Seconds after which recovery is given up."""
LIFE = 4.0
"""Seconds for which tokens are valid, so that each fault meets a refresh."""


@contextlib.asynccontextmanager
async def vendor_down(_stage: Stage, vendor: Vendor) -> AsyncIterator[None]:
    """Refuse and reset every connection to the vendor's API."""
    vendor.api_listener.refuse()
    try:
        yield
    finally:
        await vendor.api_listener.accept()


@contextlib.asynccontextmanager
async def configuration_broken(stage: Stage, _vendor: Vendor) -> AsyncIterator[None]:
    """Write nonsense into the configuration, and put it back."""
    file = stage.folder / "last.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text("routes: [nonsense", encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


MORE = (
    Fault("vendor down", {}, around=vendor_down),
    Fault("vendor hangs", {"api_fault": "hang"}),
    Fault("configuration broken, and put back", {}, around=configuration_broken, everywhere=True),
)


@dataclass
class Seen:
    """What happened to the apps of one vendor."""

    good: int = 0
    late: int = 0
    slowest: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    last_bad: float = 0.0
    """When the last request failed or was late."""

    def words(self) -> str:
        """Say it for the table."""
        parts = [f"{count} × {what}" for what, count in self.failures.most_common()]
        if self.late:
            parts.append(f"{self.late} answers took {self.slowest:.1f} s at most")
        return ", ".join(parts) or "nothing"


async def app(session: aiohttp.ClientSession, url: str, seen: Seen, over: asyncio.Event) -> None:
    """Call again and again, and write down what comes."""
    while not over.is_set():
        began, failure = time.monotonic(), ""
        try:
            async with session.get(url) as answer:
                body = await answer.read()
            if answer.status != 200:
                problem = answer.content_type == "application/problem+json"
                failure = f"{answer.status}{' ' + json.loads(body)['code'] if problem else ''}"
        except (aiohttp.ClientError, OSError, TimeoutError):
            failure = "connection broken"
        ended = time.monotonic()
        late = ended - began > SLOW and not failure
        if failure:
            seen.failures[failure] += 1
        elif late:
            seen.late += 1
            seen.slowest = max(seen.slowest, ended - began)
        else:
            seen.good += 1
        if failure or late:
            seen.last_bad = ended
        await asyncio.sleep(0.02)


def logged(staged: Stage, since: int) -> Counter[str]:
    """Count the events that the log got since then, apart from requests that went well."""
    events: Counter[str] = Counter()
    for line in staged.output.file.read_text(encoding="utf-8", errors="replace")[since:].splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if (
                event["event"] not in STARTING
                and event["event"] != "request"
                and (event["level"] != "info" or event["event"] in AGAIN)
            ):
                events[event["event"]] += 1
    return events


STARTING = frozenset({"loopback_in_container", "few_descriptors"})
"""Events that may come late after the start."""
AGAIN = frozenset({"files_available", "name_resolved_again", "reload_recovered"})
"""Events of level info that say that a fault is over."""


async def metrics(staged: Stage) -> dict[str, float]:
    """Return every counter that a fault may raise."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{staged.gateway.admin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = (
        "gatepass_no_descriptor_total",
        "gatepass_log_events_dropped_total",
        'gatepass_state_writes_total{outcome="failed"}',
        'gatepass_config_loads_total{outcome="failed"}',
        "gatepass_upstream_connects_total",
        "gatepass_token_fetches_total",
        "gatepass_upstream_refusals_total",
    )
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted)}
    return {name: value for name, value in found.items() if 'outcome="ok"' not in name and "unchanged" not in name}


@dataclass
class Row:
    """One line of the table."""

    fault: Fault
    hurt: Seen
    other: Seen
    events: Counter[str]
    counted: list[str]
    recovered: float

    def text(self) -> str:
        """Return it in Markdown."""
        operator = [f"`{name}`" for name in dict.fromkeys([*self.events, *map(_short, self.counted)])]
        other = self.other.words()
        apps = self.hurt.words() + (f"; of the other vendor: {other}" if other != "nothing" else "")
        recovered = f"{self.recovered:.1f} s" if self.recovered > AT_ONCE else "at once"
        return f"| {self.fault.name} | {apps} | {', '.join(operator) or 'only requests'} | {recovered} |"


def _short(sample: str) -> str:
    """Return a sample without the labels that name a route, a credential or a cause."""
    return re.sub(r'(route|credential|cause)="[^"]*",?', "", sample).replace(",}", "}").replace("{}", "")


async def meet(staged: Stage, fault: Fault, seconds: float) -> Row:
    """Let one fault happen and see what comes of it."""
    hurt, other, over = Seen(), Seen(), asyncio.Event()
    vendor = staged.sandbox.vendors[HURT]
    since, before = len(staged.output.file.read_text(encoding="utf-8", errors="replace")), await metrics(staged)
    timeout, headers = aiohttp.ClientTimeout(total=40), {"X-Gatepass-Key": KEY}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        base = f"http://{staged.gateway.listen}"
        urls = [(f"{base}/{HURT}/sandbox/echo", hurt), (f"{base}/{OTHER}/sandbox/echo", other)]
        tasks = [asyncio.create_task(app(session, url, seen, over)) for url, seen in urls for _ in range(APPS)]
        await asyncio.sleep(2)
        async with fault.around(staged, vendor):
            await vendor.set(**fault.switches)
            if fault.revoke:
                vendor.revoke("all")
            await asyncio.sleep(seconds)
            await vendor.set(**SOUND)
        ended = time.monotonic()
        last_bad = ended
        while time.monotonic() - max(ended, last_bad) < QUIET and time.monotonic() - ended < LONGEST:
            await asyncio.sleep(0.1)
            last_bad = max(hurt.last_bad, other.last_bad)
        over.set()
        await asyncio.gather(*tasks)
    after = await metrics(staged)
    raised = sorted(name for name, value in after.items() if value > before.get(name, 0.0))
    return Row(fault, hurt, other, logged(staged, since), raised, max(0.0, last_bad - ended))


async def measure(only: str, seconds: float) -> None:
    """Run all faults and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        brief = {each: {"timeouts": {"connect": 2, "first_byte": 2}} for each in NAMES}
        more: dict[str, Any] = {"credentials": {each: {"min_interval": 0} for each in NAMES}, "routes": brief}
        async with stage(Path(name), more, life=LIFE) as staged:
            for fault in (*MORE, *FAULTS):
                if only in fault.name:
                    rows.append(await meet(staged, fault, seconds))
                    print(rows[-1].text(), flush=True)
    if not only:
        title = f"Each fault lasts {seconds:g} s; {APPS} apps call the vendor at fault and {APPS} another one."
        lines = [
            "# Faults",
            "",
            title,
            "",
            "| fault | apps see | the operator sees | recovered after |",
            "|---|---|---|---|",
        ]
        RESULT.write_text("\n".join([*lines, *(row.text() for row in rows), ""]), encoding="utf-8")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="What each fault does, and how long recovery takes.")
    parser.add_argument("--only", default="", help="part of a fault's name")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each fault lasts")
    arguments = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    uvloop.run(measure(arguments.only, arguments.seconds))


if __name__ == "__main__":
    main()
