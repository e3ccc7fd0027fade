"""The log for people: short lines, the most important first; a banner at the start; tables of 80 columns."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.commands import status
from gateway.model import Logs
from gateway.observe import Journal, Metrics, close_logging, configure_logging, get_logger
from gateway.observe.log.console import UNCONFIGURED, render
from tests.kit.configuration import canaries

ID = "0f8fad5bd9cb469fa165708677289509"
TIME = "2026-11-28T12:00:00.123456Z"


def request(**over: Any) -> dict[str, Any]:
    usual = {
        "timestamp": TIME, "level": "info", "event": "request", "logger": "gatepass.access", "request_id": ID,
        "trace_id": None, "route": "idfy", "client": "onboarding-web", "method": "POST", "path": "/info/{id}",
        "status": 200, "code": None, "reason": None, "duration_ms": 83.412, "upstream_ms": 81.0, "bytes_in": 10,
        "bytes_out": 2000, "attempts": 1, "fingerprint": "3f1c0a2b", "remote": "10.0.0.7",
    }  # fmt: skip
    return usual | over


def test_an_ordinary_request_is_one_line_of_at_most_120_columns_with_the_important_first() -> None:
    line = render(request(), colours=False)
    assert len(line) <= 120
    clock, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.123", clock)
    assert rest.split() == [
        "INFO",
        "POST",
        "idfy",
        "200",
        "83.4",
        "ms",
        "onboarding-web",
        "path=/info/{id}",
        "id=0f8fad5b…",
    ]


def test_a_failure_says_why_before_anything_else() -> None:
    line = render(
        request(
            level="warning", status=502, code="upstream_reset", reason="api.idfy.com: connection reset", attempts=2
        ),
        colours=False,
    )
    assert "WARNING POST   idfy         502" in line
    assert (
        line.index("connection reset") < line.index("code=upstream_reset") < line.index("attempts=2") < line.index(ID)
    )


def test_what_is_unknown_is_a_dash_and_keeps_its_column() -> None:
    known, unknown = render(request(), colours=False), render(request(route=None, client=None), colours=False)
    assert known.index(" 200 ") == unknown.index(" 200 ")
    assert "None" not in unknown


@pytest.mark.parametrize("colours", [True, False])
def test_only_a_terminal_gets_colours(colours: bool) -> None:
    assert ("\x1b[" in render(request(level="warning"), colours=colours)) == colours


def test_any_other_event_is_its_word_and_its_fields() -> None:
    event = {"timestamp": TIME, "level": "warning", "event": "token_expired", "logger": "gatepass.tokens"}
    line = render(event | {"credential": "idfy", "reason": "two words", "nothing": None}, colours=False)
    assert line.split(" ", 1)[1] == "WARNING token_expired credential=idfy reason='two words'"


def test_a_traceback_stands_below_its_event() -> None:
    text = render({"timestamp": TIME, "level": "error", "event": "x", "exception": "Traceback\n  line"}, colours=False)
    assert text.splitlines()[1:] == ["Traceback", "  line"]


def test_the_whole_way_a_request_to_the_console_is_such_a_line() -> None:
    out = io.StringIO()
    configure_logging(Logs(format="console"), out)
    metrics = Metrics()
    journal = Journal(metrics, later=lambda _seconds, _call: None)
    route, client = metrics.route("idfy"), metrics.client("web", "idfy")
    key = (route, client, "GET", None, 200, 200, "", 1, "3f1c0a2b", "10.0.0.7", "")
    journal.add((key, ID, True, None, 1.0, 1.0125, 0.01, 0, 512))
    journal.flush()
    get_logger("gatepass").info("reloaded", routes=2)
    close_logging()
    first, second = out.getvalue().splitlines()
    assert re.fullmatch(r"[\d:.]{12} INFO    GET    idfy +200 +12.\d ms web +id=0f8fad5b…", first)
    assert second.endswith("INFO    reloaded routes=2")


# ---------------------------------------------------------------------------------------------------------- the start


def started(**over: Any) -> str:
    usual = {
        "timestamp": TIME, "level": "info", "event": "started", "logger": "gatepass", "data": "127.0.0.1:8080",
        "admin": "127.0.0.1:9090", "scheme": "http", "routes": 2, "prefixes": ["/uqudo", "/idfy"],
        "not_configured": ["clients", "admin_keys_sha256"],
    }  # fmt: skip
    return render(usual | over, colours=False)


def test_the_banner_names_both_addresses_the_routes_and_what_is_not_configured() -> None:
    lines = started().splitlines()
    assert "http://127.0.0.1:8080" in lines[1]
    assert [line.strip() for line in lines[2:4]] == ["/uqudo/*", "/idfy/*"]
    assert "http://127.0.0.1:9090/status" in lines[4]
    assert [line.split(maxsplit=2)[2] for line in lines[5:]] == [
        UNCONFIGURED["clients"],
        UNCONFIGURED["admin_keys_sha256"],
    ]
    assert max(map(len, lines)) <= 100


def test_the_banner_of_a_careful_configuration_has_nothing_to_add() -> None:
    assert "not configured" not in started(not_configured=[])
    assert "https://127.0.0.1:8080" in started(scheme="https")
    assert "status page    none" in started(admin=None)


# --------------------------------------------------------------------------------------------------------- 80 columns


def data() -> dict[str, Any]:
    credential = {
        "name": "hypersign-ssi", "state": "valid", "expires_in": 3599.0, "life": 3600.0, "next_attempt_in": 3500.0,
        "fingerprint": "3f1c0a2b", "reason": None, "advice": None,
    }  # fmt: skip
    refused = credential | {"name": "idfy", "state": "refused_by_vendor", "reason": "r " * 60, "advice": "a " * 90}
    route = {
        "name": "hypersign-kyc", "requests": 12345, "curve": [1] * 60, "p50_ms": 123.4, "p99_ms": 12345.6,
        "errors": {"app": 120, "gateway": 0, "token_endpoint": 3, "upstream": 1234, "vendor": 999},
    }  # fmt: skip
    budget = {"route": "hypersign-kyc", "per": "month", "used": 9000, "soft": 8000, "hard": 10000, "level": "warned"}
    client = {
        "name": "onboarding-web", "requests": {"ok": 123456, "vendor_error": 1234, "refused": 12}, "limited": 3,
        "budgets": [budget, budget | {"level": "spent"}],
    }  # fmt: skip
    return {
        "version": "0.9.0", "state": "ready", "uptime": 86400.0, "failing": 1, "window": 900.0,
        "headline": "1 of 2 credentials failing", "config": {"digest": "0123456789abcdef", "problems": []},
        "credentials": [refused, credential], "routes": [route], "clients": [client],
    }  # fmt: skip


def test_the_status_in_a_terminal_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    status.show(data())
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Gatepass 0.9.0: 1 of 2 credentials failing"
    [row] = [line for line in lines if line.startswith("hypersign-kyc ")]
    assert row.split() == ["hypersign-kyc", "12345", "█" * 10, "123", "12346", "120", "0", "3", "1234", "999"]
    assert "refused by the vendor" in text, "on one line"


def test_the_routes_of_the_example_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(main, ["routes", "-c", "config.yaml"], env=canaries(Path("config.yaml").read_text()))
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert result.output.count("https://") == 4
