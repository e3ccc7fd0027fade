"""Writes the dashboards: `python grafana/build.py` makes `dashboards/*.json`; a test compares the files with it.

Each panel is a few lines: what it shows, what to do when it looks bad, and its queries. What all panels share is written
once. Uses the dashboard JSON of Grafana 10 and later (schemaVersion 39).
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ROUTE, CREDENTIAL, CLIENT, JOB = (f'{name}=~"${name}"' for name in ("route", "credential", "client", "job"))
WIDTH, HEIGHT = 24, 8
TODO = "**When it looks bad:** "
"""Begins the second paragraph of every panel's description, which Grafana shows as Markdown."""


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, what to do when that looks bad, and its queries with the names of their series."""

    title: str
    shows: str
    todo: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stack: bool = False
    red_at: float | None = None
    mappings: tuple[tuple[str, str, str], ...] = ()
    """Value, text, colour."""


@dataclass(frozen=True)
class Row:
    """A heading and its panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    name: str
    title: str
    about: str
    variables: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...] = field(default=())


def by(label: str, expr: str) -> str:
    """Return the sum of a query by label."""
    return f"sum by ({label}) ({expr})"


def rate(metric: str, selector: str = "") -> str:
    """Return the rate of a metric per second, over the interval that fits the panel's resolution."""
    return (
        f"rate(gatepass_{metric}{{{selector}}}[$__rate_interval])"
        if selector
        else f"rate(gatepass_{metric}[$__rate_interval])"
    )


def quantile(share: float, label: str, metric: str, selector: str) -> str:
    """Return a quantile of a histogram by label."""
    return f"histogram_quantile({share}, {by(f'le, {label}', rate(f'{metric}_bucket', selector))})"


def mean(label: str, metric: str, selector: str) -> str:
    """Return the mean of a histogram by label."""
    return f"{by(label, rate(f'{metric}_sum', selector))} / {by(label, rate(f'{metric}_count', selector))}"


OWN_ERRORS = f'{ROUTE}, code!="", status=~"5.."'
STATE = (
    f"max by (credential) (2 * (gatepass_token_expiry_timestamp_seconds{{{CREDENTIAL}}} > bool time())"
    f" - (gatepass_token_consecutive_failures{{{CREDENTIAL}}} > bool 0))"
    f" or max by (credential) ((gatepass_token_consecutive_failures{{{CREDENTIAL}}} > bool 0) * -1)"
)
STATES = (
    ("2", "valid", "green"),
    ("1", "valid, renewal fails", "yellow"),
    ("0", "none", "text"),
    ("-1", "down", "red"),
)

