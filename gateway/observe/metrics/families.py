"""Every metric that Gatepass exposes, declared once: name, kind, help, labels, buckets.

Knows nothing of routes, tokens or sockets; `metrics.py` binds these to a registry and counts. `docs/metrics.md` is
generated from here (`python -m gateway.observe`), and the dashboards are held to it by a test. Names follow
Prometheus' conventions: `gatepass_` first, base units, `_total` for counters. Labels hold only names from the
configuration and words from closed lists, so that the number of series is bounded by the configuration, never by
traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "gatepass_"

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From one millisecond (the gateway's own part) to the slowest vendor's time-out."""
CONNECT_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0)
FETCH_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `name` without the prefix, as Prometheus shows it (counters end in `_total`)."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name on the wire, without a histogram's `_bucket`, `_sum`, `_count`."""
        return PREFIX + self.name


# ------------------------------------------------------------------------------------------------------- requests

REQUESTS = Family(
    "requests_total",
    "counter",
    "Requests answered, by route. An empty code is the vendor's own answer; any other is the gateway's error.",
    ("route", "method", "status", "code"),
)
REQUEST_DURATION = Family(
    "request_duration_seconds",
    "histogram",
    "Time from a request's head to the last byte of its answer.",
    ("route",),
    REQUEST_BUCKETS,
)
UPSTREAM_DURATION = Family(
    "upstream_duration_seconds",
    "histogram",
    "The vendor's part of a request: from the head sent to the vendor to the head of its answer.",
    ("route",),
    REQUEST_BUCKETS,
)
IN_FLIGHT = Family("requests_in_flight", "gauge", "Requests being served now.", ("route",))
REQUEST_BYTES = Family("request_bytes_total", "counter", "Body bytes received from apps.", ("route",))
RESPONSE_BYTES = Family("response_bytes_total", "counter", "Body bytes sent to apps.", ("route",))
UNROUTED = Family(
    "unrouted_requests_total",
    "counter",
    "Requests refused before a route was known, by error code.",
    ("code",),
)
CONNECTIONS = Family("client_connections", "gauge", "Connections of apps open on the data port.")

# ------------------------------------------------------------------------------------------------------ upstreams

REFUSALS = Family(
    "upstream_refusals_total",
    "counter",
    "Vendor answers that refused the token which the gateway had put on the request (401, or the route's own sign).",
    ("route",),
)
REPLAYS = Family(
    "replays_total",
    "counter",
    "Requests sent again after a refused token, or that could have been, by outcome.",
    ("route", "outcome"),
)
CONNECTS = Family(
    "upstream_connects_total",
    "counter",
    "Attempts to open a connection to the vendor, by outcome.",
    ("route", "outcome"),
)
CONNECT_DURATION = Family(
    "upstream_connect_duration_seconds",
    "histogram",
    "Time to open a connection to the vendor, TLS included; failures too.",
    ("route",),
    CONNECT_BUCKETS,
)
POOL_SIZE = Family("pool_size_connections", "gauge", "Connections that the route's pool may hold at most.", ("route",))
POOL_OPEN = Family("pool_open_connections", "gauge", "Connections open to the vendor, busy or idle.", ("route",))
POOL_IDLE = Family("pool_idle_connections", "gauge", "Connections open to the vendor and free.", ("route",))
POOL_WAIT = Family(
    "pool_wait_seconds",
    "histogram",
    "Time that requests waited for a connection because the pool was full; requests that found one are not counted.",
    ("route",),
    CONNECT_BUCKETS,
)

ECHOES = Family(
    "echoed_tokens_total",
    "counter",
    "Answers in which the vendor sent our token back and it was masked, by place (header, body).",
    ("route", "place"),
)

# -------------------------------------------------------------------------------------------------------- clients

