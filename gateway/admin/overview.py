"""Everything that the status page and `/status.json` say, as one plain mapping.

Knows statuses, metrics and the configuration's names; no HTTP. What it returns went through redaction and holds only
what JSON has. The words are for somebody who was woken up: what is wrong, and what to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.admin import pages
from gateway.admin.history import HOPS, STEP, STEPS, History
from gateway.observe import redact_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.admin.history import RouteSummary
    from gateway.model import Config, CredentialStatus
    from gateway.observe import Metrics

RUNBOOK = "docs/runbook.md"
ADVICE = {
    "refused": "The vendor refuses our id or secret. Compare them with what the vendor has, and reload; until then one "
    "request a minute is tried.",
    "refused_by_vendor": "The token endpoint issues tokens, but the vendor's API refuses them. Compare with the "
    "vendor: the account and its contract, the scope and audience of the token, test or production. Then run "
    "`gatepass check --probe`, or press Check here.",
    "malformed": "The token endpoint answers, but not with a token that can be used. Run `gatepass check`, and compare "
    "with the vendor's document: it may have changed its answer.",
    "unavailable": "The token endpoint is down, slow, or asks us to wait. Look at the vendor's status page and at the "
    "way there (DNS, proxy, firewall); attempts go on by themselves.",
    "renewal": "The token still serves until its end, but its successor cannot be fetched. The reason above says why.",
    "pending": "The first token is being fetched.",
}
"""By state; `renewal` is a valid token whose last fetch failed."""


class Overview:
    """What there is to see. `use()` the configuration in force; `tick()` every `STEP` seconds."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        status: Callable[[], Sequence[CredentialStatus]],
        state: Callable[[], str],
        data_address: Callable[[], tuple[str, int] | None],
        problems: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._metrics = metrics
        self._status = status
        self._state = state
        self._data_address = data_address
        self._problems = problems
        self._history = History(metrics)
        self._started = time.monotonic()
        self._config: Config | None = None
        self._loaded = time.time()

    def use(self, config: Config) -> None:
        """Show this configuration from now on."""
        self._config, self._loaded = config, time.time()

    def tick(self) -> None:
        """Keep how the counters stand now, for the curves."""
        self._history.take()

    def data(self) -> dict[str, Any]:
        """Return all of it."""
        credentials, config = self._status(), self._config
        state = pages.shown_state(self._state(), credentials)
        routes = config.routes if config is not None else ()
        summaries = self._history.routes([route.name for route in routes])
        return {
            "version": __version__,
            "state": state,
            "uptime": round(time.monotonic() - self._started, 3),
            "data": self._data_address(),
            "config": {
                "digest": config.digest if config is not None else "",
                "loaded": round(self._loaded, 3),
                "problems": [redact_text(problem) for problem in self._problems()],
            },
            "window": STEP * STEPS,
            "credentials": [self._credential(status) for status in credentials],
            "routes": [
                {**_route(summary), "prefix": route.prefix, "upstream": route.upstream.authority}
                for route, summary in zip(routes, summaries, strict=True)
            ],
            "clients": self._clients(),
        }

    def _credential(self, status: CredentialStatus) -> dict[str, Any]:
        shown = pages.credential(status)
        failing = status.reason is not None
        kind = "renewal" if failing and status.state == "valid" else status.state
        shown["advice"] = ADVICE.get(kind) if failing or status.state == "pending" else None
        config = self._config
        credential = config.credentials.get(status.name) if config is not None else None
        shown["can_check"] = credential is not None and credential.probe is not None
        shown["routes"] = [
            route.name
            for route in (config.routes if config is not None else ())
            if any(injection.credential == status.name for injection in route.injections)
        ]
        return shown

    def _clients(self) -> list[dict[str, Any]]:
        requests = self._metrics.client_requests.by("client")
        limited = self._metrics.client_limited.by("client")
        used = self._metrics.budget_used.by("client")
        granted = {
            (labels["client"], labels["route"], labels["per"]): child.value
            for children in self._metrics.budget_limit.by("client").values()
            for labels, child in children
            if labels["level"] == "hard"
        }
        found = []
        for client in self._config.clients if self._config is not None else ():
            outcomes: dict[str, int] = {}
            for labels, child in requests.get(client.name, ()):
                outcomes[labels["outcome"]] = outcomes.get(labels["outcome"], 0) + int(child.value)
            budgets = [
                {
                    "route": labels["route"],
                    "per": labels["per"],
                    "used": int(child.value),
                    "hard": _whole(granted.get((client.name, labels["route"], labels["per"]))),
                }
                for labels, child in used.get(client.name, ())
            ]
            found.append(
                {
                    "name": client.name,
                    "routes": sorted(client.routes) if client.routes is not None else None,
                    "requests": outcomes,
                    "limited": sum(int(child.value) for _, child in limited.get(client.name, ())),
                    "budgets": budgets,
                }
            )
        return found  # names of the configuration and numbers: nothing that redaction would look for


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _route(summary: RouteSummary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "total": summary.total,
        "requests": summary.requests,
        "errors": {hop: summary.errors[hop] for hop in HOPS},
        "p50_ms": _milliseconds(summary.p50),
        "p99_ms": _milliseconds(summary.p99),
        "curve": list(summary.curve),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
