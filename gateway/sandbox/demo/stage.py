"""Everybody on the demo's stage: the vendors, the gateway's process, the app, the report."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.demo.app import App, Shot
    from gateway.sandbox.demo.process import GatewayProcess
    from gateway.sandbox.demo.report import Report
    from gateway.sandbox.vendor import Vendor
    from gateway.sandbox.vendors import Sandbox

QUICK_MS = 250.0
"""What still counts as at once, on a machine that is busy with other things."""
SHORT, HYPERSIGN_SHORT = 2.5, 9.0
"""Lives of the tokens with which the demo begins, seconds. Hypersign allows ten token requests a minute, and the
gateway keeps to that."""


@dataclass
class Stage:
    """Everybody on stage."""

    sandbox: Sandbox
    gateway: GatewayProcess
    app: App
    report: Report

    def token_requests(self) -> int:
        """Return how many token requests all vendors have seen."""
        return sum(vendor.counters.token_requests for vendor in self.sandbox.vendors.values())

    def own_token(self, shot: Shot) -> bool:
        """Say whether the vendor of this route issued the token that it saw."""
        return shot.token in {issued.fingerprint for issued in self.sandbox.vendors[shot.route].ledger.all()}


def left(vendor: Vendor) -> float:
    """Return how long the vendor's newest token still lives, seconds; 0 when none does."""
    live = vendor.ledger.live()
    return live[-1].expires_at - time.monotonic() if live else 0.0


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when `condition` holds, or after `seconds`."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - what others did, seen from outside
        await asyncio.sleep(0.02)
