"""Acts 2 and 3: tokens that expire under load, and a token that is revoked under load.

The app's results are compared with the vendors' records and with the gateway's metrics.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.sandbox.demo.app import Load, Shot, failed, percentile, statuses
from gateway.sandbox.demo.stage import HYPERSIGN_SHORT, SHORT, left, until

if TYPE_CHECKING:
    from gateway.sandbox.demo.report import Row
    from gateway.sandbox.demo.stage import Stage
    from gateway.sandbox.vendor import Vendor

SLOW = 0.4
"""Seconds that a token endpoint needs while tokens expire."""
LOAD_FOR = 6.0
LONG = 600.0
"""Life in seconds of a token that is revoked long before it expires."""


async def expiry(stage: Stage) -> None:
    """Short lives and slow token endpoints under load."""
    vendors = stage.sandbox.vendors
    stage.report.act(
        2,
        "Tokens expire under load",
        f"Tokens live {SHORT:g} s (hypersign {HYPERSIGN_SHORT:g} s), token endpoints take {SLOW * 1000:.0f} ms.",
    )
    for vendor in vendors.values():
        await vendor.set(latency=SLOW)
    waits = await stage.gateway.metric("gatepass_token_waits_total")
    refusals = sum(vendor.counters.api_401s for vendor in vendors.values())
    asked = {name: vendor.counters.token_requests for name, vendor in vendors.items()}
    began = time.monotonic()
    async with Load(stage.app, dict.fromkeys(vendors, 3), pause=0.05) as load:
        await asyncio.sleep(LOAD_FOR)
    ended = time.monotonic()
    waits = await stage.gateway.metric("gatepass_token_waits_total") - waits
    refusals = sum(vendor.counters.api_401s for vendor in vendors.values()) - refusals
    expired = {name: _expired(vendor, began, ended) for name, vendor in vendors.items()}
    rows = [
        _load_row(name, load.of(name), expired[name], vendor.counters.token_requests - asked[name])
        for name, vendor in vendors.items()
    ]
    columns = ("route", "requests", "failed", "tokens seen", "expired", "token requests", "median ms", "slowest ms")
    stage.report.table(columns, rows)
    _claim_two(stage, load.shots, sum(expired.values()), waits, refusals)


def _claim_two(stage: Stage, shots: list[Shot], expired: int, waits: float, refusals: int) -> None:
    bad, p99 = len(failed(shots)), percentile(shots, 0.99)
    stage.report.claim(
        f"{len(shots)} requests across {expired} expiries",
        f"{bad} failures, {waits:.0f} waited for a token, {refusals} refused by a vendor",
        held=expired >= 4 and len(shots) >= 200 and bad == waits == refusals == 0,  # noqa: PLR2004 - the least to show
    )
    stage.report.claim(
        "No request waits for a token request",
        f"99 % within {p99:.0f} ms, the slowest {percentile(shots, 1):.0f} ms; a token takes {SLOW * 1000:.0f} ms",
        held=p99 < SLOW * 1000,
    )


def _expired(vendor: Vendor, began: float, ended: float) -> int:
    return sum(began < issued.expires_at <= ended for issued in vendor.ledger.all() if not issued.revoked)


def _load_row(route: str, shots: list[Shot], expired: int, asked: int) -> Row:
    tokens = list(dict.fromkeys(shot.token for shot in shots if shot.token))
    seen = " ".join(tokens[:3]) + (f" … {len(tokens)}" if len(tokens) > 3 else "")  # noqa: PLR2004 - room for three
    numbers = (f"{percentile(shots, 0.5):.1f}", f"{percentile(shots, 1):.1f}")
    return (route, str(len(shots)), str(len(failed(shots))), seen, str(expired), str(asked), *numbers)


async def revocation(stage: Stage) -> None:
    """A vendor revokes a live token while many requests use it."""
    idfy = stage.sandbox.idfy
    stage.report.act(3, "A live token is revoked under load", "Thirty apps at once; idfy revokes the token they use.")
    for vendor in stage.sandbox.vendors.values():
        await vendor.set(life=LONG, latency=0.1)
    await until(lambda: left(idfy) > LONG / 2, 5)
    asked, refused = idfy.counters.token_requests, idfy.counters.api_401s
    async with Load(stage.app, {"idfy": 30}, pause=0.005) as load:
        await asyncio.sleep(0.4)
        revoked = idfy.revoke()
        await asyncio.sleep(0.8)
    asked, refused = idfy.counters.token_requests - asked, idfy.counters.api_401s - refused
    stage.report.table(
        ("route", "requests", "statuses", "revoked", "then", "refused by idfy", "token requests", "slowest ms"),
        [
            (
                "idfy",
                str(len(load.shots)),
                statuses(load.shots),
                " ".join(revoked),
                load.shots[-1].token,
                str(refused),
                str(asked),
                f"{percentile(load.shots, 1):.1f}",
            )
        ],
    )
    seen = sum(shot.status == 401 for shot in load.shots)  # noqa: PLR2004 - Unauthorized
    stage.report.claim(
        f"A token revoked under {len(load.shots)} requests",
        f"idfy refused {refused}, apps saw {seen} of them and {len(failed(load.shots))} failures; "
        f"{asked} extra token request",
        held=refused > 0 and not failed(load.shots) and asked == 1,
    )