CLIENT_REQUESTS = Family(
    "client_requests_total",
    "counter",
    "Requests of a known client by route and outcome (ok, vendor_error, refused, failed, gone).",
    ("client", "route", "outcome"),
)
CLIENT_LIMITED = Family(
    "client_limited_total",
    "counter",
    "Requests refused with 429, by the limit that was reached (rate, in_flight, budget).",
    ("client", "route", "limit"),
)
CLIENT_IN_FLIGHT = Family(
    "client_requests_in_flight",
    "gauge",
    "Requests of a client that are being served now.",
    ("client", "route"),
)
BUDGET_USED = Family(
    "client_budget_used",
    "gauge",
    "Calls counted against a budget in the day or month that runs.",
    ("client", "route", "per"),
)
BUDGET_LIMIT = Family(
    "client_budget_limit",
    "gauge",
    "Calls that a budget grants in a day or month; level soft warns, level hard refuses.",
    ("client", "route", "per", "level"),
)
STATE_WRITES = Family(
    "state_writes_total",
    "counter",
    "Writings of the state file, which keeps counts across restarts, by outcome (ok, failed).",
    ("outcome",),
)
KEY_FETCHES = Family(
    "issuer_key_fetches_total",
    "counter",
    "Requests for an issuer's keys by outcome (ok, failed).",
    ("issuer", "outcome"),
)
KEYS_SEEN = Family(
    "issuer_keys_last_success_timestamp_seconds",
    "gauge",
    "Wall-clock instant at which an issuer's keys were last seen; absent before.",
    ("issuer",),
)

# --------------------------------------------------------------------------------------------------------- tokens

FETCHES = Family(
    "token_fetches_total",
    "counter",
    "Token requests by outcome (ok, unchanged, unavailable, refused, malformed) and cause.",
    ("credential", "outcome", "cause"),
)
FETCH_DURATION = Family(
    "token_fetch_duration_seconds",
    "histogram",
    "Duration of token requests, good or bad.",
    ("credential",),
    FETCH_BUCKETS,
)
EXPIRY = Family(
    "token_expiry_timestamp_seconds",
    "gauge",
    "Wall-clock instant at which the token in hand ends, or the last one did; +Inf: a static key; absent before one.",
    ("credential",),
)
ISSUED = Family(
    "token_issued_timestamp_seconds",
    "gauge",
    "Wall-clock instant from which the life of the token in hand counts: its age is the time since. No static keys.",
    ("credential",),
)
LIFE = Family("token_life_seconds", "gauge", "Life that was granted to the token in hand.", ("credential",))
WAITERS = Family("token_waiters", "gauge", "Requests waiting for a token now.", ("credential",))
WAITS = Family("token_waits_total", "counter", "Requests that had to wait for a token.", ("credential",))
UNCHANGED = Family(
    "token_unchanged_total",
    "counter",
    "Token requests that brought back the very token that was in hand.",
    ("credential",),
)
FAILURES = Family(
    "token_consecutive_failures",
    "gauge",
    "Failed token requests since the last good one; 0 again when nobody asks for a token any more.",
    ("credential",),
)
LAST_SUCCESS = Family(
    "token_last_success_timestamp_seconds",
    "gauge",
    "Wall-clock instant of the last good token request; absent before it.",
    ("credential",),
)
SKEW = Family(
    "token_clock_skew_seconds",
    "gauge",
    "The token endpoint's clock minus ours, from its Date header; shown, never used.",
    ("credential",),
)
SECRET_IN_USE = Family(
    "token_secret_in_use",
    "gauge",
    "1 for the secret that worked last (current or next, during a rotation), 0 for the other.",
    ("credential", "secret"),
)

# -------------------------------------------------------------------------------------------------------- process

BUILD = Family(
    "build_info",
    "info",
    "Version of Gatepass, of Python and of aiohttp, and whether the hot path is compiled; always 1.",
)
CONFIG = Family("config_info", "info", "Digest of the configuration in force; always 1.")
CONFIG_LOADS = Family(
    "config_loads_total",
    "counter",
    "Times that the configuration was read, by outcome (ok, failed).",
    ("outcome",),
)
CONFIG_LOADED = Family(
    "config_last_load_success_timestamp_seconds",
    "gauge",
    "Wall-clock instant at which the configuration in force was read.",
)
CONFIG_CURRENT = Family(
    "config_last_load_successful",
    "gauge",
    "1 when the configuration that was read last is in force, 0 when it was refused and an older one goes on.",
)
LOG_DROPPED = Family(
    "log_events_dropped_total",
    "counter",
    "Log events lost because standard output was slow or closed.",
)
SPANS_DROPPED = Family(
    "trace_spans_dropped_total",
    "counter",
    "Spans lost because the collector of traces was slow, closed or refused them.",
)

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All of them, in the order of this file."""


def metrics_markdown() -> str:
    """Return the table of `docs/metrics.md`: one row for each metric, in the order of the declarations."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        rows.append(f"| `{family.full_name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows) + "\n"
