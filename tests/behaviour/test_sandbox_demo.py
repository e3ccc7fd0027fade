"""The demo is a test of the whole: it must hold every claim, and must be able to say that one did not hold."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import stat
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from gateway.sandbox import Sandbox, run_demo
from gateway.sandbox.demo import play
from gateway.sandbox.demo.process import GatewayDied, GatewayProcess
from gateway.sandbox.demo.report import Report
from gateway.sandbox.run import write_files
from tests.kit.stall import unless_stalled

ROOT = Path(__file__).parents[2]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def there(path: Path) -> bool:
    return path.exists()


@pytest.mark.slow
@unless_stalled(late=0.01, tries=4)  # its figures are of two processes, so less than elsewhere is a stall
async def test_every_claim_of_the_demo_holds() -> None:
    """The gateway as its own process, the shipped configuration, four vendors; about 15 s."""
    screen = io.StringIO()
    status = await run_demo(keep=False, console=Console(file=screen, width=160))
    shown = screen.getvalue()
    assert status == 0, shown
    assert shown.count("✓") >= 10
    assert "✗" not in shown
    assert "Every claim held" in shown


@pytest.mark.parametrize(
    ("held", "verdict"), [([True, True], True), ([True, False], False), ([], False)], ids=["all", "one-not", "none"]
)
def test_the_verdict_is_good_only_when_each_claim_held(held: list[bool], verdict: bool) -> None:
    report = Report(Console(file=io.StringIO()))
    for each in held:
        report.claim("[bold]promise", "figures", held=each)
    assert report.verdict() is verdict


async def test_a_gateway_that_cannot_start_is_shown_with_its_last_words(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("lisen: 127.0.0.1:0\n", encoding="utf-8")
    with pytest.raises(GatewayDied, match=r"exit status 2\n.*config\.yaml:1") as died:
        async with GatewayProcess([config], {}, tmp_path / "log"):
            pytest.fail("a wrong configuration was served")
    assert "lisen" in str(died.value)


async def test_outside_a_checkout_the_demo_writes_its_configuration_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "SHIPPED", tmp_path / "absent.yaml")
    monkeypatch.chdir(ROOT)
    async with Sandbox() as sandbox:
        config = await play.shipped(sandbox, tmp_path)
    assert set(yaml.safe_load(read(config))["routes"]) == set(sandbox.vendors)


async def test_an_error_event_and_a_traceback_are_errors_and_other_lines_are_not(tmp_path: Path) -> None:
    gateway = GatewayProcess([], {}, tmp_path / "log")
    gateway.log.write_text('{"level": "info"}\n{"level": "error", "event": "x"}\nTraceback\n\n', encoding="utf-8")
    assert gateway.errors() == ['{"level": "error", "event": "x"}', "Traceback"]


async def test_the_credentials_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        environ, overlay = write_files(sandbox, tmp_path)
        assert mode(environ) == 0o600
        assert read(environ) == "".join(f"{name}={value}\n" for name, value in sandbox.environ().items())
        assert read(overlay) == sandbox.overlay()


async def test_the_sandbox_runs_until_a_signal_and_prints_no_secret() -> None:
    program = (
        "import asyncio, sys; from rich.console import Console; from gateway.sandbox import run_sandbox; "
        "sys.exit(asyncio.run(run_sandbox(host='127.0.0.1', ports=0, console=Console(width=200))))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    shown = ""
    try:
        while "gatepass serve" not in shown:
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, shown
            shown += line.decode()
        [written] = set(re.findall(r"/\S+sandbox\.env", shown))
        path = Path(written)
        secrets = [line.partition("=")[2] for line in read(path).splitlines()]
        assert len(secrets) == 9
        assert not [secret for secret in secrets if secret in shown]
        os.kill(process.pid, signal.SIGTERM)
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, rest) == (0, b"")
    assert not there(path)


def count(folder: Path) -> int:
    return len(list(folder.iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_demo_with_its_gateway_and_its_folder(number: signal.Signals, tmp_path: Path) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "demo", env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert demo.stdout is not None
    while b"tokens in memory" not in await demo.stdout.readline():
        pass
    assert count(tmp_path) == 1
    demo.send_signal(number)
    await asyncio.wait_for(demo.communicate(), 20)
    assert demo.returncode == 1
    assert count(tmp_path) == 0