OVERVIEW = Dashboard(
    "overview", "Gatepass: overview", "Is Gatepass serving, who is slow, and which hop fails?",
    (("route", "label_values(gatepass_requests_in_flight, route)"),),
    (
        Row("Are we serving?", (
            Panel("Requests", "Requests per second by route.",
                  "A route at zero while others have requests: look at its clients, then at unrouted requests (errors by code, below).",
                  ((by("route", rate("requests_total", ROUTE)), "{{route}}"),), "reqps", stack=True),
            Panel("Good answers", "Share of requests that the gateway itself did not fail.",
                  "Below 99.9 %: look at the errors by code below; each code has its row in docs/errors.md.",
                  ((f"1 - (sum({rate('requests_total', OWN_ERRORS)}) or vector(0)) / sum({rate('requests_total', ROUTE)})", "served"),), "percentunit", "stat", 4),
            Panel("Versions", "Versions and configurations in use.",
                  "Two versions or digests for longer than a rollout: find the instance with the old one, read its log (reload_refused), and reload or restart it.",
                  (("count by (version) (gatepass_build_info)", "version {{version}}"), ("count by (digest) (gatepass_config_info)", "{{digest}}")), kind="stat", width=4),
            Panel("In flight and connections", "Requests that are being served, and connections of apps.",
                  "Rising without more requests: a vendor has become slow. Find its route in the latencies below and ask the vendor.",
                  ((by("route", f"gatepass_requests_in_flight{{{ROUTE}}}"), "{{route}}"), ("sum(gatepass_client_connections)", "connections"))),
        )),
        Row("Which hop fails?", (
            Panel("Errors of the gateway, by code", "The gateway's own answers.",
                  "token_* and credential_*: see the tokens dashboard. upstream_*: look at the vendor or the network to it. client_*: find the app with a wrong key on the clients dashboard. internal: a defect, report the traceback in the log.",
                  ((by("code", rate("requests_total", f'{ROUTE}, code!=""')), "{{code}}"), (by("code", rate("unrouted_requests_total")), "{{code}} (no route)")), "reqps", stack=True, red_at=1),
            Panel("Vendors' own answers, by status", "Vendors' answers, which are passed on unchanged.",
                  "A 5xx here comes from the vendor: tell the vendor, with the time and an X-Request-Id. The gateway's own errors are on the left.",
                  ((by("status", rate("requests_total", f'{ROUTE}, code=""')), "{{status}}"),), "reqps", stack=True),
            Panel("Vendors' 5xx and refused tokens", "Answers with which the vendor failed, and answers that refused our token.",
                  "5xx: ask the vendor. Constant refusals: follow the runbook, tokens refused.",
                  ((by("route", rate("requests_total", f'{ROUTE}, code="", status=~"5.."')), "5xx {{route}}"), (by("route", rate("upstream_refusals_total", ROUTE)), "refused {{route}}")), "reqps"),
        )),
        Row("How fast, and who is slow?", (
            Panel("Latency by route, p50 and p99", "Duration of whole requests.",
                  "Compare it with the vendor's part on the right: if both rise, the vendor is slow. Follow the runbook, route slow.",
                  ((quantile(0.5, "route", "request_duration_seconds", ROUTE), "p50 {{route}}"), (quantile(0.99, "route", "request_duration_seconds", ROUTE), "p99 {{route}}")), "s", width=6),
            Panel("The vendor's part, p50 and p99", "Time from sending the request's head to the vendor until the head of its answer.",
                  "Rising: ask the vendor. Until it has recovered, lower the route's timeouts if apps cannot wait.",
                  ((quantile(0.5, "route", "upstream_duration_seconds", ROUTE), "p50 {{route}}"), (quantile(0.99, "route", "upstream_duration_seconds", ROUTE), "p99 {{route}}")), "s", width=6),
            Panel("The gateway's part, mean", "The difference of the two means: routing, tokens, waits for a connection, and the transfer of bodies. Milliseconds with small bodies.",
                  "More than that: look for waits for a connection (below) and for high CPU; follow the runbook, gateway slow.",
                  ((f"{mean('route', 'request_duration_seconds', ROUTE)} - {mean('route', 'upstream_duration_seconds', ROUTE)}", "{{route}}"),), "s", width=6, red_at=0.25),
            Panel("Body bytes", "Bytes of bodies from apps (in) and to apps (out), per second.",
                  "A sudden step: an app has changed what it sends. Find it in the requests by client and ask its owner; routes.*.max_body limits request bodies.",
                  ((f"sum({rate('request_bytes_total', ROUTE)})", "in"), (f"sum({rate('response_bytes_total', ROUTE)})", "out")), "Bps", width=6),
        )),
        Row("Connections to the vendors", (
            Panel("Connections to vendors", "Connections in use, idle connections, and the most that are allowed.",
                  "In use at the maximum for long: the pool is full. Ask why the vendor is slow, or raise pool.size.",
                  ((by("route", f"gatepass_pool_open_connections{{{ROUTE}}} - gatepass_pool_idle_connections{{{ROUTE}}}"), "in use {{route}}"), (by("route", f"gatepass_pool_idle_connections{{{ROUTE}}}"), "idle {{route}}"), (by("route", f"gatepass_pool_size_connections{{{ROUTE}}}"), "most {{route}}"))),
            Panel("Waits for a connection", "Requests per second that waited because the pool was full, and how long they waited (p99).",
                  "Above zero: the pool is full. See the panel on the left, and follow the runbook, pool exhausted.",
                  ((by("route", rate("pool_wait_seconds_count", ROUTE)), "waits {{route}}"), (quantile(0.99, "route", "pool_wait_seconds", ROUTE), "p99 {{route}}"))),
            Panel("Connects to vendors", "Attempts to connect, by outcome, and their duration (p99).",
                  "Failures: read the log's reason, which says whether name resolution, the network or TLS is the cause.",
                  ((by("route, outcome", rate("upstream_connects_total", ROUTE)), "{{route}} {{outcome}}"), (quantile(0.99, "route", "upstream_connect_duration_seconds", ROUTE), "p99 {{route}}"))),
        )),
        Row("The process", (
            Panel("CPU and memory", "Cores in use (one process uses at most one), and resident memory. Bodies are streamed, so large uploads need no more memory.",
                  "Near one core: run another instance. Memory rises for hours under constant load: compare it with connections and requests in flight, then report it.",
                  ((f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "cores {{instance}}"), (f"process_resident_memory_bytes{{{JOB}}} / 1073741824", "GiB {{instance}}"))),
            Panel("Configuration", "Loads of the configuration by outcome, and whether the last one is active (1) or was refused (0; the old one stays active).",
                  "At 0: read the problem in the log (reload_refused) or on the status page, correct the file, and follow the runbook, config refused. Do not restart before that.",
                  ((by("outcome", "increase(gatepass_config_loads_total[$__rate_interval])"), "{{outcome}}"), ("min(gatepass_config_last_load_successful)", "active"))),
            Panel("No file descriptor", "Connections that failed because no file descriptor was left, by what they were to, and open files against their limit.",
                  "Above zero: raise the limit of open files (LimitNOFILE, ulimit -n), or lower limits.connections and the pools' sizes; follow operations, faults.",
                  ((by("peer", "increase(gatepass_no_descriptor_total[$__rate_interval])"), "failed to {{peer}}"), (f"process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}}", "in use {{instance}}"))),
            Panel("Dropped events and state file", "Dropped log lines and spans, and writes of the state file by outcome. Requests are not affected.",
                  "Lines or spans above zero: the reader of standard output, or the collector of traces, is slow or down; repair it. State file failed: check the space and permissions of its folder before the next restart.",
                  (("sum(increase(gatepass_log_events_dropped_total[$__rate_interval]))", "log lines"), ("sum(increase(gatepass_trace_spans_dropped_total[$__rate_interval]))", "spans"), (by("outcome", "increase(gatepass_state_writes_total[$__rate_interval])"), "state file {{outcome}}"))),
        )),
        Row("The shared store", (
            Panel("Store up, and mode", "1 while an instance trusts the store; mode alone: it works without it. Empty without a store.",
                  "Away or alone for more than a minute: read the reason in the log (store_away) and follow the runbook, store away.",
                  (("min by (instance) (gatepass_store_up)", "up {{instance}}"), ('max by (instance) (gatepass_store_mode{mode="alone"})', "alone {{instance}}"))),
            Panel("Members, and silence", "Instances as each of them counts, and the time since the store's last answer.",
                  "Instances that count differently for more than 5 s: look for one that does not reach the store. Silence above 2 s: follow the runbook, store away.",
                  (("max by (instance) (gatepass_store_members)", "members {{instance}}"), ("max by (instance) (gatepass_store_silence_seconds)", "silence {{instance}}"))),
            Panel("Commands: rate, failures and p99", "Commands per second by outcome, and their 99th percentile. No request waits for them.",
                  "p99 near store.timeout: look at the store's own load and at the network. Failures: read store_away in the log.",
                  ((by("outcome", rate("store_command_duration_seconds_count")), "{{outcome}}"), (f"histogram_quantile(0.99, {by('le', rate('store_command_duration_seconds_bucket'))})", "p99 in s"))),
            Panel("Leases of token requests", "How the leases ended: committed is good; one per life of a token over all instances.",
                  "failed: look at the token endpoint. lost: an instance was stopped or paused for longer than store.lease; look at its load.",
                  ((by("outcome", "increase(gatepass_store_leases_total[$__rate_interval])"), "{{outcome}}"),)),
            Panel("Adopted tokens", "Tokens that instances adopted from another one, and where the current token of each instance came from.",
                  "No adoptions although there are several instances: compare store.namespace and the credentials' settings of all instances.",
                  ((by("credential", "increase(gatepass_token_adopted_total[$__rate_interval])"), "adopted {{credential}}"), (by("credential, origin", "gatepass_token_origin"), "{{credential}} {{origin}}"))),
            Panel("Strangers and undecryptable records", "Instances with another last key, and records that no key of store.keys opens. Should be zero, but for minutes while keys are replaced.",
                  "Above zero: compare store.keys of all instances and follow the runbook, store records.",
                  (("sum by (instance) (increase(gatepass_store_undecryptable_records_total[$__rate_interval]))", "records {{instance}}"), ("max by (instance) (gatepass_store_strangers)", "strangers {{instance}}")), red_at=1),
            Panel("Budgets and the store", "Calls that the store granted to instances, and calls per second that were admitted while it was away.",
                  "Calls while it was away: compare the budgets with the vendor's invoice when it is back.",
                  ((by("client, route, per", "gatepass_store_budget_granted"), "granted {{client}} → {{route}} a {{per}}"), (by("client, route", rate("store_away_calls_total")), "away {{client}} → {{route}}"))),
        )),
    ),
)  # fmt: skip

