"""Act 4: a token endpoint is down until after its token has expired, and then works again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.sandbox.demo.app import OK, Load, Shot, failed, percentile, statuses
from gateway.sandbox.demo.stage import QUICK_MS, left, until

if TYPE_CHECKING:
    from gateway.sandbox.demo.report import Row
    from gateway.sandbox.demo.stage import Stage

LOOPS = 3
"""Concurrent requests of the app on each route."""
UNAUTHORIZED, UNAVAILABLE = 401, 503
LIFE, DOWN_FOR = 3.0, 1.5
"""Life of the token when its endpoint goes down, and how long the endpoint stays down after it; seconds."""
RECOVERY = 3.0
"""The most seconds from the recovery of the endpoint to the first success."""
EDGE = 0.25
"""The most seconds that a token may be unused before it expires: a token request may take that long."""


async def outage_of_uqudo(stage: Stage) -> None:
    """A token endpoint refuses connections until after its token has expired, and then works again."""
    uqudo = stage.sandbox.uqudo
    stage.report.act(
        4,
        "A token endpoint goes down",
        f"uqudo's refuses connections; its token is valid for {LIFE:g} s more. The other three work as before.",
    )
    await uqudo.set(life=LIFE, latency=0.0)
    uqudo.revoke()
    await stage.app.call("uqudo", "GET", "/sandbox/echo")  # the gateway notices and fetches a short-lived one
    await uqudo.set(token_fault="refuse")  # noqa: S106 - the name of a fault
    expires = time.monotonic() + left(uqudo)
    async with Load(stage.app, dict.fromkeys(stage.sandbox.vendors, LOOPS), pause=0.02) as load:
        await asyncio.sleep(expires - time.monotonic() + DOWN_FOR)
        await uqudo.set(token_fault="none")  # noqa: S106 - the name of a fault
        back = time.monotonic()
        await until(lambda: any(shot.status == OK for shot in load.of("uqudo") if shot.at > back), RECOVERY + 1)
        await asyncio.sleep(0.3)
    outage = _phases(load, expires, back)
    _show_four(stage, outage)
    _claim_four(stage, outage)


@dataclass(frozen=True, slots=True)
class Outage:
    """The exchanges of act 4 by phase, and two instants in seconds."""

    alive: list[Shot]
    """Uqudo, while its token was valid."""
    dead: list[Shot]
    """Uqudo, from the first failure to the first success after it, without `crossed`."""
    crossed: list[Shot]
    """Sent with a valid token, received after its expiry: Uqudo's own 401, because no new token can be fetched."""
    after: list[Shot]
    others: list[Shot]
    served_until: float
    """The first failure, in seconds after the token's expiry at the vendor."""
    recovery: float
    """The first success, in seconds after the recovery of the endpoint; negative without a success."""


def _phases(load: Load, expires: float, back: float) -> Outage:
    everything = load.of("uqudo")
    crossed = [shot for shot in everything if shot.status == UNAUTHORIZED and shot.at < expires]
    shots = [shot for shot in everything if shot not in crossed]
    refused_at = min((shot.at for shot in failed(shots)), default=expires)
    served_at = min((shot.at for shot in shots if shot.at > refused_at and shot.status == OK), default=0.0)
    return Outage(
        alive=[shot for shot in shots if shot.at < refused_at],
        dead=[shot for shot in shots if shot.at >= refused_at and (shot.at < served_at or not served_at)],
        crossed=crossed,
        after=[shot for shot in shots if served_at and shot.at >= served_at],
        others=[shot for shot in load.shots if shot.route != "uqudo"],
        served_until=refused_at - expires,
        recovery=served_at - back if served_at else -1.0,
    )


def _show_four(stage: Stage, outage: Outage) -> None:
    phases = {
        "uqudo, down, token alive": outage.alive,
        "uqudo, down, token expired": outage.dead,
        **({"uqudo, sent in its token's last instant": outage.crossed} if outage.crossed else {}),
        "uqudo, back again": outage.after,
        "the other three, throughout": outage.others,
    }
    rows: list[Row] = [
        (what, str(len(part)), statuses(part), f"{percentile(part, 0.5):.1f}", f"{percentile(part, 1):.1f}")
        for what, part in phases.items()
    ]
    stage.report.table(("phase", "requests", "statuses", "median ms", "slowest ms"), rows)


def _claim_four(stage: Stage, outage: Outage) -> None:
    alive, dead, after, others = outage.alive, outage.dead, outage.after, outage.others
    edge, side = abs(outage.served_until) * 1000, "before" if outage.served_until < 0 else "after"
    stage.report.claim(
        "A dead token endpoint has no effect while the token is valid",
        f"{len(alive)} requests, {len(failed(alive))} failures, first refusal {edge:.0f} ms {side} its expiry",
        held=len(alive) > 0 and not failed(alive) and outage.served_until > -EDGE,
    )
    told = [shot for shot in dead if shot.status == UNAVAILABLE and shot.retry_after]
    slowest = percentile(dead, 0.99)
    crossed = f"; {len(outage.crossed)} sent in the last instant got uqudo's 401" if outage.crossed else ""
    stage.report.claim(
        "After that the app gets a 503 at once",
        f"{len(told)} of {len(dead)} answered 503 with Retry-After, 99 % within {slowest:.1f} ms{crossed}",
        held=len(dead) > 0 and told == dead and slowest < QUICK_MS and len(outage.crossed) <= LOOPS,
    )
    stage.report.claim(
        "It recovers by itself",
        f"{outage.recovery:.1f} s after the endpoint, then {len(after)} requests, {len(failed(after))} failures",
        held=0 <= outage.recovery <= RECOVERY and len(after) > 0 and not failed(after),
    )
    stage.report.claim(
        "The other routes are not affected",
        f"{len(others)} requests, {len(failed(others))} failures, 99 % within {percentile(others, 0.99):.0f} ms",
        held=len(others) > 0 and not failed(others),
    )
