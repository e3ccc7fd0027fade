"""The families of `families.py` with their values: every number that this process counts.

`registry.py` adds what a scrape reads besides; `children.py` binds the values of one route, credential or client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from gateway.observe.metrics import families
from gateway.observe.metrics.collectors import HistogramCollector, ValueCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.observe.metrics.collectors import FamilyCollector
    from gateway.observe.metrics.families import Family


class DeclaredMetrics:
    """One collector for each declared family.

    `wall` returns seconds since the epoch.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self.before_reading: list[Callable[[], None]] = []
        """Called before values are read; each updates values that are not kept up to date all the time."""
        self._collectors: list[FamilyCollector[Any]] = []
        self._declare_requests()
        self._declare_upstreams()
        self._declare_planes()
        self._declare_clients()
        self._declare_tokens()
        self._declare_store()
        self._declare_process()

    def _declare_requests(self) -> None:
        self.requests = self._values(families.REQUESTS)
        self.request_duration = self._histograms(families.REQUEST_DURATION)
        self.upstream_duration = self._histograms(families.UPSTREAM_DURATION)
        self.in_flight = self._values(families.IN_FLIGHT)
        self.request_bytes = self._values(families.REQUEST_BYTES)
        self.response_bytes = self._values(families.RESPONSE_BYTES)
        self.unrouted = self._values(families.UNROUTED)
        self.connections = self._values(families.CONNECTIONS).labels()
        self._no_descriptor = self._values(families.NO_DESCRIPTOR)
        for peer in ("app", "upstream", "token_endpoint"):
            self._no_descriptor.labels(peer)

    def _declare_upstreams(self) -> None:
        self.refusals = self._values(families.REFUSALS)
        self.replays = self._values(families.REPLAYS)
        self.connects = self._values(families.CONNECTS)
        self.connect_duration = self._histograms(families.CONNECT_DURATION)
        self.pool_size = self._values(families.POOL_SIZE)
        self.pool_open = self._values(families.POOL_OPEN)
        self.pool_idle = self._values(families.POOL_IDLE)
        self.pool_wait_duration = self._histograms(families.POOL_WAIT)
        self.echoes = self._values(families.ECHOES)

    def _declare_planes(self) -> None:
        self.plane_questions = self._values(families.PLANE_QUESTIONS)
        self.plane_refused = self._values(families.PLANE_REFUSED)
        self.plane_asked = self._values(families.PLANE_ASKED)
        self.pushes = self._values(families.PUSHES)
        self.push_confirmed_at = self._values(families.PUSH_CONFIRMED)
        self.token_pushed = self._values(families.PUSHED)
        self.plane_reports = self._values(families.PLANE_REPORTS)

    def _declare_clients(self) -> None:
        self.client_requests = self._values(families.CLIENT_REQUESTS)
        self.client_limited = self._values(families.CLIENT_LIMITED)
        self.client_billed = self._values(families.CLIENT_BILLED)
        self.route_price = self._values(families.ROUTE_PRICE)
        self.client_in_flight = self._values(families.CLIENT_IN_FLIGHT)
        self.app_tokens = self._values(families.APP_TOKENS)
        self.budget_used = self._values(families.BUDGET_USED)
        self.budget_limit = self._values(families.BUDGET_LIMIT)
        self.state_writes = self._values(families.STATE_WRITES)
        self.key_fetches = self._values(families.KEY_FETCHES)
        self.keys_seen = self._values(families.KEYS_SEEN)

    def _declare_tokens(self) -> None:
        self.fetches = self._values(families.FETCHES)
        self.fetch_duration = self._histograms(families.FETCH_DURATION)
        self.token_expiry = self._values(families.EXPIRY)
        self.token_issued = self._values(families.ISSUED)
        self.token_life = self._values(families.LIFE)
        self.token_waiters = self._values(families.WAITERS)
        self.token_waits = self._values(families.WAITS)
        self.token_unchanged = self._values(families.UNCHANGED)
        self.token_failures = self._values(families.FAILURES)
        self.token_last_success = self._values(families.LAST_SUCCESS)
        self.token_skew = self._values(families.SKEW)
        self.secret_in_use = self._values(families.SECRET_IN_USE)
        self.token_adopted = self._values(families.ADOPTED)
        self.token_origin = self._values(families.ORIGIN)

    def _declare_store(self) -> None:
        self.store_up = self._values(families.STORE_UP)
        self.store_mode = self._values(families.STORE_MODE)
        self.store_duration = self._histograms(families.STORE_DURATION)
        self.store_silence = self._values(families.STORE_SILENCE)
        self.store_members = self._values(families.STORE_MEMBERS)
        self.store_strangers = self._values(families.STORE_STRANGERS)
        self.store_leases = self._values(families.STORE_LEASES)
        self.store_undecryptable = self._values(families.STORE_UNDECRYPTABLE)
        self.store_granted = self._values(families.STORE_GRANTED)
        self.store_away_calls = self._values(families.STORE_AWAY_CALLS)

    def _declare_process(self) -> None:
        self.config_loads = self._values(families.CONFIG_LOADS)
        self.config_loaded_at = self._values(families.CONFIG_LOADED)
        self.config_current = self._values(families.CONFIG_CURRENT)
        self._log_dropped = self._values(families.LOG_DROPPED).labels()
        self.tls_expiry = self._values(families.TLS_EXPIRY)
        self._spans_dropped = self._values(families.SPANS_DROPPED).labels()
        for outcome in ("ok", "failed"):
            self.config_loads.labels(outcome)

    def no_descriptor(self, peer: Literal["app", "upstream", "token_endpoint"]) -> None:
        """Count a connection that failed because no file descriptor was left."""
        self._no_descriptor.labels(peer).inc()

    def _settle(self) -> None:
        for update in self.before_reading:
            update()

    def _values(self, family: Family) -> ValueCollector:
        made = ValueCollector(family, self._settle)
        self._collectors.append(made)
        return made

    def _histograms(self, family: Family) -> HistogramCollector:
        made = HistogramCollector(family, self._settle)
        self._collectors.append(made)
        return made
