"""Every metric that Gatepass exposes, declared once: name, kind, help, labels, buckets.

`declared.py` holds the values. `docs/metrics.md` is generated from here (`python -m gateway.observe`), and a test
compares the dashboards with it. Names follow Prometheus' conventions: prefix `gatepass_`, base units, `_total` for
counters. Labels hold only names from the configuration and words from closed lists, so the number of series is bounded
by the configuration and never by traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "gatepass_"

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds, from the gateway's own part to the time-out of the slowest vendor."""
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
    "Time from sending a request's head to the vendor until the head of its answer.",
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
CONNECTIONS = Family("client_connections", "gauge", "Open connections of apps on the data port.")
NO_DESCRIPTOR = Family("no_descriptor_total", "counter", "Connections that failed for lack of a descriptor.", ("peer",))

# ------------------------------------------------------------------------------------------------------ upstreams

REFUSALS = Family(
    "upstream_refusals_total",
    "counter",
    "Vendor answers that refused the injected token (401, or the route's `refusal_signs`).",
    ("route",),
)
REPLAYS = Family(
    "replays_total",
    "counter",
    "Requests whose token the vendor refused, by whether they were sent again (outcome).",
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
    "Time to open a connection to the vendor, with TLS; failed attempts included.",
    ("route",),
    CONNECT_BUCKETS,
)
POOL_SIZE = Family("pool_size_connections", "gauge", "Limit of the route's connection pool.", ("route",))
POOL_OPEN = Family("pool_open_connections", "gauge", "Open connections to the vendor, busy or idle.", ("route",))
POOL_IDLE = Family("pool_idle_connections", "gauge", "Idle connections to the vendor.", ("route",))
POOL_WAIT = Family(
    "pool_wait_seconds",
    "histogram",
    "Time that requests waited for a connection because the pool was full; other requests are not observed.",
    ("route",),
    CONNECT_BUCKETS,
)

ECHOES = Family(
    "echoed_tokens_total",
    "counter",
    "Answers that contained the injected token, which was masked, by place (header, body).",
    ("route", "place"),
)

# --------------------------------------------------------------------------------------------------------- planes

PLANE_QUESTIONS = Family(
    "plane_questions_total",
    "counter",
    "Questions of other proxies, by outcome: `token`, or the code of the error.",
    ("plane", "route", "outcome"),
)
PLANE_REFUSED = Family(
    "plane_refused_tokens_total",
    "counter",
    "Questions that reported that the vendor has refused the token.",
    ("plane", "route"),
)
PLANE_ASKED = Family(
    "plane_last_question_timestamp_seconds", "gauge", "Time of the last question of another proxy.", ("plane",)
)

