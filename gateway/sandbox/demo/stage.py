"""The parts of the demo: the vendors, the gateway's process, the app, the report."""

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
"""The longest time that counts as "at once" on a busy machine."""
SHORT, HYPERSIGN_SHORT = 2.5, 9.0
"""Lives in seconds of the tokens with which the demo begins. Hypersign allows ten token requests a minute, and the
gateway respects that."""


@dataclass
class Stage:
    """All parts of the running demo."""

    sandbox: Sandbox
    gateway: GatewayProcess
    app: App
    report: Report

    def token_requests(self) -> int:
        """Return the number of token requests at all vendors."""
        return sum(vendor.counters.token_requests for vendor in self.sandbox.vendors.values())

    def own_token(self, shot: Shot) -> bool:
        """Return whether the vendor of an exchange's route has issued the token that it received."""
        return shot.token in {issued.fingerprint for issued in self.sandbox.vendors[shot.route].ledger.all()}


def left(vendor: Vendor) -> float:
    """Return the remaining life of the vendor's newest token in seconds; 0 without a live token."""
    live = vendor.ledger.live()
    return live[-1].expires_at - time.monotonic() if live else 0.0


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition` holds, at most `seconds`."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - what others did, seen from outside
        await asyncio.sleep(0.02)
