"""What is counted, and that traffic cannot make it grow."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.access.counters import Counter as Calls
from gateway.access.counters import Terms
from gateway.access.escrow import Escrow
from gateway.access.shared_metrics import SharedMetrics
from gateway.model import Client, ClientBudget, Money
from gateway.observe import Metrics, StoreState, metrics_markdown
from gateway.observe.metrics.families import EXPIRY, FAMILIES, LIFE, REQUEST_BYTES, REQUEST_DURATION
from tests.kit.metrics import sample, scraped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return sample(metrics, f"gatepass_{name}", labels)


def series(metrics: Metrics, name: str) -> int:
    return scraped(metrics).count(f"\ngatepass_{name}{{")


def test_a_request_is_counted_once_with_its_durations_and_bytes() -> None:
    metrics = Metrics()
    metrics.route("idfy").request("GET", 200, "", 0.3, 0.2, 10, 20)
    assert value(metrics, "requests_total", route="idfy", method="GET", status="200", code="") == 1
    assert value(metrics, "request_duration_seconds_sum", route="idfy") == 0.3
    assert value(metrics, "upstream_duration_seconds_sum", route="idfy") == 0.2
    assert value(metrics, "request_bytes_total", route="idfy") == 10
    assert value(metrics, "response_bytes_total", route="idfy") == 20


def test_a_request_that_never_reached_the_vendor_has_no_vendor_time() -> None:
    metrics = Metrics()
    metrics.route("idfy").request("GET", 503, "token_unavailable", 0.01, None, 0, 300)
    assert value(metrics, "upstream_duration_seconds_count", route="idfy") == 0
    assert value(metrics, "request_duration_seconds_count", route="idfy") == 1


@pytest.mark.parametrize(
    ("seconds", "below", "first_bucket_with_it"),
    [(0.001, None, "0.001"), (0.0011, "0.001", "0.0025"), (60.0, "30.0", "60.0"), (61.0, "60.0", "+Inf")],
    ids=["on the bound", "just over it", "on the last bound", "beyond all"],
)
def test_an_observation_falls_into_the_bucket_whose_bound_it_does_not_exceed(
    seconds: float, below: str | None, first_bucket_with_it: str
) -> None:
    metrics = Metrics()
    metrics.route("r").request("GET", 200, "", seconds, None, 0, 0)
    assert value(metrics, "request_duration_seconds_bucket", route="r", le=first_bucket_with_it) == 1
    assert below is None or value(metrics, "request_duration_seconds_bucket", route="r", le=below) == 0


def test_made_up_methods_and_statuses_add_no_series() -> None:
    metrics = Metrics()
    route = metrics.route("idfy")
    for number in range(300):
        route.request(f"M{number}", 200, "", 0.1, None, 0, 0)
        route.request("GET", 600 + number, "", 0.1, None, 0, 0)
    route.request("GET", 599, "", 0.1, None, 0, 0)
    assert series(metrics, "requests_total") == 3
    assert value(metrics, "requests_total", route="idfy", method="other", status="200", code="") == 300
    assert value(metrics, "requests_total", route="idfy", method="GET", status="5xx", code="") == 1


def test_the_same_name_gives_the_same_children() -> None:
    metrics = Metrics()
    assert metrics.route("idfy") is metrics.route("idfy")
    assert metrics.credential("idfy") is metrics.credential("idfy")


def test_two_registries_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.refused("bad_request")
    assert value(one, "unrouted_requests_total", code="bad_request") == 1
    assert value(other, "unrouted_requests_total", code="bad_request") is None


def test_before_the_first_token_no_expiry_is_shown_as_1970() -> None:
    metrics = Metrics()
    metrics.credential("idfy").fetched("unavailable", "startup", 0.2)
    assert value(metrics, "token_expiry_timestamp_seconds", credential="idfy") is None
    assert value(metrics, "token_last_success_timestamp_seconds", credential="idfy") is None
    assert value(metrics, "token_fetches_total", credential="idfy", outcome="unavailable", cause="startup") == 1


def test_a_good_fetch_dates_the_last_success_and_an_expiry_is_an_instant() -> None:
    metrics = Metrics(wall=lambda: 1000.0)
    credential = metrics.credential("idfy")
    credential.fetched("ok", "refresh_ahead", 0.2)
    credential.expires(4600.0, 3600.0)
    assert value(metrics, "token_last_success_timestamp_seconds", credential="idfy") == 1000.0
    assert value(metrics, "token_expiry_timestamp_seconds", credential="idfy") == 4600.0
    assert value(metrics, "token_life_seconds", credential="idfy") == 3600.0


def test_a_waiter_is_gone_afterwards_but_stays_counted() -> None:
    metrics = Metrics()
    waiters = metrics.credential("idfy").waiters
    waiters.inc()
    waiters.inc()
    waiters.dec()
    assert value(metrics, "token_waiters", credential="idfy") == 1
    assert value(metrics, "token_waits_total", credential="idfy") == 2


def test_exactly_one_secret_is_shown_as_in_use() -> None:
    metrics = Metrics()
    metrics.credential("idfy").secret_used("next")
    assert value(metrics, "token_secret_in_use", credential="idfy", secret="next") == 1
    assert value(metrics, "token_secret_in_use", credential="idfy", secret="current") == 0


def test_a_failed_load_leaves_the_digest_in_force() -> None:
    metrics = Metrics(wall=lambda: 5.0)
    metrics.config_loaded("ok", "abc")
    metrics.config_loaded("failed")
    assert value(metrics, "config_info", digest="abc") == 1
    assert value(metrics, "config_loads_total", outcome="failed") == 1
    assert value(metrics, "config_last_load_success_timestamp_seconds") == 5.0


def touch_everything() -> Metrics:
    metrics = Metrics()
    route, credential = metrics.route("idfy"), metrics.credential("idfy")
    route.request("GET", 200, "", 0.1, 0.1, 1, 1)
    route.vendor_refusal()
    route.replayed("ok")
    route.connect("ok", 0.1)
    route.pool_wait(0.1)
    route.pool_size(100)
    route.echoed("header")
    route.app_token("web", "issued")
    metrics.client("web", "idfy").limited("rate")
    metrics.route("idfy").app_token("web", "issued")
    metrics.client("web", "idfy").budget("day", 8, 10).set(1)
    metrics.state_written("ok")
    metrics.keys_fetched("corp", "ok")
    credential.fetched("ok", "startup", 0.1)
    credential.expires(10.0, 5.0)
    credential.skew(1.0)
    credential.unchanged()
    credential.secret_used("current")
    credential.adopted()
    credential.origin("adopted")
    credential.lease("committed")
    store = metrics.store()
    store.watch(lambda: StoreState(up=True, shared=True, silence=0.0, members=1, strangers=0))
    store.answered(0.1)
    metrics.store_granted.labels("web", "idfy", "day").set(1)
    metrics.store_away_calls.labels("web", "idfy").inc()
    metrics.plane_questions.labels("edge", "idfy", "ok").set(1)
    metrics.plane_refused.labels("edge", "idfy").set(1)
    metrics.plane_asked.labels("edge").set(1)
    metrics.pushes.labels("edge", "ok").inc()
    metrics.push_confirmed_at.labels("edge", "idfy").set(1)
    metrics.token_pushed.labels("edge", "idfy").set(1)
    metrics.plane_reports.labels("edge", "ok").set(1)
    metrics.refused("bad_request")
    metrics.config_loaded("ok", "abc")
    metrics.certificate_expires(4e9)
    metrics.prices({"idfy": Money(Decimal("0.35"), "EUR")})
    return metrics


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [(None, "text/plain", parse_text), (OPENMETRICS, "application/openmetrics-text", parse_openmetrics)],
    ids=["text", "openmetrics"],
)
def test_every_declared_metric_is_exposed_under_its_declared_name_and_kind(
    accept: str | None, content_type: str, parse: Callable[[str], Iterable[Metric]]
) -> None:
    parts, served = touch_everything().exposition(accept)
    exposed = {family.name: family for family in parse(b"".join(parts).decode())}
    assert served.startswith(content_type)
    for family in FAMILIES:
        name = family.full_name.removesuffix("_total" if family.kind == "counter" else "_info")
        shown = exposed.get(name) or exposed[family.full_name]
        assert shown.documentation == family.help
        assert shown.type in {family.kind, "gauge" if family.kind == "info" else family.kind}
        assert shown.samples, family.full_name


def test_names_end_in_their_unit_and_counters_in_total() -> None:
    for family in FAMILIES:
        assert family.full_name.endswith("_total") == (family.kind == "counter"), family.full_name
        assert family.kind != "histogram" or family.full_name.endswith(("_seconds", "_bytes")), family.full_name
        assert family.full_name.endswith("_info") == (family.kind == "info"), family.full_name
        assert family.help.endswith("."), family.full_name


def test_the_page_on_metrics_says_what_the_declarations_say() -> None:
    assert metrics_markdown() in DOCS.read_text(), "run: python -m gateway.observe, and put it into docs/metrics.md"


def samples(families: Iterable[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [sample for family in families for sample in family.samples]
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}


@pytest.mark.parametrize(
    ("accept", "parse"), [(None, parse_text), (OPENMETRICS, parse_openmetrics)], ids=["text", "om"]
)
def test_the_text_is_what_the_library_writes_for_the_same_observations(
    accept: str | None, parse: Callable[[str], Iterable[Metric]]
) -> None:
    """We write the text ourselves, for speed; `prometheus_client` with the same observations is the judge."""
    metrics, registry = Metrics(), CollectorRegistry()
    metrics.route('odd"na\\me\n').request("GET", 200, "", 3.0, None, 7, 0)
    metrics.credential("ledger").expires(math.inf, 1e17)
    duration, bytes_in, expiry, life = (
        Histogram(
            REQUEST_DURATION.full_name,
            REQUEST_DURATION.help,
            ["route"],
            buckets=REQUEST_DURATION.buckets,
            registry=None,
        ),
        Counter(REQUEST_BYTES.full_name, REQUEST_BYTES.help, ["route"], registry=None),
        *(Gauge(family.full_name, family.help, ["credential"], registry=None) for family in (EXPIRY, LIFE)),
    )
    for each in (duration, bytes_in, expiry, life):
        registry.register(each)
    duration.labels('odd"na\\me\n').observe(3.0)
    bytes_in.labels('odd"na\\me\n').inc(7)
    expiry.labels("ledger").set(math.inf)
    life.labels("ledger").set(1e17)
    ours = samples(parse(scraped(metrics, accept)))
    encode, _ = choose_encoder(accept or "")
    theirs = {
        key: value for key, value in samples(parse(encode(registry).decode())).items() if "_created" not in key[0]
    }
    assert {key: ours.get(key) for key in theirs} == theirs


def test_an_observation_with_a_trace_is_an_exemplar_in_open_metrics_only() -> None:
    metrics = Metrics()
    metrics.route("idfy").request("GET", 200, "", 0.007, 0.003, 0, 0, "4bf92f3577b34da6a3ce929d0e0e4736")
    body = scraped(metrics, OPENMETRICS)
    [found] = [
        sample.exemplar
        for family in parse_openmetrics(body)  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        for sample in family.samples
        if sample.name == "gatepass_request_duration_seconds_bucket" and sample.exemplar
    ]
    assert (found.labels, found.value) == ({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, 0.007)
    assert "trace_id" not in scraped(metrics)


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("gatepass_")]


def test_what_is_no_longer_configured_leaves_no_series() -> None:
    metrics = touch_everything()
    gone, lost = metrics.route("idfy"), metrics.credential("idfy")
    metrics.keep("route", {"uqudo"})
    metrics.keep("credential", ())
    metrics.keep("client", ())
    body = scraped(metrics)
    assert 'route="idfy"' not in body
    assert 'credential="idfy"' not in body
    gone.request("POST", 500, "internal", 0.1, None, 0, 0)  # an exchange that began before the reload
    gone.connect("tls", 0.1)
    lost.fetched("ok", "demand", 0.1)
    assert ours(scraped(metrics)) == ours(body)


def test_what_the_store_granted_to_a_budget_that_is_gone_is_not_shown() -> None:
    metrics = Metrics()
    metrics.client("web", "orders").budget("day", None, 100)
    counter = Calls(("web", "orders", "2026-11-29"))
    escrow = Escrow(counter, Terms(100, "day", 4e9, 0))
    shared = SharedMetrics(metrics)
    shared.show([escrow], 0.0, away=False)
    assert value(metrics, "store_budget_granted", client="web", route="orders", per="day") == 0
    metrics.keep_budgets([Client("web", (), budgets=(ClientBudget("orders", "month", 100),))])
    shared.show([escrow], 0.0, away=False)
    assert value(metrics, "store_budget_granted", client="web", route="orders", per="day") is None
    assert value(metrics, "client_budget_used", client="web", route="orders", per="day") is None


def test_a_route_that_comes_back_counts_anew() -> None:
    metrics = touch_everything()
    metrics.keep("route", ())
    metrics.route("idfy").request("GET", 200, "", 0.1, None, 0, 0)
    assert value(metrics, "requests_total", route="idfy", method="GET", status="200", code="") == 1


def test_the_certificates_end_is_shown_while_there_is_a_certificate() -> None:
    metrics = Metrics()
    assert value(metrics, "tls_certificate_expiry_timestamp_seconds") is None
    metrics.certificate_expires(4e9)
    assert value(metrics, "tls_certificate_expiry_timestamp_seconds") == 4e9
    metrics.certificate_expires(None)
    assert value(metrics, "tls_certificate_expiry_timestamp_seconds") is None


def test_the_secret_in_use_is_shown_from_the_start() -> None:
    metrics = Metrics()
    metrics.credential("idfy")
    shown = {
        which: value(metrics, "token_secret_in_use", credential="idfy", secret=which) for which in ("current", "next")
    }
    assert shown == {"current": 1, "next": 0}


def crowded(routes: int) -> Metrics:
    metrics = Metrics()
    for number in range(routes):
        route, credential = metrics.route(f"route-{number}"), metrics.credential(f"credential-{number}")
        for method in ("GET", "POST", "PUT"):
            for status, code in ((200, ""), (201, ""), (404, ""), (502, "upstream_reset"), (503, "token_unavailable")):
                route.request(method, status, code, 0.01, 0.01, 10, 10)
        route.connect("ok", 0.01)
        credential.fetched("ok", "refresh_ahead", 0.1)
        credential.expires(4000.0, 3600.0)
    return metrics


@pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["text", "openmetrics"])
def test_no_part_grows_with_the_number_of_series(accept: str | None) -> None:
    """Three hundred clients of fifty routes have 75,000 series in one family."""
    metrics = crowded(50)
    for client in range(300):
        for route in range(50):
            metrics.client(f"client-{client}", f"route-{route}")
    parts = [part.decode() for part in metrics.exposition(accept)[0]]
    assert max(part.count("\n") for part in parts) < 1100
    text = "".join(parts)
    shown = "gatepass_client_requests" if accept else "gatepass_client_requests_total"
    assert text.count(f"# HELP {shown} ") == text.count(f"# TYPE {shown} ") == 1
    assert text.count("\ngatepass_client_requests_total{") == 300 * 50 * 5
    assert "\n\n" not in text


def test_series_may_come_and_go_between_two_parts() -> None:
    metrics = Metrics()
    names = [f"client-{number}" for number in range(500)]
    for name in names:
        metrics.client(name, "orders")
    parts = metrics.exposition()[0]
    seen = ""
    while "gatepass_client_requests_total{" not in seen:
        seen += next(parts).decode()
    assert 'client_requests_total{client="client-499"' not in seen
    metrics.keep("client", names[:-1])
    metrics.client("late", "orders")
    rest = seen + b"".join(parts).decode()
    assert 'client="client-499"' not in rest
    assert rest.count("\ngatepass_client_requests_total{") == 499 * 5
    whole = scraped(metrics)
    assert 'client="client-499"' not in whole
    assert whole.count("\ngatepass_client_requests_total{") == 500 * 5


@pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["text", "openmetrics"])
def test_fifty_routes_are_written_within_twenty_milliseconds_and_in_small_pieces(accept: str | None) -> None:
    """Measured 7 ms in all and 1.3 ms for the longest piece: of processor time, since the machine has other work."""
    metrics = crowded(50)
    scraped(metrics, accept)
    wholes, longest = [], []
    for _ in range(8):
        pieces = []
        parts = metrics.exposition(accept)[0]
        started = time.thread_time()
        for _part in parts:
            pieces.append(time.thread_time() - started)
            started = time.thread_time()
        wholes.append(sum(pieces))
        longest.append(max(pieces))
    assert min(wholes) < 0.020
    assert min(longest) < 0.005
