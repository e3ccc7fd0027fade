"""`gatepass sandbox`: the emulated vendors alone, until a signal.

Prints where everything is and the command that points a gateway at it. Credentials go into a file that only its owner
can read, never onto the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from gateway.sandbox.vendors import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


async def run_sandbox(*, host: str = "127.0.0.1", ports: int = 0, console: Console) -> int:
    """Run until SIGINT or SIGTERM; return the exit status.

    Args:
        host: where to listen.
        ports: the first of ten ports in a row; 0 takes free ones.
        console: where to print.

    Raises:
        OSError: a port is taken.
    """
    with until_signal() as stop, tempfile.TemporaryDirectory(prefix="gatepass-sandbox-") as folder:
        async with Sandbox(host, ports) as sandbox:
            environ, overlay = write_files(sandbox, Path(folder))
            console.print(addresses(sandbox))
            console.print(f"control       {sandbox.control_url}", highlight=False)
            console.print(f"credentials   {environ} (made up, mode 0600, gone when this ends)", highlight=False)
            console.print("\nA gateway for it, in another terminal:", highlight=False)
            serve = f"gatepass serve -c config.yaml -c {shlex.quote(str(overlay))}"
            console.print(f"( set -a; . {shlex.quote(str(environ))}; {serve} )", highlight=False, soft_wrap=True)
            await stop.wait()
    return 0


def write_files(sandbox: Sandbox, folder: Path) -> tuple[Path, Path]:
    """Write the variables (mode 0600, shell syntax) and the overlay; return their paths."""
    environ, overlay = folder / "sandbox.env", folder / "sandbox.yaml"
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sandbox.environ().items()]
    with os.fdopen(os.open(environ, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(lines)
    overlay.write_text(sandbox.overlay(), encoding="utf-8")
    return environ, overlay


def addresses(sandbox: Sandbox) -> Table:
    """Return a table of where each vendor listens."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("vendor", "API", "token endpoint", "control"):
        table.add_column(column, overflow="fold")
    for name, vendor in sandbox.vendors.items():
        table.add_row(name, vendor.base_url, vendor.token_url, vendor.control_url)
    table.add_row("hypersign KYC", sandbox.hypersign.kyc_url, "", "")
    return table


@contextlib.contextmanager
def until_signal() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT or SIGTERM sets; inside the block neither ends the process."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