TOKENS = Dashboard(
    "tokens", "Gatepass: tokens", "What is the state of every credential, and which token requests does it send?",
    (("credential", "label_values(gatepass_token_consecutive_failures, credential)"), ("route", "label_values(gatepass_requests_in_flight, route)")),
    (
        Row("State of every credential", (
            Panel("State", "valid is good; none: no token is requested.",
                  "valid, renewal fails: act before the token expires. down: requests of its routes are refused now. Follow the runbook, token endpoint failing and credential refused.",
                  ((STATE, "{{credential}}"),), kind="state-timeline", width=16, mappings=STATES),
            Panel("Expires in", "Seconds until the current token expires; static keys are not shown.",
                  "Below a minute and falling: its renewal fails; follow the runbook, token not renewed.",
                  ((f"min by (credential) (gatepass_token_expiry_timestamp_seconds{{{CREDENTIAL}}} < +Inf) - time()", "{{credential}}"),), "s", "stat"),
            Panel("Remaining life", "Seconds until the current token expires, over time. Normally it falls from the granted life to the refresh margin, then jumps back.",
                  "It falls to zero: the renewal failed; follow the runbook, token not renewed. It jumps back much earlier than before: ask the vendor why it grants a shorter life, or look for revocations below.",
                  ((f"min by (credential) (gatepass_token_expiry_timestamp_seconds{{{CREDENTIAL}}} < +Inf) - time()", "{{credential}}"), (f"max by (credential) (gatepass_token_life_seconds{{{CREDENTIAL}}} < +Inf)", "granted {{credential}}")), "s"),
            Panel("Age, and time since the last successful fetch", "Both should stay below the granted life.",
                  "Both exceed it: the renewal fails; follow the runbook, token endpoint failing. Only the age grows: the endpoint returns the same token again, which the gateway recognises; nothing to do.",
                  ((f"time() - max by (credential) (gatepass_token_issued_timestamp_seconds{{{CREDENTIAL}}})", "age {{credential}}"), (f"time() - max by (credential) (gatepass_token_last_success_timestamp_seconds{{{CREDENTIAL}}})", "since {{credential}}")), "s"),
            Panel("Failures in a row", "Failed token requests since the last successful one.",
                  "Above zero for minutes: requests will be refused when the token expires. Read the reason on the status page and follow the runbook, token endpoint failing.",
                  ((f"max by (credential) (gatepass_token_consecutive_failures{{{CREDENTIAL}}})", "{{credential}}"),), red_at=3),
        )),
        Row("Requests to the token endpoints", (
            Panel("Token requests, by outcome", "ok and unchanged are good.",
                  "unavailable: the endpoint is down or slow, follow the runbook. refused: our credential is wrong, act now. malformed: the vendor changed its answer, run gatepass check and adapt the grant.",
                  ((by("credential, outcome, cause", f"increase(gatepass_token_fetches_total{{{CREDENTIAL}}}[$__rate_interval])"), "{{credential}} {{outcome}} ({{cause}})"), (by("credential", f"increase(gatepass_token_unchanged_total{{{CREDENTIAL}}}[$__rate_interval])"), "{{credential}} unchanged"))),
            Panel("Duration of token requests, p50 and p99", "Response time of the token endpoints. The gateway renews earlier if an endpoint is slow, so this alone delays no request.",
                  "Near ten seconds token requests time out: ask the vendor, or raise the credential's timeout.",
                  ((quantile(0.5, "credential", "token_fetch_duration_seconds", CREDENTIAL), "p50 {{credential}}"), (quantile(0.99, "credential", "token_fetch_duration_seconds", CREDENTIAL), "p99 {{credential}}")), "s"),
            Panel("Requests that waited for a token", "Should be zero after the start.",
                  "Above zero: a renewal failed, or a vendor revoked a token. Look at the token requests and the refused tokens. With keep_warm used or never, a few waits are expected; set always to avoid them.",
                  ((by("credential", rate("token_waits_total", CREDENTIAL)), "waits {{credential}}"), (by("credential", f"gatepass_token_waiters{{{CREDENTIAL}}}"), "now {{credential}}"))),
        )),
        Row("Refused tokens", (
            Panel("Refused tokens", "Answers that refused an injected token. A single one is a revocation; the request was sent again with a new token.",
                  "Constant refusals: the vendor revokes tokens early, or another system uses the same credential. Follow the runbook, tokens refused.",
                  ((by("route", rate("upstream_refusals_total", ROUTE)), "{{route}}"),), "reqps", red_at=0.1),
            Panel("Sent again", "Requests whose token was refused, by what happened next. sent is good: sent again with a new token. After refused_again, no_token and not_replayable the app got the vendor's refusal.",
                  "refused_again: the account may lack a permission. not_replayable: raise replay.up_to if bodies are larger. no_token: look at the token requests above.",
                  ((by("route, outcome", rate("replays_total", ROUTE)), "{{route}} {{outcome}}"),), "reqps"),
            Panel("Tokens in answers", "Answers in which the vendor repeated our token, which the gateway masked.",
                  "Report it to the vendor, and keep echo_guard on.",
                  ((by("route, place", f"increase(gatepass_echoed_tokens_total{{{ROUTE}}}[$__rate_interval])"), "{{route}} {{place}}"),)),
        )),
        Row("Clocks and rotations", (
            Panel("Clock skew", "The endpoint's clock minus ours; expiry does not depend on it.",
                  "Minutes: check NTP here; if ours is right, tell the vendor.",
                  ((f"max by (credential) (gatepass_token_clock_skew_seconds{{{CREDENTIAL}}})", "{{credential}}"),), "s"),
            Panel("Secret in use", "During a rotation: which secret worked last.",
                  "When all instances show next, make it the current secret and remove the old one.",
                  ((f"max by (credential, secret) (gatepass_token_secret_in_use{{{CREDENTIAL}}}) == 1", "{{credential}} {{secret}}"),)),
            Panel("Certificate of the data port", "Time until it expires.",
                  "Below 14 days: renew it, and follow the runbook, certificate expires.",
                  (("min by (instance) (gatepass_tls_certificate_expiry_timestamp_seconds) - time()", "{{instance}}"),), "s"),
        )),
    ),
)  # fmt: skip

