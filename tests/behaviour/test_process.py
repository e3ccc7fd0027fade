"""The process: signals while it starts, descriptors that are closed, programs that run, a manager that watches."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.model import Logs
from gateway.observe import close_logging, configure_logging
from gateway.serving import files
from gateway.serving.notify import Notifier
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 30.0


class Started:
    """`gatepass serve`, whose secret comes from a program that runs until a file says `go`."""

    def __init__(self, folder: Path, shell: str = "", **environ: str) -> None:
        self.folder, self.port, self.admin = folder, free_port(), free_port()
        program = folder / "program"
        program.write_text(
            f"#!/bin/sh\necho $$ >> {folder}/pids\nwhile ! test -e {folder}/go; do sleep 0.02; done\necho CANARY\n"
        )
        program.chmod(0o755)
        (folder / "config.yaml").write_text(
            textwrap.dedent(f"""
            listen: 127.0.0.1:{self.port}
            admin: 127.0.0.1:{self.admin}
            credentials: {{key: {{static: {{token: "${{command:{program}}}"}}}}}}
            routes: {{v: {{credential: key, upstream: "http://127.0.0.1:9"}}}}
        """)
        )
        command = f"exec {sys.executable} -m gateway serve -c {folder}/config.yaml {shell or f'> {folder}/log 2>&1'}"
        self.process = subprocess.Popen(["/bin/sh", "-c", command], env={**os.environ, **environ})

    def go(self) -> None:
        (self.folder / "go").touch()

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def program_runs(self) -> bool:
        return (self.folder / "pids").exists() and len(self.pids()) > 0

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.folder / "pids").read_text().split()]

    def serves(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.go()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def started(folder: Path) -> Iterator[Started]:
    it = Started(folder)
    yield it
    it.end()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_signal_during_the_start_does_not_end_it(started: Started, number: signal.Signals) -> None:
    started.until(started.program_runs)
    started.process.send_signal(number)
    time.sleep(0.1)
    started.go()
    started.until(started.serves)
    assert started.process.poll() is None
    if number == signal.SIGHUP:
        started.until(lambda: '"reloaded"' in started.log())
    if number == signal.SIGUSR2:
        started.until(lambda: '"upgrading"' in started.log())
        events = [json.loads(line) for line in started.log().splitlines()]
        os.kill(next(each["successor"] for each in events if each["event"] == "upgrading"), signal.SIGKILL)


def test_sigusr1_does_not_end_a_gateway_that_serves(started: Started) -> None:
    started.go()
    started.until(started.serves)
    started.process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    assert started.process.poll() is None
    assert started.serves()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_start_that_is_stopped_ends_at_once_and_leaves_no_program(started: Started, number: signal.Signals) -> None:
    started.until(started.program_runs)
    started.process.send_signal(number)
    assert started.process.wait(5) == 0
    started.until(lambda: not any(map(alive, started.pids())))
    assert "Traceback" not in started.log()


@pytest.mark.slow
def test_a_stop_during_a_reload_leaves_no_program(started: Started) -> None:
    started.go()
    started.until(started.serves)
    (started.folder / "go").unlink()
    before = len(started.pids())
    time.sleep(5.1)  # an output is reused for five seconds
    started.process.send_signal(signal.SIGHUP)
    started.until(lambda: len(started.pids()) > before)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(10) == 0
    started.until(lambda: not any(map(alive, started.pids())))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_descriptors_that_are_closed_are_no_descriptors_of_the_gateway(folder: Path, closed: str) -> None:
    it = Started(folder, shell=closed)
    try:
        it.go()
        it.until(it.serves)
        process = it.process.pid
        for number in ("0", "1", "2"):
            target = str(Path(f"/proc/{process}/fd/{number}").readlink())
            assert not target.startswith(("socket:", "anon_inode:")), f"{number} is {target}"
            if f"{'' if number != '2' else '2'}{'<' if number == '0' else '>'}&-" in closed.split():
                assert target == "/dev/null"
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(10) == 0
    finally:
        it.end()


# -------------------------------------------------------------------------------------------------------- the watchdog


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_answered_only_by_the_process_that_it_watches(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog == seconds


async def test_the_watchdog_is_answered_twice_in_its_time_from_the_event_loop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        task = asyncio.create_task(notifier.keep_watchdog())
        await asyncio.sleep(0.32)
        task.cancel()
        manager.setblocking(False)
        heard = []
        try:
            while True:
                heard.append(manager.recv(100))
        except BlockingIOError:
            pass
    assert set(heard) == {b"WATCHDOG=1"}
    assert 3 <= len(heard) <= 7


# ---------------------------------------------------------------------------------------------------------- open files


async def test_running_out_of_files_is_logged_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "INTERVAL", 0.001)
    answers = iter([True, False, False, False, True, True])
    log = io.StringIO()
    configure_logging(Logs(format="json"), log)
    over = asyncio.Event()

    def can_open() -> bool:
        answer = next(answers, None)
        if answer is None:
            over.set()
            return True
        return answer

    task = asyncio.create_task(files.watch_files(can_open))
    await asyncio.wait_for(over.wait(), 5)
    task.cancel()
    close_logging()
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(each["event"], each["level"]) for each in events] == [
        ("files_exhausted", "error"),
        ("files_available", "info"),
    ]
    assert events[0]["limit"]
