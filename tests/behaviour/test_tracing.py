"""Traces over a real OTLP receiver, and `traceparent` on the wire: taken, made, passed on."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import load
from gateway.errors import ConfigError
from gateway.observe import read_traceparent
from gateway.observe.trace.spans import Span, Tracer, dropped_spans
from tests.kit.emulation import ask, emulated
from tests.kit.gateway import CANARY, Running, one_route, running
from tests.kit.metrics import scraped
from tests.kit.ports import free_port
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNRECORDED = GIVEN[:-2] + "00"


# ------------------------------------------------------------------------------------------------------ traceparent


@pytest.mark.parametrize(
    ("value", "understood"),
    [
        (GIVEN, True),
        (UNRECORDED, True),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-may-come", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01", False),
        ("", False),
    ],
    ids=["recorded", "not", "later version", "00 with more", "ff", "no trace", "no span", "capitals", "empty"],
)
def test_a_traceparent_is_read_as_the_specification_says(value: str, understood: bool) -> None:
    parent = read_traceparent(value)
    assert (parent is not None) == understood
    if parent is not None:
        assert (parent.trace_id, parent.span_id) == (value[3:35], value[36:52])
        assert parent.sampled == (value[53:55] == "01")


async def seen_by_vendor(it: Running, seen: list[Message], *fields: str) -> list[str]:
    app = await connect(it.address)
    await app.send(get("/v/a", *fields))
    await app.message()
    app.reset()
    return [value.decode() for value in seen[-1].all("traceparent")]


def log_lines(it: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in it.log.splitlines() if '"event":"request"' in line]


async def test_without_tracing_the_apps_traceparent_passes_unchanged_and_its_trace_is_logged() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        assert await seen_by_vendor(it, seen, f"Traceparent: {GIVEN}", "Tracestate: a=b") == [GIVEN]
        assert await seen_by_vendor(it, seen) == []
        body = scraped(it.gateway.metrics, "application/openmetrics-text; version=1.0.0")
        assert [line["trace_id"] for line in log_lines(it)] == [GIVEN[3:35], None]
    assert f'trace_id="{GIVEN[3:35]}"' in body, "the app records it, so it is an exemplar"


@asynccontextmanager
async def traced(port: int, sample: float = 1.0) -> AsyncIterator[tuple[Running, list[Span]]]:
    """A gateway whose spans go into a list."""
    spans: list[Span] = []
    async with running(one_route(port)) as it:
        assert it.gateway._handler is not None
        it.gateway._handler.tracer = Tracer(sample, spans.append)
        yield it, spans


async def test_a_given_trace_goes_on_through_us_to_the_vendor() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, traced(upstream.port, 0.0) as (it, spans):
        [sent] = await seen_by_vendor(it, seen, f"traceparent: {GIVEN}", "tracestate: a=b")
        await until(lambda: len(spans) == 3)
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"GET /v", "connect", "vendor"}
    assert {span.trace_id for span in spans} == {GIVEN[3:35]}
    assert by_name["GET /v"].parent_id == GIVEN[36:52]
    assert by_name["vendor"].parent_id == by_name["connect"].parent_id == by_name["GET /v"].span_id
    assert sent == f"00-{GIVEN[3:35]}-{by_name['vendor'].span_id}-01"
    assert seen[-1].one("tracestate") == b"a=b"


@pytest.mark.parametrize(("sample", "flag"), [(1.0, "01"), (0.0, "00")], ids=["recorded", "not recorded"])
async def test_a_request_without_a_trace_gets_one(sample: float, flag: str) -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, traced(upstream.port, sample) as (it, spans):
        [sent] = await seen_by_vendor(it, seen)
        assert log_lines(it)[0]["trace_id"] == sent[3:35]
    assert sent[-2:] == flag
    assert bool(spans) == (flag == "01")


async def test_what_the_app_does_not_record_we_do_not_either_and_its_field_goes_on() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, traced(upstream.port) as (it, spans):
        assert await seen_by_vendor(it, seen, f"traceparent: {UNRECORDED}") == [UNRECORDED]
    assert spans == []


async def test_two_traceparents_are_none() -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, traced(upstream.port) as (it, _):
        [sent] = await seen_by_vendor(it, seen, f"traceparent: {GIVEN}", f"traceparent: {UNRECORDED}")
    assert sent[3:35] != GIVEN[3:35]


async def test_a_vendor_that_breaks_off_and_one_that_is_not_there_are_errors_of_their_spans() -> None:
    async def break_off(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with vendor(break_off) as upstream, traced(upstream.port) as (it, spans):
        app = await connect(it.address)
        await app.send(get("/v/a"))
        assert (await app.message()).status == 502
    errors = {span.name: span.error for span in spans}
    assert errors == {"connect": "", "vendor": "upstream_reset", "GET /v": "upstream_reset"}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with traced(nobody.getsockname()[1]) as (it, spans):
            app = await connect(it.address)
            await app.send(get("/v/a"))
            await app.message()
    assert {span.name: span.error for span in spans} == {
        "connect": "upstream_unreachable",
        "GET /v": "upstream_unreachable",
    }


async def test_a_span_says_nothing_of_paths_queries_or_headers() -> None:
    async with vendor(answering(ok())) as upstream, traced(upstream.port) as (it, spans):
        app = await connect(it.address)
        await app.send(get("/v/people/did:hid:7?key=hidden", "X-Mine: hidden", f"X-Request-Id: {CANARY}"))
        await app.message()
    said = repr(spans)
    assert not any(word in said for word in ("hidden", "people", "did:hid", "CANARY"))


# --------------------------------------------------------------------------------------------------- a real receiver


async def test_spans_arrive_at_a_real_otlp_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.observe.trace.otlp.CLOSE_TIMEOUT", 60.0)
    monkeypatch.setattr("gateway.observe.trace.otlp.TIMEOUT", 60.0)
    oteltap = pytest.importorskip("oteltap")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    port, seen = free_port(), list[Message]()
    settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port)
    async with vendor(answering(ok(), seen=seen)) as upstream, oteltap.OtelTapHttpProtobufReceiver(settings) as tap:
        waiting = asyncio.create_task(tap.await_trace(lambda span: span.name == "GET /v"))
        config = one_route(upstream.port) | {"tracing": {"otlp": f"http://127.0.0.1:{port}", "service": "edge"}}
        async with running(config) as it:
            await seen_by_vendor(it, seen, f"traceparent: {GIVEN}")
        async with asyncio.timeout(60):
            arrived = await waiting
    span = getattr(arrived, "span", arrived)
    said = {each.key: each.value for each in span.attributes}
    assert span.trace_id.hex() == GIVEN[3:35]
    assert span.parent_span_id.hex() == GIVEN[36:52]
    assert said["http.request.method"].string_value == "GET"
    assert said["http.response.status_code"].int_value == 200
    assert said["gatepass.route"].string_value == "v"
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9


async def test_a_collector_that_is_not_there_costs_spans_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    monkeypatch.setattr("gateway.observe.trace.otlp.CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr("gateway.observe.trace.otlp.TIMEOUT", 0.3)
    before = dropped_spans()
    async with vendor(answering(ok())) as upstream:
        config = one_route(upstream.port) | {"tracing": {"otlp": f"http://127.0.0.1:{free_port()}"}}
        async with running(config) as it:
            app = await connect(it.address)
            for _ in range(3):
                await app.send(get("/v/a"))
                assert (await app.message()).status == 200
            app.reset()
    async with asyncio.timeout(60):
        while dropped_spans() - before < 7:  # noqa: ASYNC110 - the exporter's thread has no event to wait for
            await asyncio.sleep(0.05)
    assert dropped_spans() - before == 7, "three requests, three times the vendor, one connect"


async def test_a_wait_for_a_token_is_a_span() -> None:
    spans: list[Span] = []
    async with emulated(uqudo={"keep_warm": "never"}) as (it, _):
        assert it.gateway._handler is not None
        it.gateway._handler.tracer = Tracer(1.0, spans.append)
        assert (await ask(it, "uqudo"))[0] == 200
    assert [span.name for span in spans] == ["token", "connect", "vendor", "GET /uqudo"]
    assert spans[0].ended - spans[0].started > 0


def test_tracing_without_the_extra_is_a_mistake_in_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda _: None)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(one_route(1) | {"tracing": {"otlp": "http://127.0.0.1:4318"}}))
    with pytest.raises(ConfigError, match=r"tracing: needs packages .*WHEEL\[tracing\]"):
        load([path], environ={"CANARY": CANARY})