PUSHES = Family(
    "plane_pushes_total",
    "counter",
    "Files written for a plane that tokens are pushed to, by outcome (token, withdrawn, failed).",
    ("plane", "outcome"),
)
PUSH_CONFIRMED = Family(
    "plane_push_confirmed_timestamp_seconds",
    "gauge",
    "Time at which a plane's file was last seen to be as it should be; looked at every 5 seconds.",
    ("plane", "credential"),
)
PUSHED = Family(
    "plane_token_pushed",
    "gauge",
    "1 if a plane's file holds a token of this process, 0 if not.",
    ("plane", "credential"),
)
PLANE_REPORTS = Family(
    "plane_reports_total",
    "counter",
    "Reports that the vendor refused a pushed token, by outcome (replaced, known, limited, unavailable, unknown).",
    ("plane", "outcome"),
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
CLIENT_BILLED = Family(
    "client_billed_calls_total",
    "counter",
    "Calls of a client that the vendor answered with 101, 2xx or 3xx, which vendors bill.",
    ("client", "route"),
)
ROUTE_PRICE = Family(
    "route_price_per_call",
    "gauge",
    "Price of a billed call on a route with `price`, in its currency.",
    ("route", "currency"),
)
CLIENT_IN_FLIGHT = Family(
    "client_requests_in_flight",
    "gauge",
    "Requests of a client being served now.",
    ("client", "route"),
)
APP_TOKENS = Family(
    "app_tokens_total",
    "counter",
    "Token requests of apps that the gateway answered itself, by outcome (issued, or the error of RFC 6749 §5.2).",
    ("client", "route", "outcome"),
)
BUDGET_USED = Family(
    "client_budget_used",
    "gauge",
    "Calls counted against a budget in the current day or month (UTC).",
    ("client", "route", "per"),
)
BUDGET_LIMIT = Family(
    "client_budget_limit",
    "gauge",
    "Limit of a budget in calls per day or month; level soft warns, level hard refuses.",
    ("client", "route", "per", "level"),
)
STATE_WRITES = Family(
    "state_writes_total",
    "counter",
    "Writes of the state file, which keeps counts across restarts, by outcome (ok, failed).",
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
    "Time of the last successful request for an issuer's keys; absent before the first.",
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
    "Duration of token requests, successful or not.",
    ("credential",),
    FETCH_BUCKETS,
)
EXPIRY = Family(
    "token_expiry_timestamp_seconds",
    "gauge",
    "Expiry time of the current or last token; +Inf for a static key; absent before the first token.",
    ("credential",),
)
ISSUED = Family(
    "token_issued_timestamp_seconds",
    "gauge",
    "Start of the current token's lifetime; its age is the time since. Absent for static keys.",
    ("credential",),
)
LIFE = Family("token_life_seconds", "gauge", "Lifetime granted to the current token.", ("credential",))
WAITERS = Family("token_waiters", "gauge", "Requests waiting for a token now.", ("credential",))
WAITS = Family("token_waits_total", "counter", "Requests that had to wait for a token.", ("credential",))
UNCHANGED = Family(
    "token_unchanged_total",
    "counter",
    "Token requests that returned the current token again.",
    ("credential",),
)
FAILURES = Family(
    "token_consecutive_failures",
    "gauge",
    "Failed token requests since the last successful one; 0 again after requests for the token stop.",
    ("credential",),
)
LAST_SUCCESS = Family(
    "token_last_success_timestamp_seconds",
    "gauge",
    "Time of the last successful token request; absent before the first.",
    ("credential",),
)
SKEW = Family(
    "token_clock_skew_seconds",
    "gauge",
    "The token endpoint's clock minus ours, from its Date header; not used for expiry.",
    ("credential",),
)
SECRET_IN_USE = Family(
    "token_secret_in_use",
    "gauge",
    "1 for the secret that worked last (current or next, during a rotation), 0 for the other.",
    ("credential", "secret"),
)

ADOPTED = Family(
    "token_adopted_total",
    "counter",
    "Tokens that another instance fetched and this one uses, through the shared store.",
    ("credential",),
)
ORIGIN = Family(
    "token_origin",
    "gauge",
    "1 for where the current token came from: fetched by this instance or adopted from another; only with `store`.",
    ("credential", "origin"),
)

# ---------------------------------------------------------------------------------------------------------- store

STORE_UP = Family(
    "store_up", "gauge", "1 while the shared store is trusted, 0 while it is away; absent without `store`."
)
STORE_MODE = Family(
    "store_mode", "gauge", "1 for how this instance works: shared (with the store) or alone.", ("mode",)
)
STORE_DURATION = Family(
    "store_command_duration_seconds",
    "histogram",
    "Duration of commands of the shared store, by outcome (ok, failed).",
    ("outcome",),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
STORE_SILENCE = Family("store_silence_seconds", "gauge", "Time since the shared store's last answer.")
STORE_MEMBERS = Family("store_members", "gauge", "Instances that share the store, as last known to this one.")
STORE_STRANGERS = Family(
    "store_strangers", "gauge", "Instances with another last key in `store.keys`, so nothing is shared."
)
STORE_LEASES = Family(
    "store_leases_total",
    "counter",
    "Leases of token requests by outcome: committed, refused (a newer token was there), failed, lost (expired).",
    ("credential", "outcome"),
)
STORE_UNDECRYPTABLE = Family(
    "store_undecryptable_records_total",
    "counter",
    "Records of the shared store that none of `store.keys` opens, or that were moved to another place.",
)
STORE_GRANTED = Family(
    "store_budget_granted",
    "gauge",
    "Calls of a budget that the shared store has granted to this instance, used ones included.",
    ("client", "route", "per"),
)
STORE_AWAY_CALLS = Family(
    "store_away_calls_total",
    "counter",
    "Calls with a budget that were admitted while the shared store was away.",
    ("client", "route"),
)

# -------------------------------------------------------------------------------------------------------- process

BUILD = Family(
    "build_info",
    "info",
    "Versions of Gatepass, Python and aiohttp, and whether the hot path is compiled; always 1.",
)
CONFIG = Family("config_info", "info", "Digest of the active configuration; always 1.")
CONFIG_LOADS = Family(
    "config_loads_total",
    "counter",
    "Loads of the configuration, by outcome (ok, failed).",
    ("outcome",),
)
CONFIG_LOADED = Family(
    "config_last_load_success_timestamp_seconds",
    "gauge",
    "Time at which the active configuration was loaded.",
)
CONFIG_CURRENT = Family(
    "config_last_load_successful",
    "gauge",
    "1 if the configuration loaded last is active, 0 if it was refused and an older one stays active.",
)
LOG_DROPPED = Family(
    "log_events_dropped_total",
    "counter",
    "Log events dropped because standard output was slow or closed.",
)
SPANS_DROPPED = Family(
    "trace_spans_dropped_total",
    "counter",
    "Spans dropped because the trace collector was slow, closed or refused them.",
)

TLS_EXPIRY = Family(
    "tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "Expiry time of the data port's certificate; absent without `tls`.",
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
