"""One chain for every logger; no canary gets past it, and no stream ever makes a request wait."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gateway.model import Logs, Secret
from gateway.observe import (
    Journal,
    Metrics,
    adjust_logging,
    close_logging,
    configure_logging,
    current_logging,
    get_logger,
    register_all,
)
from gateway.observe.journal import BATCH, INTERVAL
from gateway.observe.log.writer import Writer, dropped_events
from tests.kit.metrics import sample, scraped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "CANARY/live token+71d0"
register_all(Secret(CANARY))
HALF = "71d0"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="debug"), stream)
    yield stream
    close_logging()


def journal() -> Journal:
    """A journal that writes up when it is told to, or full."""
    return Journal(Metrics(), later=lambda _seconds, _call: None)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    journal().close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def entry(metrics: Metrics, **over: Any) -> tuple[Any, ...]:
    fields: dict[str, Any] = {
        "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "given": True,
        "method": "GET",
        "path": None,
        "vendor_status": 200,
        "status": 200,
        "code": "",
        "reason": "",
        "seconds": 0.0123,
        "upstream_seconds": 0.011,
        "traced": None,
        "fingerprint": "3f1c0a2b",
    }
    its = SimpleNamespace(**(fields | over))
    route, client = metrics.route("idfy"), metrics.client("onboarding-web", "idfy")
    key = (
        route,
        client,
        its.method,
        its.path,
        its.vendor_status,
        its.status,
        its.code,
        1,
        its.fingerprint,
        "10.0.0.7",
        its.reason,
    )
    now = time.monotonic()
    return (
        key, its.request_id, its.given, its.traced, now - its.seconds, now, its.upstream_seconds, 0, 512,
    )  # fmt: skip


def request(its: Journal | None = None, **over: Any) -> None:
    """Let a request end, and have it written up at once."""
    its = its or journal()
    its.add(entry(its._metrics, **over))
    its.flush()


# ------------------------------------------------------------------------------------------------------ the shape


def test_an_event_is_one_json_line_with_time_level_event_and_logger_first(out: io.StringIO) -> None:
    get_logger("gatepass.tokens").info("token_fetched", credential="idfy", life=3600.0)
    [event] = lines(out)
    assert list(event)[:4] == ["timestamp", "level", "event", "logger"]
    assert event["logger"] == "gatepass.tokens"
    assert event["credential"] == "idfy"
    assert event["timestamp"].endswith("Z")
    assert abs(datetime.fromisoformat(event["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_logger_made_before_the_configuration_follows_it() -> None:
    early = get_logger("gatepass.early")
    first, second = io.StringIO(), io.StringIO()
    configure_logging(Logs(format="json", level="warning"), first)
    early.info("unheard")
    configure_logging(Logs(format="json", level="info"), second)
    early.info("heard")
    close_logging()
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["event"] == "heard"


def test_until_logging_is_configured_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    close_logging()
    get_logger("gatepass.tokens").error("token_refused")
    request()
    assert capfd.readouterr() == ("", "")


def test_the_standard_librarys_loggers_come_out_the_same_way(out: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").warning("odd %s", "thing", stack_info=True)
    [event] = lines(out)
    assert (event["event"], event["level"], event["logger"]) == ("odd thing", "warning", "aiohttp.server")
    assert "test_logging.py" in event["stack"]


def test_on_a_terminal_lines_are_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure_logging(Logs(format="auto"), stream)
    get_logger("gatepass.tokens").warning("token_refused", token=CANARY)
    request(status=503, code="token_unavailable")
    close_logging()
    refused, served = stream.getvalue().splitlines()
    assert "token_refused" in refused
    assert "token_unavailable" in served
    assert "503" in served
    assert HALF not in stream.getvalue()


# ------------------------------------------------------------------------------------------------------ the canary


class Leaky:
    def __repr__(self) -> str:
        return f"Leaky({CANARY})"


def boom() -> None:
    local_token = CANARY
    raise ExceptionGroup("several", [ValueError(local_token), KeyError(f"Bearer {CANARY}")])


def log_exception(log: Callable[..., object]) -> None:
    try:
        boom()
    except ExceptionGroup:
        log("failed %s", CANARY)


def cause(log: Callable[..., object]) -> None:
    try:
        try:
            boom()
        except ExceptionGroup as error:
            raise RuntimeError(CANARY) from error
    except RuntimeError as error:
        log("failed", exc_info=error)


structured = get_logger("gatepass.any")
stdlib = logging.getLogger("somebody.else")
raw = structlog.get_logger()

WAYS: dict[str, Callable[[], object]] = {
    "as event": lambda: structured.info(CANARY),
    "as positional argument": lambda: structured.info("got %s", CANARY),
    "as value": lambda: structured.info("x", a=CANARY),
    "as key": lambda: structured.info("x", **{CANARY: 1}),
    "as bytes": lambda: structured.info("x", a=CANARY.encode()),
    "nested": lambda: structured.info("x", a={"b": [(CANARY,), {CANARY}]}),
    "as repr": lambda: structured.info("x", a=Leaky()),
    "as bound value": lambda: structured.bind(a=CANARY).info("x"),
    "as exception": lambda: log_exception(structured.exception),
    "as chained exception": lambda: cause(structured.error),
    "as value that is an exception": lambda: structured.info("x", error=ValueError(CANARY)),
    "with a stack": lambda: structured.info("x", a=CANARY, stack_info=True),
    "by critical": lambda: structured.critical("x", a=CANARY),
    "by plain structlog": lambda: raw.warning("x", a=CANARY),
    "by stdlib": lambda: stdlib.info(CANARY),
    "by stdlib, as argument": lambda: stdlib.info("got %r", {"a": CANARY}),
    "by stdlib, as exception": lambda: log_exception(stdlib.exception),
    "by stdlib, as chained exception": lambda: cause(stdlib.error),
    "by stdlib, with arguments that do not fit": lambda: stdlib.info("%s %s", CANARY),
    "by stdlib, with an argument whose repr raises": lambda: stdlib.info("%d", Leaky()),
    "by the name of a logger": lambda: logging.getLogger(f"x.{CANARY}").info("x"),
    "as request id": lambda: request(request_id=CANARY),
    "inside a request id": lambda: request(request_id=f"{CANARY}-{'x' * 60}"),
    "as method": lambda: request(method=CANARY),
    "as the reason of a failure": lambda: request(status=502, code="upstream_tls", reason=f"x {CANARY}"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_canary_does_not_get_out(
    way: Callable[[], object],
    out: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = logging.getLogger()  # without pytest's own handlers, which raise for a record that does not fit
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if type(one).__module__.startswith("gateway")])
    way()
    assert len(lines(out)) == 1, "the event itself has to come out"
    printed = out.getvalue() + "".join(capfd.readouterr())
    assert HALF not in printed
    assert CANARY not in printed


def test_a_canary_in_context_variables_does_not_get_out(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(who=CANARY):
        structured.info("x")
    assert lines(out)[0]["who"] == "<redacted>"


async def test_a_canary_in_a_task_that_nobody_awaited_does_not_get_out(out: io.StringIO) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": ValueError(CANARY)})
    [event] = lines(out)
    assert event["logger"] == "asyncio"
    assert HALF not in out.getvalue()


def test_what_json_has_no_word_for_is_still_an_event(out: io.StringIO) -> None:
    structured.info("x", a=float("nan"), b=1 << 80, c="\ud800", d={1: 2}, e=object, f={"s"})
    [event] = lines(out)
    assert event["a"] is None
    assert event["b"] == str(1 << 80)
    assert event["d"] == {"1": 2}


# ------------------------------------------------------------------------------------------------- the access event


def test_a_request_is_one_event_with_stable_fields(out: io.StringIO) -> None:
    request(code="")
    [event] = lines(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "request",
        "logger": "gatepass.access",
        "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "route": "idfy",
        "client": "onboarding-web",
        "trace_id": None,
        "method": "GET",
        "path": None,
        "status": 200,
        "code": None,
        "reason": None,
        "duration_ms": pytest.approx(12.3, abs=0.002),  # an instant minus another, cut to microseconds
        "upstream_ms": 11.0,
        "bytes_in": 0,
        "bytes_out": 512,
        "attempts": 1,
        "fingerprint": "3f1c0a2b",
        "remote": "10.0.0.7",
    }


def test_access_events_are_of_level_info() -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="warning"), stream)
    request()
    close_logging()
    assert stream.getvalue() == ""


def test_access_events_can_be_switched_off_alone() -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", access=False), stream)
    request()
    structured.info("kept")
    close_logging()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["kept"]


def said(stream: io.StringIO, **logs: Any) -> list[tuple[int, str]]:
    """Log one request of each kind, and return status and level of those that came out."""
    configure_logging(Logs(format="json", **logs), stream)
    for status, code in ((200, ""), (404, ""), (503, ""), (401, "client_unknown"), (499, "client_gone")):
        request(status=status, code=code)
    request(status=503, code="token_unavailable", reason="connection refused")
    close_logging()
    return [(event["status"], event["level"]) for event in map(json.loads, stream.getvalue().splitlines())]


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ({}, [(200, "info"), (404, "info"), (503, "warning"), (401, "warning"), (499, "info"), (503, "warning")]),
        ({"sample": 0.0}, [(404, "info"), (503, "warning"), (401, "warning"), (499, "info"), (503, "warning")]),
        ({"access": False}, [(503, "warning"), (401, "warning"), (503, "warning")]),
        ({"level": "warning"}, [(503, "warning"), (401, "warning"), (503, "warning")]),
        ({"level": "error"}, []),
        ({"loggers": (("gatepass.access", "error"),)}, []),
        (
            {"level": "error", "loggers": (("gatepass", "warning"),)},
            [(503, "warning"), (401, "warning"), (503, "warning")],
        ),
    ],
    ids=["all", "sampled", "access off", "warning", "error", "own level", "level from above"],
)
def test_what_failed_or_was_refused_to_a_client_is_a_warning_that_sampling_does_not_lose(
    logs: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    assert said(io.StringIO(), **logs) == expected


@pytest.mark.parametrize("code", ["method_not_allowed", "path_refused", "client_forbidden", "rate_limited"])
def test_a_call_that_was_rejected_is_written_even_without_an_access_log(code: str) -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", access=False), stream)
    request(status=400, code=code)
    close_logging()
    assert json.loads(stream.getvalue())["level"] == "warning"


@pytest.mark.slow
def test_about_the_share_of_the_good_requests_that_is_asked_for_comes_out() -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", sample=0.1), stream)
    for _ in range(4000):
        request()
    close_logging()
    assert 250 < len(stream.getvalue().splitlines()) < 600


def test_a_failing_request_costs_a_line_as_cheap_as_a_good_one(out: io.StringIO) -> None:
    """The reason goes through redaction, and nothing else is added: a flood of failures is not what brings us down."""
    log, each = journal(), []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(400):
            request(log, status=503, code="token_unavailable", reason="the token endpoint refused the connection")
        each.append((time.thread_time() - started) / 400)
    assert len(lines(out)) == 2000
    assert min(each) < 60e-6, "5–10 µs measured; a structlog event takes 60 and more"


@pytest.mark.parametrize("kind", ["structlog", "stdlib"])
def test_one_logger_can_say_more_than_the_others(kind: str) -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="warning", loggers=(("gatepass.tokens", "debug"),)), stream)
    for name in ("gatepass.tokens", "gatepass.tokens.deep", "gatepass.tokenset", "gatepass"):
        (get_logger(name) if kind == "structlog" else logging.getLogger(name)).debug(name)
    close_logging()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "gatepass.tokens",
        "gatepass.tokens.deep",
    ]


def test_levels_and_sampling_change_at_run_time_without_losing_a_line() -> None:
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="warning", loggers=(("gatepass.a", "debug"),)), stream)
    get_logger("gatepass.b").info("unheard")
    logging.getLogger("gatepass.a").debug("heard first")
    adjust_logging(Logs(level="info", sample=0.0))
    get_logger("gatepass.b").info("heard")
    logging.getLogger("gatepass.a").debug("unheard")
    request()
    assert current_logging() == Logs(level="info", sample=0.0)
    close_logging()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["heard first", "heard"]


def test_a_batch_is_written_up_when_it_is_full_and_else_within_a_moment_of_its_first_entry(out: io.StringIO) -> None:
    metrics, later = Metrics(), []
    it = Journal(metrics, later=lambda seconds, call: later.append((seconds, call)))
    for _ in range(BATCH - 1):
        it.add(entry(metrics))
    assert lines(out) == []
    it.add(entry(metrics))
    assert len(lines(out)) == BATCH, "a full batch waits for nobody"
    it.add(entry(metrics))
    assert len(lines(out)) == BATCH
    assert [seconds for seconds, _ in later] == [INTERVAL], "one look for all of them"
    later[-1][1]()
    assert len(lines(out)) == BATCH + 1
    it.add(entry(metrics))
    assert [seconds for seconds, _ in later] == [INTERVAL] * 2


def test_whoever_looks_at_the_metrics_sees_every_request_that_has_ended() -> None:
    metrics = Metrics()
    it = Journal(metrics, later=lambda _seconds, _call: None)
    labels = {"route": "idfy", "method": "GET", "status": "200", "code": ""}
    looks: tuple[Callable[[], float | None], ...] = (
        lambda: sample(metrics, "gatepass_requests_total", labels),
        lambda: metrics.requests.by("route")["idfy"][0][1].value,
        lambda: float(re.findall(r"gatepass_client_requests_total{.*ok.*} (.*)", scraped(metrics))[0]),
    )
    for seen in (1, 2, 3):
        it.add(entry(metrics))
        assert looks[seen - 1]() == seen


def test_closing_or_adjusting_the_log_loses_no_request_that_has_ended() -> None:
    stream, metrics = io.StringIO(), Metrics()
    it = Journal(metrics, later=lambda _seconds, _call: None)
    configure_logging(Logs(format="json"), stream)
    it.add(entry(metrics))
    adjust_logging(Logs(sample=0.0))
    it.add(entry(metrics, status=503, code="token_unavailable"))
    close_logging()
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == [200, 503]


def test_an_entry_that_cannot_be_written_up_costs_no_other_its_line(out: io.StringIO) -> None:
    """It is told of, without what was in it."""
    metrics = Metrics()
    it = Journal(metrics, later=lambda _seconds, _call: None)
    for seconds in (0.1, float("nan"), 0.1):
        it.add(entry(metrics, upstream_seconds=seconds, request_id=CANARY))
    it.flush()
    events = lines(out)
    assert [event["event"] for event in events] == ["request_not_logged", "request", "request"]
    assert HALF not in json.dumps(events)


def test_an_entry_is_dated_by_when_it_ended_and_not_by_when_it_is_written_up(out: io.StringIO) -> None:
    metrics = Metrics()
    it = Journal(metrics, later=lambda _seconds, _call: None)
    ended = datetime.now(UTC)
    it.add(entry(metrics))
    time.sleep(0.05)
    it.flush()
    [event] = lines(out)
    assert abs(datetime.fromisoformat(event["timestamp"]) - ended) < timedelta(seconds=0.04)


# ------------------------------------------------------------------------------------------------------ the way out


def test_events_come_out_by_themselves_within_a_moment() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as stream:
        writer = Writer(stream)
        writer.write(b"one\n")
        writer.write(b"two\n")
        assert reader.readline() + reader.readline() == b"one\ntwo\n"
        writer.close()


def test_a_stream_that_nobody_reads_costs_lines_and_no_time() -> None:
    """Every line is either in the pipe or counted as lost."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as stream:
        before = dropped_events()
        writer = Writer(stream, limit=200_000)
        took = []
        for _ in range(1000):
            started = time.perf_counter()
            writer.write(b"x" * 999 + b"\n")
            took.append(time.perf_counter() - started)
        assert median(took) < 0.0005
        assert dropped_events() - before >= 700
        writer.close(timeout=0.2)
        in_the_pipe = os.read(reader.fileno(), 2**16)
        assert in_the_pipe.count(b"\n") == 1000 - (dropped_events() - before)


