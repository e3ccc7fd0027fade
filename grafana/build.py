"""The dashboards' source: `python grafana/build.py` writes `dashboards/*.json`; a test holds the files to it.

One line says what a panel asks and what to do when it looks bad; everything that all panels share stands here once.
Follows the dashboard JSON of Grafana 10 and later (schemaVersion 39).
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
"""Stands in every panel's description before what to do; Grafana shows descriptions as Markdown."""


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
    """Sum over everything but a label."""
    return f"sum by ({label}) ({expr})"


def rate(metric: str, selector: str = "") -> str:
    """Per second, over as long as the panel's resolution asks for."""
    return (
        f"rate(gatepass_{metric}{{{selector}}}[$__rate_interval])"
        if selector
        else f"rate(gatepass_{metric}[$__rate_interval])"
    )


def quantile(share: float, label: str, metric: str, selector: str) -> str:
    """A quantile of a histogram, by label."""
    return f"histogram_quantile({share}, {by(f'le, {label}', rate(f'{metric}_bucket', selector))})"


def mean(label: str, metric: str, selector: str) -> str:
    """A histogram's mean, by label."""
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
                  "A route at zero while others run: look at its clients, then at unrouted requests (errors by code, below).",
                  ((by("route", rate("requests_total", ROUTE)), "{{route}}"),), "reqps", stack=True),
            Panel("Good answers", "Share of requests that the gateway itself did not fail.",
                  "Below 99.9 %: look at the errors by code below; each code has its row in docs/errors.md.",
                  ((f"1 - (sum({rate('requests_total', OWN_ERRORS)}) or vector(0)) / sum({rate('requests_total', ROUTE)})", "served"),), "percentunit", "stat", 4),
            Panel("Versions", "Versions and configurations that run.",
                  "Two digests or versions for more than a rollout: find the instance that lags in its log (reload_refused) and reload or restart it.",
                  (("count by (version) (gatepass_build_info)", "version {{version}}"), ("count by (digest) (gatepass_config_info)", "{{digest}}")), kind="stat", width=4),
            Panel("In flight and connections", "Requests being served and connections of apps.",
                  "Rising without more requests: a vendor became slow. Find its route in the latencies below and ask the vendor.",
                  ((by("route", f"gatepass_requests_in_flight{{{ROUTE}}}"), "{{route}}"), ("sum(gatepass_client_connections)", "connections"))),
        )),
        Row("Which hop fails?", (
            Panel("Errors of the gateway, by code", "The gateway's own answers.",
                  "token_* and credential_*: see the tokens dashboard. upstream_*: look at the vendor or the way to it. client_*: find the app with a wrong key on the clients dashboard. internal: a defect, report the traceback in the log.",
                  ((by("code", rate("requests_total", f'{ROUTE}, code!=""')), "{{code}}"), (by("code", rate("unrouted_requests_total")), "{{code}} (no route)")), "reqps", stack=True, red_at=1),
            Panel("Vendors' own answers, by status", "Vendors' answers that were passed on unchanged.",
                  "5xx here is the vendor's: tell it, with the time and an X-Request-Id. The gateway's own errors are to the left.",
                  ((by("status", rate("requests_total", f'{ROUTE}, code=""')), "{{status}}"),), "reqps", stack=True),
            Panel("Vendors' 5xx and refused tokens", "Answers that say that the vendor failed, and those that refused our token.",
                  "5xx: ask the vendor. Constant refusals: follow the runbook, tokens refused.",
                  ((by("route", rate("requests_total", f'{ROUTE}, code="", status=~"5.."')), "5xx {{route}}"), (by("route", rate("upstream_refusals_total", ROUTE)), "refused {{route}}")), "reqps"),
        )),
        Row("How fast, and who is slow?", (
            Panel("Latency by route, p50 and p99", "Whole time of a request.",
                  "Compare with the vendor's part beside it before looking at the gateway: what both show is the vendor's; follow the runbook, route slow.",
                  ((quantile(0.5, "route", "request_duration_seconds", ROUTE), "p50 {{route}}"), (quantile(0.99, "route", "request_duration_seconds", ROUTE), "p99 {{route}}")), "s", width=6),
            Panel("The vendor's part, p50 and p99", "From the head sent to the vendor to the head of its answer.",
                  "Rising: ask the vendor; until it is well, lower the route's timeouts if apps cannot wait.",
                  ((quantile(0.5, "route", "upstream_duration_seconds", ROUTE), "p50 {{route}}"), (quantile(0.99, "route", "upstream_duration_seconds", ROUTE), "p99 {{route}}")), "s", width=6),
            Panel("The gateway's part, mean", "The difference of the two means: routing, tokens, waits for a connection, and the transfer of bodies. Milliseconds with small bodies.",
                  "More than that: look for waits for a connection below and for a full processor; follow the runbook, gateway slow.",
                  ((f"{mean('route', 'request_duration_seconds', ROUTE)} - {mean('route', 'upstream_duration_seconds', ROUTE)}", "{{route}}"),), "s", width=6, red_at=0.25),
            Panel("Body bytes", "In from apps and out to apps, per second.",
                  "A sudden step is an app that changed what it sends: find it among the requests by client and ask its owner; routes.*.max_body bounds what it may send.",
                  ((f"sum({rate('request_bytes_total', ROUTE)})", "in"), (f"sum({rate('response_bytes_total', ROUTE)})", "out")), "Bps", width=6),
        )),
        Row("The way to the vendors", (
            Panel("Connections to vendors", "In use, idle and the most there may be.",
                  "In use at the most for long: the pool is full; ask why the vendor is slow, or raise pool.size.",
                  ((by("route", f"gatepass_pool_open_connections{{{ROUTE}}} - gatepass_pool_idle_connections{{{ROUTE}}}"), "in use {{route}}"), (by("route", f"gatepass_pool_idle_connections{{{ROUTE}}}"), "idle {{route}}"), (by("route", f"gatepass_pool_size_connections{{{ROUTE}}}"), "most {{route}}"))),
            Panel("Waits for a connection", "How many requests per second found the pool full, and how long they waited (p99).",
                  "Above zero: the pool is full, see the panel to the left and the runbook, pool exhausted.",
                  ((by("route", rate("pool_wait_seconds_count", ROUTE)), "waits {{route}}"), (quantile(0.99, "route", "pool_wait_seconds", ROUTE), "p99 {{route}}"))),
            Panel("Connects to vendors", "Attempts by outcome and their p99.",
                  "Failures: look for name resolution, network or TLS; the log's reason names which it is.",
                  ((by("route, outcome", rate("upstream_connects_total", ROUTE)), "{{route}} {{outcome}}"), (quantile(0.99, "route", "upstream_connect_duration_seconds", ROUTE), "p99 {{route}}"))),
        )),
        Row("The process", (
            Panel("CPU and memory", "Cores in use (one process uses one at most) and resident bytes. Bodies are streamed, so the size of uploads does not show here.",
                  "Near one core: run another instance. Memory that rises for hours under even load: compare with connections and requests in flight, then report it.",
                  ((f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "cores {{instance}}"), (f"process_resident_memory_bytes{{{JOB}}} / 1073741824", "GiB {{instance}}"))),
            Panel("Configuration", "Readings of the configuration, and whether the last one is in force (1) or was refused (0, the old one goes on).",
                  "At 0: read the problem in the log (reload_refused) or on the status page, mend the file, and follow the runbook, config refused. Do not restart before.",
                  ((by("outcome", "increase(gatepass_config_loads_total[$__rate_interval])"), "{{outcome}}"), ("min(gatepass_config_last_load_successful)", "in force"))),
            Panel("Dropped events and state file", "Dropped log lines and spans, and writes of the state file by outcome. Requests are not affected.",
                  "Lines or spans above zero: standard output or the collector of traces is slow or closed; see to whatever reads it. State file failed: look at its folder's space and rights before the next restart.",
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
            Panel("Undecryptable records", "Records that no key of store.keys opens. Should be zero.",
                  "Above zero: compare store.keys of all instances and follow the runbook, store records.",
                  (("sum by (instance) (increase(gatepass_store_undecryptable_records_total[$__rate_interval]))", "{{instance}}"),), red_at=1),
            Panel("Budgets and the store", "Calls that the store granted to instances, and calls per second that were admitted while it was away.",
                  "Calls while it was away: compare the budgets with the vendor's invoice when it is back.",
                  ((by("client, route, per", "gatepass_store_budget_granted"), "granted {{client}} → {{route}} a {{per}}"), (by("client, route", rate("store_away_calls_total")), "away {{client}} → {{route}}"))),
        )),
    ),
)  # fmt: skip

