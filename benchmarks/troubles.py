"""Faults of vendors, names and the process, and the only failures that each of them may cause."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from benchmarks.surroundings import Stage
    from gateway.sandbox.vendor import Vendor

BROKEN = "broken"
"""What an app sees of an answer that is cut short, or of a connection that was reset."""
OF_A_BODY = " of a request with a body"
"""Behind a failure that a fault causes only where the app still sends."""


@asynccontextmanager
async def _during(trouble: AbstractContextManager[None]) -> AsyncIterator[None]:
    with trouble:
        yield


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a vendor, and the only failures that it may cause."""

    name: str
    switches: dict[str, Any]
    causes: frozenset[str] = frozenset()
    revoke: bool = False
    around: Callable[[Stage, Vendor], AbstractAsyncContextManager[None]] = lambda _stage, _vendor: nullcontext()
    """Holds while the fault lasts."""
    everywhere: bool = False
    """The fault is the process's, so that its failures may come from any vendor's routes."""


FAULTS = (
    Fault("slow vendor", {"api_latency": 0.4}),
    Fault("vendor resets", {"api_fault": "reset"}, frozenset({"upstream_reset"})),
    # A reset right behind a short answer may throw away the answer: then there was none.
    Fault("answer cut short", {"api_fault": "cut"}, frozenset({BROKEN, "upstream_reset"})),
    # The vendor closes while a body is on its way to it: the kernel answers that with a reset, and whether the gateway
    # reads those bytes that are not HTTP or first hears of the reset when it writes, is a matter of microseconds.
    Fault("not HTTP", {"api_fault": "not_http"}, frozenset({"upstream_malformed", f"upstream_reset{OF_A_BODY}"})),
    Fault("vendor's own 503", {"api_fault": "503"}, frozenset({"503"})),
    Fault("tokens revoked", {}, revoke=True),
    Fault("token endpoint slow", {"latency": 1.0}, revoke=True),
    Fault("token endpoint down", {"token_fault": "refuse"}, frozenset({"token_unavailable", "401"}), revoke=True),
    Fault("token endpoint hangs", {"token_fault": "hang"}, frozenset({"token_unavailable", "401"}), revoke=True),
    Fault("token endpoint lies", {"token_fault": "html"}, frozenset({"token_malformed", "401"}), revoke=True),
    # Known addresses are used, so that no app notices any of these three.
    Fault("name hangs", {}, around=lambda stage, vendor: _during(stage.unresolved(vendor, hangs=True))),
    Fault("name does not resolve", {}, around=lambda stage, vendor: _during(stage.unresolved(vendor, hangs=False))),
    Fault("name moves", {}, around=lambda stage, vendor: stage.moved(vendor)),
    Fault("process suspended", {}, around=lambda stage, _: _during(stage.suspended()), everywhere=True),
    Fault(
        "no descriptor left",
        {},
        frozenset({"overloaded", "token_unavailable", "401"}),
        around=lambda stage, _: _during(stage.without_descriptors()),
        everywhere=True,
    ),
    Fault("disk full", {}, around=lambda stage, _: _during(stage.full_disk()), everywhere=True),
    Fault("standard output stalled", {}, around=lambda stage, _: _during(stage.output.stalled()), everywhere=True),
)
SOUND = {"api_latency": 0.0, "api_fault": "none", "latency": 0.0, "token_fault": "none"}