BUDGET_SPENT = (
    f"max by (client, route, per) (gatepass_client_budget_used{{{CLIENT}, {ROUTE}}})"
    f' / max by (client, route, per) (gatepass_client_budget_limit{{{CLIENT}, {ROUTE}, level="hard"}})'
)
CLIENTS = Dashboard(
    "clients", "Gatepass: clients", "Who calls what, who is refused, and how much is left of the budgets?",
    (("client", "label_values(gatepass_client_requests_total, client)"), ("route", "label_values(gatepass_requests_in_flight, route)")),
    (
        Row("Who calls what", (
            Panel("Requests by client", "Requests per second.",
                  "A client at zero: ask its owner first; its rejected requests are below.",
                  ((by("client", rate("client_requests_total", f"{CLIENT}, {ROUTE}")), "{{client}}"),), "reqps", stack=True),
            Panel("Requests by client and route", "Who uses which vendor.",
                  "An unexpected pair: restrict clients.routes, and ask the client's owner.",
                  ((by("client, route", rate("client_requests_total", f"{CLIENT}, {ROUTE}")), "{{client}} → {{route}}"),), "reqps", stack=True),
            Panel("In flight by client", "Requests that are being served.",
                  "One client has nearly all of them: it occupies the connections to the vendor. Set its in_flight limit.",
                  ((by("client", f"gatepass_client_requests_in_flight{{{CLIENT}, {ROUTE}}}"), "{{client}}"),)),
        )),
        Row("Who is refused", (
            Panel("How requests end", "All outcomes except ok. vendor_error: the vendor's own error, passed on; refused: a 4xx of the gateway; failed: a 5xx of the gateway; gone: the app disconnected first.",
                  "failed: see the errors by code on the overview. refused: find the limit or rule below and in the log. vendor_error: tell the client's owner, then the vendor. gone: compare the app's own time-out with the latency of the route.",
                  ((by("client, outcome", rate("client_requests_total", f'{CLIENT}, {ROUTE}, outcome!="ok"')), "{{client}} {{outcome}}"),), "reqps", red_at=1),
            Panel("Limits that were reached", "Requests that were answered with 429, by limit.",
                  "rate, in_flight: the app is faster than agreed; slow it down or raise its limits. budget: it has used up its day or month; raise the budget, or wait.",
                  ((by("client, limit", rate("client_limited_total", f"{CLIENT}, {ROUTE}")), "{{client}} {{limit}}"),), "reqps"),
            Panel("Token requests of apps", "Token requests of SDKs, by outcome; issued: the SDK got a pass.",
                  "invalid_client: an app sends a wrong key as its client secret; the log (app_token_refused) names the route. More than one an hour for each process: an app that does not keep its pass.",
                  ((by("client, outcome", rate("app_tokens_total", f"{CLIENT}, {ROUTE}")), "{{client}} {{outcome}}"),), "reqps"),
            Panel("Unknown callers", "Requests without a known client or route, by code.",
                  "Many client_unknown: an app has a wrong key, or somebody tries to guess keys; find the address in the log (remote).",
                  ((by("code", rate("requests_total", 'code=~"client_.*"')), "{{code}}"), (by("code", rate("unrouted_requests_total")), "{{code}} (no route)")), "reqps"),
        )),
        Row("Other proxies that ask", (
            Panel("Questions of planes", "Questions per second by plane and outcome; token is a good one.",
                  "client_*: as on the data port, find the app in the log (question_refused). token_*, credential_*: see the tokens dashboard. bad_request: the plane is not configured as in deploy/planes.",
                  ((by("plane, outcome", rate("plane_questions_total", ROUTE)), "{{plane}} {{outcome}}"),), "reqps"),
            Panel("Tokens that planes reported as refused", "Questions after a vendor's refusal. One now and then is a revocation, healed by sending again.",
                  "Steadily above zero: the vendor refuses every token; see upstream_refusals on the overview, and ask the vendor.",
                  ((by("plane, route", rate("plane_refused_tokens_total", ROUTE)), "{{plane}} → {{route}}"),), "reqps"),
            Panel("Since the last question", "Time since each plane asked.",
                  "A plane that should be busy: it does not reach the socket, or sends its requests elsewhere; look at its own log.",
                  (("time() - max by (plane) (gatepass_plane_last_question_timestamp_seconds)", "{{plane}}"),), "s"),
        )),
        Row("Other proxies that get files", (
            Panel("Age of what was pushed", "Time since each file was last seen to hold the present token, or none. It is looked at every 5 seconds.",
                  "Above a minute: the files cannot be written, so the plane uses an old token; follow the runbook, push fails.",
                  (("time() - max by (plane, credential) (gatepass_plane_push_confirmed_timestamp_seconds)", "{{plane}} {{credential}}"),), "s", width=6, red_at=60),
            Panel("Files with a token", "1 while a plane's file holds a token, 0 while it is withdrawn.",
                  "At zero: there is no token; see the tokens dashboard.",
                  (("max by (plane, credential) (gatepass_plane_token_pushed)", "{{plane}} {{credential}}"),), width=6),
            Panel("Files written", "Files per second by outcome: a token, a withdrawal, a failure.",
                  "failed: the log (push_failed) has the reason; follow the runbook, push fails.",
                  ((by("plane, outcome", rate("plane_pushes_total")), "{{plane}} {{outcome}}"),), width=6),
            Panel("Reports of refused tokens", "Reports by planes that the vendor refused a pushed token, per second and outcome.",
                  "Steadily replaced: somebody revokes the tokens. limited: the vendor refuses fresh tokens, too; follow the runbook, tokens refused. unknown: the plane sends the app's own field; compare it with deploy/planes.",
                  ((by("plane, outcome", rate("plane_reports_total")), "{{plane}} {{outcome}}"),), "reqps", width=6),
        )),
        Row("What it costs", (
            Panel("Billed calls", "Calls that vendors bill, in the range of the dashboard.",
                  "More than on other days: ask the client's owner what has changed; a hard budget limits it.",
                  ((by("client, route", f"increase(gatepass_client_billed_calls_total{{{CLIENT}, {ROUTE}}}[$__range])"), "{{client}} → {{route}}"),), kind="stat"),
            Panel("Cost", "Billed calls times the route's price, in the range of the dashboard; only routes with a price.",
                  "gatepass usage has the exact amounts by day; compare them with the vendor's invoice.",
                  ((f"sum by (client, route, currency) (increase(gatepass_client_billed_calls_total{{{CLIENT}, {ROUTE}}}[$__range]) * on (route) group_left (currency) max by (route, currency) (gatepass_route_price_per_call{{{ROUTE}}}))", "{{client}} → {{route}} {{currency}}"),), kind="stat"),
        )),
        Row("Budgets and identities", (
            Panel("Spent of each budget", "Share of the hard limit that is used.",
                  "Above 90 %: tell the client's owner, or raise the budget, before requests are refused.",
                  ((BUDGET_SPENT, "{{client}} → {{route}} a {{per}}"),), "percentunit", "bargauge", red_at=0.9),
            Panel("Calls counted", "Calls in the current day or month, with the soft and hard limits.",
                  "Above soft, or more than on other days: ask the client's owner what has changed. At hard, calls are refused; if the calls are wanted, raise the budget before that.",
                  ((f"max by (client, route, per) (gatepass_client_budget_used{{{CLIENT}, {ROUTE}}})", "{{client}} → {{route}} a {{per}}"), (f"max by (client, route, per, level) (gatepass_client_budget_limit{{{CLIENT}, {ROUTE}}})", "{{level}} {{client}} → {{route}} a {{per}}"))),
            Panel("Issuers' keys", "Fetches of the keys that verify JWTs, and the time since the last successful fetch.",
                  "failed, or more time than the issuer's refresh: look at the issuer and the network to it (the log has issuer_keys_not_fetched with the reason). After max_age its clients are refused.",
                  ((by("issuer, outcome", "increase(gatepass_issuer_key_fetches_total[$__rate_interval])"), "{{issuer}} {{outcome}}"), ("time() - max by (issuer) (gatepass_issuer_keys_last_success_timestamp_seconds)", "since {{issuer}}"))),
        )),
    ),
)  # fmt: skip
ALL = (OVERVIEW, TOKENS, CLIENTS)


