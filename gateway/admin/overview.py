"""The data of the status page and of `/status.json`, as one plain mapping.

Knows statuses, metrics and the configuration's names; no HTTP. The result is redacted and contains only JSON types. The
texts are for somebody who was woken up: what is wrong, and what to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.admin import pages
from gateway.admin.history import HOPS, STEP, STEPS, History
from gateway.admin.planes import planes
from gateway.observe import redact_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.admin.history import RouteSummary
    from gateway.model import Config, CredentialStatus, PlaneStatus, StoreStatus
    from gateway.observe import Metrics

RUNBOOK = "docs/runbook.md"
ADVICE = {
    "refused": "The vendor refuses our client id or secret. Compare them with the vendor's, correct them, and reload. "
    "Until then Gatepass tries once a minute.",
    "refused_by_vendor": "The token endpoint issues tokens, but the vendor's API refuses them. Compare with the "
    "vendor: the account and its contract, the scope and audience of the token, test or production. Then run "
    "`gatepass check --probe`, or press Check on the status page.",
    "malformed": "The token endpoint's answer contains no usable token. Run `gatepass check` and compare with the "
    "vendor's document: the answer may have changed.",
    "unavailable": "The token endpoint is down, slow, or asks us to wait. Check the vendor's status page and the "
    "connection (DNS, proxy, firewall). Gatepass keeps trying.",
    "renewal": "The token is valid until it expires, but the next one cannot be fetched. The reason above says why.",
    "pending": "The first token is being fetched.",
}
"""By state; `renewal` is a valid token whose last fetch failed."""
FAILING = frozenset({"unavailable", "refused", "malformed", "refused_by_vendor"})
"""States in which requests fail."""


class Overview:
    """Collects the data. Call `use()` with the active configuration and `tick()` every `STEP` seconds."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        status: Callable[[], Sequence[CredentialStatus]],
        state: Callable[[], str],
        data_address: Callable[[], tuple[str, int] | None],
        problems: Callable[[], Sequence[str]] = tuple,
        store: Callable[[], StoreStatus] | None = None,
        planes: Callable[[], Sequence[PlaneStatus]] = tuple,
    ) -> None:
        self._metrics = metrics
        self._status = status
        self._state = state
        self._data_address = data_address
        self._problems = problems
        self._store = store
        self._planes = planes
        self._history = History(metrics)
        self._started = time.monotonic()
        self._config: Config | None = None
        self._loaded = time.time()

    def use(self, config: Config) -> None:
        """Show this configuration from now on."""
        self._config, self._loaded = config, time.time()

    def tick(self) -> None:
        """Take a sample of the counters, for the curves."""
        self._history.take()

    def data(self) -> dict[str, Any]:
        """Return all data; failing credentials come first."""
        credentials, config = self._status(), self._config
        state = pages.shown_state(self._state(), credentials)
        routes = config.routes if config is not None else ()
        summaries = self._history.routes([route.name for route in routes])
        shown = sorted((self._credential(status) for status in credentials), key=_urgency)
        failing = sum(each["failing"] for each in shown)
        return {
            "version": __version__,
            "state": state,
            "failing": failing,
            "headline": f"{failing} of {len(shown)} credentials failing" if failing else state,
            "uptime": round(time.monotonic() - self._started, 3),
            "data": self._data_address(),
            "config": {
                "digest": config.digest if config is not None else "",
                "loaded": round(self._loaded, 3),
                "problems": [redact_text(problem) for problem in self._problems()],
            },
            "store": _store(self._store()) if self._store is not None else None,
            "window": STEP * STEPS,
            "credentials": shown,
            "routes": [
                {**_route(summary), "prefix": route.prefix, "upstream": route.upstream.authority}
                for route, summary in zip(routes, summaries, strict=True)
            ],
            "clients": self._clients(),
            "planes": planes(config, self._metrics, self._planes()),
        }

    def _credential(self, status: CredentialStatus) -> dict[str, Any]:
        shown = pages.credential(status)
        failing = status.reason is not None
        kind = "renewal" if failing and status.state == "valid" else status.state
        shown["failing"] = status.state in FAILING
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
        limited = self._metrics.client_limited.by("client")
        used = self._metrics.budget_used.by("client")
        requests: dict[str, dict[str, int]] = {}
        for each in self._metrics.clients():  # one for each client on each route, so perhaps many thousand
            outcomes = requests.setdefault(each.name, {})
            for outcome, child in each.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + int(child.value)
        granted = {
            (labels["client"], labels["route"], labels["per"], labels["level"]): int(child.value)
            for children in self._metrics.budget_limit.by("client").values()
            for labels, child in children
        }
        rows = []
        for client in self._config.clients if self._config is not None else ():
            budgets = [_budget(labels, int(child.value), granted) for labels, child in used.get(client.name, ())]
            rows.append(
                {
                    "name": client.name,
                    "routes": sorted(client.routes) if client.routes is not None else None,
                    "requests": requests.get(client.name, {}),
                    "limited": sum(int(child.value) for _, child in limited.get(client.name, ())),
                    "budgets": budgets,
                }
            )
        return rows  # only names from the configuration and numbers, so no redaction is needed


def _store(status: StoreStatus) -> dict[str, Any]:
    return {
        "server": status.server,
        "mode": status.mode,
        "members": status.members,
        "silence": round(status.silence, 1),
        "reason": redact_text(status.reason) or None,
    }


def _budget(labels: Mapping[str, str], used: int, granted: Mapping[tuple[str, str, str, str], int]) -> dict[str, Any]:
    key = (labels["client"], labels["route"], labels["per"])
    soft, hard = granted.get((*key, "soft")), granted.get((*key, "hard"))
    level = "spent" if hard is not None and used >= hard else "warned" if soft is not None and used >= soft else "fine"
    return {"route": labels["route"], "per": labels["per"], "used": used, "soft": soft, "hard": hard, "level": level}


def _urgency(credential: Mapping[str, Any]) -> int:
    """Return the place in the order of the page: failing, then failing renewals, then pending, then the others."""
    if credential["failing"]:
        return 0
    return 1 if credential["reason"] else 2 if credential["state"] == "pending" else 3


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
