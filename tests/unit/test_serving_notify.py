"""What a service manager is told (sd_notify(3)), and that nobody who does not listen is a reason to fail."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest

from gateway.serving.notify import PATIENCE, Notifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (Notifier.ready, {"READY": "1", "STATUS": "serving"}),
        (Notifier.stopping, {"STOPPING": "1", "STATUS": "draining"}),
        (lambda n: n.succeeded_by(4711), {"MAINPID": "4711", "READY": "1"}),
        (Notifier.reloading, {"RELOADING": "1"}),
    ],
    ids=["ready", "stopping", "succeeded", "reloading"],
)
def test_a_service_manager_hears_it(tell: Callable[[Notifier], None], expected: dict[str, str], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        tell(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        said = dict(line.split("=", 1) for line in manager.recv(1000).decode().splitlines())
    assert expected.items() <= said.items()
    assert "MONOTONIC_USEC" in said or "RELOADING" not in said


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/notify"], ids=["none", "no path", "nobody there"])
def test_without_a_listener_nothing_happens(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready()


@pytest.mark.parametrize("path", ["@", "/" + "x" * 200, "@" + "x" * 200, "vsock:2:1234", "/tmp", "/\udcff"])
def test_an_odd_address_is_no_reason_to_fail(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready()


def test_a_service_manager_that_does_not_read_delays_nobody(tmp_path: Path) -> None:
    """Its queue is full after some messages, and the event loop must not wait for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"", str(tmp_path / "notify"))
        began = time.monotonic()
        notifier.ready()
        assert time.monotonic() - began < 20 * PATIENCE