def dashboard(it: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": f"gatepass-{it.name}",
        "title": it.title,
        "description": it.about,
        "tags": ["gatepass"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_link(other) for other in ALL if other is not it],
        "annotations": {"list": _annotations()},
        "templating": {"list": _variables(it)},
        "panels": _panels(it),
    }


def _link(other: Dashboard) -> dict[str, Any]:
    return {
        "title": other.title.removeprefix("Gatepass: "), "type": "link", "icon": "dashboard", "tooltip": other.about,
        "url": f"/d/gatepass-{other.name}", "asDropdown": False, "includeVars": True, "keepTime": True,
        "targetBlank": False, "tags": [],
    }  # fmt: skip


def _annotations() -> list[dict[str, Any]]:
    rotated = (
        'sum by (credential) (increase(gatepass_token_fetches_total{cause="rotated"}[1m])) > 0'
        ' or sum by (credential) (changes(gatepass_token_secret_in_use{secret="next"}[1m])) > 0'
    )
    found = (
        ("Configuration loaded", "blue", "changes(gatepass_config_last_load_success_timestamp_seconds[1m]) > 0"),
        ("Secret rotated", "purple", rotated),
    )  # fmt: skip
    return [
        {
            "name": name, "datasource": SOURCE, "enable": True, "iconColor": colour, "expr": expr, "step": "60s",
            "titleFormat": name, "textFormat": "{{credential}}",
        }
        for name, colour, expr in found
    ]  # fmt: skip