def test_lines_longer_than_a_page_and_those_around_them_come_out_in_order() -> None:
    stream = io.StringIO()
    writer = Writer(stream, interval=0.001)
    sizes = [10, 70_000, 20, 64 * 1024, 5, 200_000, 30_000, 40_000, 1]
    for _ in range(3):
        for number, size in enumerate(sizes):
            writer.write(str(number).encode() * size + b"\n")
        writer.flush()
    writer.close()
    assert stream.getvalue() == "".join(f"{str(number) * size}\n" for number, size in enumerate(sizes)) * 3


def test_a_stream_that_was_closed_costs_lines_and_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stream:
        before = dropped_events()
        writer = Writer(stream)
        writer.write(b"lost\n")
        assert writer.flush()
        writer.write(b"lost too\n")
        writer.close()
        assert dropped_events() - before == 2


def test_a_stream_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as stream:
        writer = Writer(stream)
        for number in range(3000):
            writer.write(b"%0100d\n" % number)
        assert [int(reader.readline()) for _ in range(3000)] == list(range(3000))
        writer.close()


@pytest.mark.parametrize("room", [0, 5, 30, 31, 32, 95, 700, 5000])
def test_a_disk_that_is_full_for_a_while_leaves_only_whole_lines(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that was cut is completed when there is room again; lines that did not fit are lost and counted."""
    path, real = tmp_path / "log", os.write
    left = [room]

    def write(number: int, data: Any) -> int:
        if left[0] < len(data):
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            data, left[0] = data[: left[0]], 0
            return real(number, data)
        left[0] -= len(data)
        return real(number, data)

    monkeypatch.setattr("gateway.observe.log.writer.os.write", write)
    lost = dropped_events()
    with path.open("w") as stream:
        writer = Writer(stream, interval=0.001)
        for number in range(60):
            writer.write(b'{"number": %20d}\n' % number)
            if number % 7 == 0:
                writer.flush()
        writer.flush()
        left[0] = 10**6
        writer.write(b'{"number": 1000}\n')
        writer.close()
    numbers = [json.loads(line)["number"] for line in path.read_text().splitlines()]
    assert numbers[-1] == 1000
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert len(numbers) - 1 + dropped_events() - lost == 60


def test_drops_are_in_the_metrics() -> None:
    metrics = Metrics()
    scraped(metrics)
    before = sample(metrics, "gatepass_log_events_dropped_total") or 0.0
    writer = Writer(io.StringIO())
    writer.close()
    writer.write(b"after the end\n")
    scraped(metrics)
    assert sample(metrics, "gatepass_log_events_dropped_total") == before + 1


def run(script: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **options)


def test_what_is_buffered_at_exit_is_written() -> None:
    done = run("""
        from gateway.model import Logs
        from gateway.observe import configure_logging, get_logger
        configure_logging(Logs())
        for number in range(1000):
            get_logger("x").info("event", number=number)
    """)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == list(range(1000))


def test_a_blocked_stdout_does_not_keep_the_process_from_ending() -> None:
    read, write = os.pipe()
    script = """
        from gateway.model import Logs
        from gateway.observe import configure_logging, get_logger
        configure_logging(Logs())
        for number in range(1000):
            get_logger("x").info("event", number=number, filling="x" * 200)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with os.fdopen(read, "rb"), os.fdopen(write, "wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
