"""`gatepass demo`: runs emulated vendors, a real gateway process in front of them, and an app that uses it.

The gateway uses the configuration that the project ships; a second file, written here, only replaces addresses. Nothing
leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from gateway.sandbox.demo.app import App
from gateway.sandbox.demo.exchanges import exchanges
from gateway.sandbox.demo.expiry import expiry, revocation
from gateway.sandbox.demo.outage import outage_of_uqudo
from gateway.sandbox.demo.process import GatewayDied, GatewayProcess
from gateway.sandbox.demo.report import Report
from gateway.sandbox.demo.sdk import sdk
from gateway.sandbox.demo.stage import HYPERSIGN_SHORT, SHORT, Stage
from gateway.sandbox.run import until_signal
from gateway.sandbox.vendors import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

SHIPPED = Path(__file__).parents[3] / "config.yaml"
_ERRORS_SHOWN = 10


async def run_demo(*, keep: bool, console: Console) -> int:
    """Play the demo; return 0 only if every claim is true.

    Args:
        keep: leave everything running afterwards, until a signal, and print commands to try.
        console: where to print.
    """
    report, began = Report(console), time.monotonic()
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="gatepass-demo-") as folder:
        async with Sandbox() as sandbox:
            await _short_lives(sandbox)
            try:
                gateway = await _gateway(sandbox, Path(folder))
                report.say(f"$ {shlex.join(gateway.command)}")
                async with gateway, App(gateway.listen) as app:
                    await _play(Stage(sandbox, gateway, app, report))
                    held = _end(report, gateway, time.monotonic() - began)
                    if keep:
                        await _keep(sandbox, gateway, report)
                    return 0 if held else 1
            except GatewayDied as died:
                report.say(f"the gateway ended: {died}")
                return 1


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM cancel this task as SIGINT does, so that neither the gateway nor the folder stays behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _short_lives(sandbox: Sandbox) -> None:
    for name, vendor in sandbox.vendors.items():
        await vendor.set(life=HYPERSIGN_SHORT if name == "hypersign" else SHORT)


async def _gateway(sandbox: Sandbox, folder: Path) -> GatewayProcess:
    overlay = folder / "sandbox.yaml"
    gateway = GatewayProcess([await shipped(sandbox, folder), overlay], sandbox.environ(), folder / "gateway.log")
    overlay.write_text(sandbox.overlay(listen=gateway.listen, admin=gateway.admin), encoding="utf-8")
    return gateway


async def shipped(sandbox: Sandbox, folder: Path) -> Path:
    """Return the checkout's config.yaml; outside a checkout, what `gatepass init` writes for the same vendors."""
    if SHIPPED.exists():
        return SHIPPED
    config = folder / "config.yaml"
    arguments = ["-m", "gateway", "init", *sandbox.vendors, "--output", str(config)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    _, problems = await process.communicate()
    if process.returncode:
        raise GatewayDied(problems.decode(errors="replace"))
    return config


async def _play(stage: Stage) -> None:
    stage.report.say(f"ready after {stage.gateway.ready_after:.2f} s, four tokens in memory")
    for act in (exchanges, expiry, revocation, outage_of_uqudo, sdk):
        try:
            await act(stage)
        except aiohttp.ClientError as error:
            stage.report.claim(f"The act on {act.__name__} plays to its end", repr(error), held=False)
        stage.gateway.check()


def _end(report: Report, gateway: GatewayProcess, seconds: float) -> bool:
    errors = gateway.errors()
    report.claim("The gateway ran without an error", f"{len(errors)} error events in its log", held=not errors)
    held = report.verdict()
    for line in errors[:_ERRORS_SHOWN]:
        report.say(f"   {line}")
    report.say(f"\n{'Every claim held' if held else 'Not every claim held'}; {seconds:.0f} s.")
    return held


async def _keep(sandbox: Sandbox, gateway: GatewayProcess, report: Report) -> None:
    with until_signal() as stop:
        for name, vendor in sandbox.vendors.items():
            await vendor.set(life=None, latency=0.0)
            report.say(f"\n# {name}\ncurl -s http://{gateway.listen}/{name}/sandbox/echo")
            report.say(f"curl -s -X POST {vendor.control_url}/revoke")
            report.say(f"""curl -s -X PATCH {vendor.control_url} -d '{{"life": 5, "token_fault": "refuse"}}'""")
        report.say(f"\n# the gateway\ncurl -s http://{gateway.admin}/readyz\ncurl -s http://{gateway.admin}/metrics")
        report.say(f"# every switch\ncurl -s {sandbox.control_url}/\n\nLog: {gateway.log}\nCtrl-C ends it.")
        await stop.wait()