def _variables(it: Dashboard) -> list[dict[str, Any]]:
    first = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "refresh": 1}  # fmt: skip
    asked = (("job", "label_values(gatepass_build_info, job)"), *it.variables)
    return [first, *(_variable(name, query) for name, query in asked)]


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": name.capitalize(), "type": "query", "datasource": SOURCE,
        "query": {"query": query, "refId": name}, "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]}, "sort": 1,
    }  # fmt: skip


def _panels(it: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for row in it.rows:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        found.append({"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []})  # fmt: skip
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            found.append(_panel(panel, len(found) + 1, {"h": HEIGHT, "w": panel.width, "x": x, "y": y}))
            x += panel.width
        y += HEIGHT
    return found


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": f"{panel.shows}\n\n{TODO}{panel.todo}",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + at), "datasource": SOURCE, "editorMode": "code", "expr": expr,
                "legendFormat": legend, "range": panel.kind in {"timeseries", "state-timeline"},
                "instant": panel.kind not in {"timeseries", "state-timeline"},
            }
            for at, (expr, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_at is not None:
        steps.append({"color": "red", "value": panel.red_at})
    found: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        found["custom"] = {
            "drawStyle": "line", "fillOpacity": 20, "lineWidth": 1, "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.red_at is not None else "off"},
        }  # fmt: skip
    if panel.kind == "bargauge":
        found |= {"min": 0, "max": 1}
    if panel.mappings:
        options = {value: {"text": text, "color": colour, "index": at} for at, (value, text, colour) in enumerate(panel.mappings)}  # fmt: skip
        found["mappings"] = [{"type": "value", "options": options}]
    return found


_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
_TOOLTIP = {"mode": "multi", "sort": "desc"}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"legend": _LEGEND, "tooltip": _TOOLTIP},
    "state-timeline": {"legend": _LEGEND, "tooltip": _TOOLTIP, "mergeValues": True, "showValue": "auto", "rowHeight": 0.9},
    "stat": {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "area", "textMode": "auto", "orientation": "auto", "justifyMode": "auto", "wideLayout": True},
    "bargauge": {"reduceOptions": _LAST, "orientation": "horizontal", "displayMode": "gradient", "valueMode": "color", "showUnfilled": True, "minVizWidth": 8, "minVizHeight": 16, "namePlacement": "auto", "sizing": "auto", "maxVizHeight": 300},
}  # fmt: skip


def texts() -> dict[str, str]:
    """Return the text of each file by name."""
    return {f"{it.name}.json": json.dumps(dashboard(it), indent=2) + "\n" for it in ALL}


RUNBOOK_URL = re.compile(r"(?<=runbook_url: )[^#\s]+(?=#)")


def with_runbook_base(text: str, base: str) -> str:
    """Return rules whose `runbook_url` is a section of the page at `base`."""
    return RUNBOOK_URL.sub(base, text)


def main() -> None:
    """Write the dashboards; with `--runbook-base`, also the address of the runbook into the alerts and their tests."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runbook-base", help="where your copy of docs/runbook.md is, without an anchor")
    base = parser.parse_args().runbook_base
    for file, text in texts().items():
        (HERE / "dashboards" / file).write_text(text, encoding="utf-8")
    for path in (HERE / "alerts").glob("*.yaml") if base else ():
        path.write_text(with_runbook_base(path.read_text(encoding="utf-8"), base), encoding="utf-8")


if __name__ == "__main__":
    main()