TOKENS = Dashboard(
    "tokens", "Gatepass: tokens", "How does every credential stand, and what does it ask of its vendor?",
    (("credential", "label_values(gatepass_token_consecutive_failures, credential)"), ("route", "label_values(gatepass_requests_in_flight, route)")),
    (
        Row("How every credential stands", (
            Panel("State", "valid is good; none: no token is asked for.",
                  "valid, renewal fails: act before the token ends. down: requests of its routes are refused now. Follow the runbook, token endpoint failing and credential refused.",
                  ((STATE, "{{credential}}"),), kind="state-timeline", width=16, mappings=STATES),
            Panel("Ends in", "Seconds until the token in hand ends; static keys are not shown.",
                  "Below a minute and falling: its renewal fails; follow the runbook, token not renewed.",
                  ((f"min by (credential) (gatepass_token_expiry_timestamp_seconds{{{CREDENTIAL}}} < +Inf) - time()", "{{credential}}"),), "s", "stat"),
            Panel("Token lives for", "Seconds until the token in hand ends, over time. It should saw between the life that was granted and the refresh margin.",
                  "A tooth that runs down to zero: its renewal failed; follow the runbook, token not renewed. Teeth much shorter than before: ask the vendor why it grants less, or look for revocations below.",
                  ((f"min by (credential) (gatepass_token_expiry_timestamp_seconds{{{CREDENTIAL}}} < +Inf) - time()", "{{credential}}"), (f"max by (credential) (gatepass_token_life_seconds{{{CREDENTIAL}}} < +Inf)", "granted {{credential}}")), "s"),
            Panel("Age, and time since the last good fetch", "Both should stay below the life that was granted.",
                  "Both grow beyond it: its renewal fails; follow the runbook, token endpoint failing. An age that grows alone: the endpoint hands out the same token again, which is recognised and needs nothing.",
                  ((f"time() - max by (credential) (gatepass_token_issued_timestamp_seconds{{{CREDENTIAL}}})", "age {{credential}}"), (f"time() - max by (credential) (gatepass_token_last_success_timestamp_seconds{{{CREDENTIAL}}})", "since {{credential}}")), "s"),
            Panel("Failures in a row", "Token requests that failed since the last good one.",
                  "Above zero for minutes ends in refused requests when the token ends: read the reason on the status page and follow the runbook, token endpoint failing.",
                  ((f"max by (credential) (gatepass_token_consecutive_failures{{{CREDENTIAL}}})", "{{credential}}"),), red_at=3),
        )),
        Row("What is asked of the endpoints", (
            Panel("Token requests, by outcome", "ok and unchanged are good.",
                  "unavailable: the endpoint is down or slow, follow the runbook. refused: our credential is wrong, act now. malformed: the vendor changed its answer, run gatepass check and adapt the grant.",
                  ((by("credential, outcome, cause", f"increase(gatepass_token_fetches_total{{{CREDENTIAL}}}[$__rate_interval])"), "{{credential}} {{outcome}} ({{cause}})"), (by("credential", f"increase(gatepass_token_unchanged_total{{{CREDENTIAL}}}[$__rate_interval])"), "{{credential}} unchanged"))),
            Panel("Duration of token requests, p50 and p99", "How long the token endpoints take. A slow one is asked earlier, so this alone harms nobody.",
                  "Near ten seconds it times out: ask the vendor, or raise the credential's timeout.",
                  ((quantile(0.5, "credential", "token_fetch_duration_seconds", CREDENTIAL), "p50 {{credential}}"), (quantile(0.99, "credential", "token_fetch_duration_seconds", CREDENTIAL), "p99 {{credential}}")), "s"),
            Panel("Requests that waited for a token", "Should be zero after the start.",
                  "Else renewing ahead failed, or a vendor revoked a token: look at the token requests and the refused tokens. With keep_warm used or never a wait now and then is as configured; set always to end them.",
                  ((by("credential", rate("token_waits_total", CREDENTIAL)), "waits {{credential}}"), (by("credential", f"gatepass_token_waiters{{{CREDENTIAL}}}"), "now {{credential}}"))),
        )),
        Row("Refused tokens", (
            Panel("Refused tokens", "Answers that refused a token which we had injected. One now and then is a revocation, healed by sending again.",
                  "Constant refusals: the vendor revokes tokens early, or somebody else uses the same credential; follow the runbook, tokens refused.",
                  ((by("route", rate("upstream_refusals_total", ROUTE)), "{{route}}"),), "reqps", red_at=0.1),
            Panel("Sent again", "What came of the second try. sent is good; after refused_again, no_token and not_replayable the app got the vendor's refusal.",
                  "refused_again: look for a right that the account lacks. not_replayable: raise replay.up_to where uploads are larger. no_token: look at the token requests above.",
                  ((by("route, outcome", rate("replays_total", ROUTE)), "{{route}} {{outcome}}"),), "reqps"),
            Panel("Tokens in answers", "Answers in which the vendor sent our token back, and it was masked.",
                  "Tell the vendor, and keep echo_guard on.",
                  ((by("route, place", f"increase(gatepass_echoed_tokens_total{{{ROUTE}}}[$__rate_interval])"), "{{route}} {{place}}"),)),
        )),
        Row("Clocks and rotations", (
            Panel("Clock skew", "The endpoint's clock minus ours; expiry does not depend on it.",
                  "Minutes: check NTP here; if ours is right, tell the vendor.",
                  ((f"max by (credential) (gatepass_token_clock_skew_seconds{{{CREDENTIAL}}})", "{{credential}}"),), "s"),
            Panel("Secret in use", "During a rotation: which secret worked last.",
                  "When all show next, make it the current one and drop the old.",
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
                  "A client at zero: ask its owner before you look here; its refusals are below.",
                  ((by("client", rate("client_requests_total", f"{CLIENT}, {ROUTE}")), "{{client}}"),), "reqps", stack=True),
            Panel("Requests by client and route", "Who uses which vendor.",
                  "A pair that nobody expected: narrow clients.routes, and ask the client's owner.",
                  ((by("client, route", rate("client_requests_total", f"{CLIENT}, {ROUTE}")), "{{client}} → {{route}}"),), "reqps", stack=True),
            Panel("In flight by client", "Requests being served now.",
                  "One client near all of it holds the connections to the vendor: set its in_flight limit.",
                  ((by("client", f"gatepass_client_requests_in_flight{{{CLIENT}, {ROUTE}}}"), "{{client}}"),)),
        )),
        Row("Who is refused", (
            Panel("How requests end", "All but ok. vendor_error was passed on; refused is our 4xx, failed our 5xx; gone: the app hung up first.",
                  "failed: see the errors by code on the overview. refused: look which limit or rule it was, below and in the log. vendor_error: tell the client's owner, then the vendor. gone: compare the app's own time-out with the latency of the route.",
                  ((by("client, outcome", rate("client_requests_total", f'{CLIENT}, {ROUTE}, outcome!="ok"')), "{{client}} {{outcome}}"),), "reqps", red_at=1),
            Panel("Limits that were reached", "429 by limit.",
                  "rate, in_flight: the app is faster than agreed; slow it down or raise its limits. budget: it has used up its day or month; raise it or let it wait.",
                  ((by("client, limit", rate("client_limited_total", f"{CLIENT}, {ROUTE}")), "{{client}} {{limit}}"),), "reqps"),
            Panel("Token requests of apps", "Passes given to SDKs that fetch their token themselves, and refusals.",
                  "invalid_client: an app sends a wrong key as its client secret; the log (app_token) names the route. A rate above one an hour and process: an app that does not keep its token.",
                  ((by("client, outcome", rate("app_tokens_total", f"{CLIENT}, {ROUTE}")), "{{client}} {{outcome}}"),), "reqps"),
            Panel("Unknown callers", "Requests without a known client or route, by code.",
                  "Many client_unknown: an app lost its key, or somebody tries keys; find the address in the log (remote).",
                  ((by("code", rate("requests_total", 'code=~"client_.*"')), "{{code}}"), (by("code", rate("unrouted_requests_total")), "{{code}} (no route)")), "reqps"),
        )),
        Row("What it costs", (
            Panel("Billed calls", "Calls that vendors bill, in the range of the dashboard.",
                  "Steeper than on other days: ask the client's owner what changed; a hard budget bounds it.",
                  ((by("client, route", f"increase(gatepass_client_billed_calls_total{{{CLIENT}, {ROUTE}}}[$__range])"), "{{client}} → {{route}}"),), kind="stat"),
            Panel("Cost", "Billed calls times the route's price, in the range of the dashboard; only routes with a price.",
                  "gatepass usage has the exact amounts by day; compare them with the vendor's invoice.",
                  ((f"sum by (client, route, currency) (increase(gatepass_client_billed_calls_total{{{CLIENT}, {ROUTE}}}[$__range]) * on (route) group_left (currency) max by (route, currency) (gatepass_route_price_per_call{{{ROUTE}}}))", "{{client}} → {{route}} {{currency}}"),), kind="stat"),
        )),
        Row("Budgets and identities", (
            Panel("Spent of each budget", "Share of the hard limit that is used.",
                  "Above 90 %: tell the client's owner, or raise the budget, before it is refused.",
                  ((BUDGET_SPENT, "{{client}} → {{route}} a {{per}}"),), "percentunit", "bargauge", red_at=0.9),
            Panel("Calls counted", "Calls in the day or month that runs, with the limits, soft and hard.",
                  "Above soft, or steeper than on other days: ask the client's owner what changed; at hard its calls are refused, so raise the budget first if they are meant.",
                  ((f"max by (client, route, per) (gatepass_client_budget_used{{{CLIENT}, {ROUTE}}})", "{{client}} → {{route}} a {{per}}"), (f"max by (client, route, per, level) (gatepass_client_budget_limit{{{CLIENT}, {ROUTE}}})", "{{level}} {{client}} → {{route}} a {{per}}"))),
            Panel("Issuers' keys", "Requests for the keys that JWTs are judged by, and the time since they were last seen.",
                  "failed, or a time beyond the issuer's refresh: look at the issuer and the way to it (the log says issuer_keys_not_fetched and why); after max_age its clients are refused.",
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
    """Return every file's text by its name."""
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
