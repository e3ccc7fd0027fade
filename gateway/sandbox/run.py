"""`gatepass sandbox`: runs only the emulated vendors, until a signal.

Prints all addresses, and the command that starts a gateway for them. Credentials are written to a file that only its
owner can read, and never to the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from gateway.errors import GatepassError, os_reason
from gateway.files import write_new
from gateway.sandbox.vendors import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console


OVERLAY_MARK = "# An overlay made by `gatepass sandbox`, which replaces this file each time it starts.\n"
"""The first line of each overlay."""
PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class For:
    """The configuration whose vendors the sandbox emulates."""

    paths: tuple[Path, ...]
    profiles: Mapping[str, str | None]
    """The profile of each credential."""
    routes: Mapping[str, tuple[tuple[str, ...], str | None]]
    """The credentials of each route, and its upstream in the configuration."""


async def run_sandbox(
    *, host: str = "127.0.0.1", ports: int = 0, console: Console, behind: For | None = None, output: Path | None = None
) -> int:
    """Run until SIGINT or SIGTERM; return the exit status.

    Args:
        host: the address to listen on.
        ports: the first of ten consecutive ports; 0 chooses free ones.
        console: where to print.
        behind: the configuration that needs an overlay; None for the shipped one, whose secrets are variables.
        output: the path of the overlay; by default in a temporary folder.

    Raises:
        GatepassError: a port cannot be opened, or `output` is another file.
        OSError: the overlay cannot be written.
    """
    if output is not None:
        _refuse_foreign(output)
    with until_signal() as stop, tempfile.TemporaryDirectory(prefix="gatepass-sandbox-") as folder:
        async with contextlib.AsyncExitStack() as running:
            try:
                sandbox = await running.enter_async_context(Sandbox(host, ports))
            except OSError as error:
                raise GatepassError(f"cannot listen on {host}: {os_reason(error)}") from error
            console.print(addresses(sandbox))
            console.print(f"control       {sandbox.control_url}", highlight=False)
            if behind is None:
                _explain_shipped(sandbox, Path(folder), console)
            else:
                _explain(sandbox, behind, output or Path(folder, "sandbox.yaml"), console)
            await stop.wait()
    return 0


def _explain_shipped(sandbox: Sandbox, folder: Path, console: Console) -> None:
    environ, overlay = write_files(sandbox, folder)
    console.print(f"credentials   {environ} (made up, mode 0600, gone when this ends)", highlight=False)
    console.print("\nA gateway for it, in another terminal:", highlight=False)
    serve = f"gatepass serve -c config.yaml -c {shlex.quote(str(overlay))}"
    console.print(f"( set -a; . {shlex.quote(str(environ))}; {serve} )", highlight=False, soft_wrap=True)


def _explain(sandbox: Sandbox, behind: For, overlay: Path, console: Console) -> None:
    overlay.unlink(missing_ok=True)
    write_new(overlay, OVERLAY_MARK + sandbox.overlay_for(behind.profiles, behind.routes), mode=PRIVATE)
    for name, profile in behind.profiles.items():
        if sandbox.of_profile(profile) is None:
            what = f"the profile {profile}" if profile else "a credential without a profile"
            console.print(f"not emulated  {name}: {what}", highlight=False)
    files = " ".join(f"-c {shlex.quote(str(path))}" for path in (*behind.paths, overlay))
    console.print(f"overlay       {overlay} (addresses and made-up secrets, mode 0600)", highlight=False)
    console.print(f"\nA gateway for it, in another terminal:\ngatepass serve {files}", highlight=False, soft_wrap=True)
    for name, (names, _) in behind.routes.items():
        if names and sandbox.of_profile(behind.profiles.get(names[0])):
            console.print(f"curl http://127.0.0.1:8080/{name}/sandbox/echo", highlight=False, soft_wrap=True)


def _refuse_foreign(overlay: Path) -> None:
    """Raise GatepassError if the file is not an overlay of an earlier sandbox: it may be somebody's configuration."""
    if not overlay.exists():
        return
    if overlay.is_file():
        with overlay.open(encoding="utf-8", errors="replace") as file:
            if file.readline() == OVERLAY_MARK:
                return
    raise GatepassError(f"{overlay} exists and is no overlay of the sandbox; it is left as it is")


def write_files(sandbox: Sandbox, folder: Path) -> tuple[Path, Path]:
    """Write the variables (mode 0600, shell syntax) and the overlay; return their paths."""
    environ, overlay = folder / "sandbox.env", folder / "sandbox.yaml"
    variables = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sandbox.environ().items())
    write_new(environ, variables, mode=PRIVATE)
    overlay.write_text(sandbox.overlay(), encoding="utf-8")
    return environ, overlay


def addresses(sandbox: Sandbox) -> Table:
    """Return a table with the addresses of each vendor."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("vendor", "API", "token endpoint", "control"):
        table.add_column(column, overflow="fold")
    for name, vendor in sandbox.vendors.items():
        table.add_row(name, vendor.base_url, vendor.token_url, vendor.control_url)
    table.add_row("hypersign KYC", sandbox.hypersign.kyc_url, "", "")
    return table


@contextlib.contextmanager
def until_signal() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT or SIGTERM sets; inside the block neither ends the process."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
