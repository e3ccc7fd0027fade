"""Where secrets come from besides variables and files, and who else could get at them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.config.read.command import CommandError, Commands
from gateway.protection import too_open
from tests.kit.configuration import problems, written
from tests.kit.gateway import CANARY, one_route
from tests.kit.served import Apps, Served, until
from tests.kit.wire import answering, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.wire import Peer


def program(folder: Path, body: str, name: str = "secret") -> str:
    """Write an executable and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{body}\n")
    path.chmod(0o755)
    return str(path)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


# ------------------------------------------------------------------------------------------------------------- commands


def test_a_command_s_text_is_the_secret_without_its_newline(tmp_path: Path) -> None:
    path = program(tmp_path, "echo 'CANARY  with space'; echo")
    assert Commands().value(path, os.environ) == "CANARY  with space"


def test_members_of_one_object_cost_one_run(tmp_path: Path) -> None:
    path = program(tmp_path, """echo '{"id": "CANARY-id", "deep": {"secret": "CANARY-s"}}'""")
    commands = Commands()
    assert commands.value(f"{path} --json#id", os.environ) == "CANARY-id"
    assert commands.value(f"{path} --json#deep.secret", os.environ) == "CANARY-s"
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(
    ("body", "reference", "says"),
    [
        ("exit 3", "", "exited with status 3"),
        ("true", "", "printed nothing"),
        ("printf '\\377'", "", "not UTF-8"),
        ("head -c 70000 /dev/zero | tr '\\0' x", "", "more than 64 KiB"),
        ("echo CANARY-text", "#id", "no JSON object"),
        ("echo '{\"id\": 7}'", "#id", "no text at id"),
        ("echo '{}'", "#a.b", "no text at a.b"),
    ],
    ids=["fails", "empty", "bytes", "much", "no object", "a number", "missing"],
)
def test_what_a_command_does_wrong_is_told_and_what_it_printed_is_not(
    body: str, reference: str, says: str, tmp_path: Path
) -> None:
    path = program(tmp_path, body)
    with pytest.raises(CommandError, match=says) as caught:
        Commands().value(path + reference, os.environ)
    assert "CANARY" not in str(caught.value)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    path = program(tmp_path, "sleep 60 & sleep 60")
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"did not finish within 0\.3 s"):
        Commands(timeout=0.3).value(path, os.environ)
    assert time.monotonic() - began < 30, "neither of the two sleeps was waited for"


@pytest.mark.parametrize("line", ["secret", "./secret", "", "'open"], ids=["by PATH", "relative", "nothing", "quotes"])
def test_a_command_is_named_by_an_absolute_path(line: str) -> None:
    with pytest.raises(CommandError, match=r"absolute path|unbalanced quotes"):
        Commands().value(line, os.environ)


def test_a_command_with_a_nul_character_is_a_mistake() -> None:
    with pytest.raises(CommandError, match="NUL character"):
        Commands().value("/bin/echo \0", os.environ)


def test_a_command_s_environment_holds_no_secret_of_the_configuration(tmp_path: Path) -> None:
    path = program(tmp_path, "env | tr '\\n' ' '; echo end")
    text = f"""\
    credentials:
      a: {{static: {{token: "${{SECRET}}"}}}}
      b: {{static: {{token: "${{command:{path}}}"}}}}
    routes: {{a: {{credential: a, upstream: "https://a.example"}}}}
    """
    from gateway.config import load

    environ = {"SECRET": CANARY, "VAULT_ADDR": "here", "NOTIFY_SOCKET": "/n", "PATH": os.environ["PATH"]}
    token = load([written(tmp_path, text)], environ=environ).credentials["b"].static
    assert token is not None
    assert "VAULT_ADDR=here" in token.reveal()
    assert CANARY not in token.reveal()
    assert "NOTIFY_SOCKET" not in token.reveal()


def test_a_command_that_fails_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    text = """\
    credentials:
      a: {static: {token: "${command:/nowhere/at-all x}"}}
    routes: {a: {credential: a, upstream: "https://a.example"}}
    """
    expected = "config.yaml:2: credentials.a.static.token: /nowhere/at-all cannot be run: no such file or directory"
    assert problems(tmp_path, text) == [f"{expected} (needed by route a)"]


@pytest.mark.parametrize(
    ("left", "expected"), [(3600, 300.0), (160, 100.0), (10, 1.0)], ids=["far away", "within the refresh", "due"]
)
def test_an_expiration_says_when_to_ask_again(left: float, expected: float, tmp_path: Path) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=left)).isoformat()
    commands, began = Commands(now=lambda: 0.0), time.monotonic()
    commands.begin(frozenset())
    commands.value(program(tmp_path, f"echo '{json.dumps({'k': 'v', 'Expiration': at})}'") + "#k", os.environ)
    took = time.monotonic() - began
    assert commands.again_after is not None
    assert expected - took - 1 <= commands.again_after <= expected + 1


async def test_a_command_s_new_secret_is_taken_up_when_the_old_one_is_due(tmp_path: Path) -> None:
    """The object says that it expires now, so the program is asked again every second."""
    tokens: list[bytes] = []

    async def echo(peer: Peer) -> None:
        while True:
            tokens.append((await peer.message()).one("Authorization"))
            await peer.send(ok())

    at = datetime.now(UTC).isoformat()
    path = program(
        tmp_path, f"""echo "{{\\"k\\": \\"CANARY-$(cat {tmp_path}/which)\\", \\"Expiration\\": \\"{at}\\"}}" """
    )
    (tmp_path / "which").write_text("one")
    async with vendor(echo) as it_vendor:
        config = one_route(it_vendor.port)
        config["credentials"] = {"key": {"static": {"token": f"${{command:{path}#k}}"}}}
        async with Served(tmp_path, config) as gateway, Apps(gateway.address, "/v/x", apps=1) as apps:
            await until(lambda: b"Bearer CANARY-one" in tokens)
            (tmp_path / "which").write_text("two")
            await until(lambda: b"Bearer CANARY-two" in tokens)
        assert not apps.failures, apps.failures
        assert "CANARY" not in gateway.text


# ------------------------------------------------------------------------------------------------------- who else can


@pytest.mark.parametrize(
    ("mode", "told"), [(0o400, False), (0o440, False), (0o444, True), (0o604, True), (0o620, True)], ids=oct
)
def test_a_secret_file_that_others_can_read_or_change_is_told(mode: int, told: bool, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    assert bool(too_open([path, tmp_path / "missing"])) is told


PROBE = """
import os, resource, sys
print(resource.getrlimit(resource.RLIMIT_CORE))
pid = int(sys.argv[1])
os.setgid(65534); os.setuid(65534)
try:
    print(open(f"/proc/{pid}/environ").read())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
async def test_no_core_is_dumped_and_no_process_of_the_same_user_reads_the_secrets(tmp_path: Path) -> None:
    async with (
        vendor(answering(ok())) as it_vendor,
        Served(tmp_path, one_route(it_vendor.port), environ={"CANARY": CANARY}) as gateway,
    ):
        assert gateway.process is not None
        folder = f"/proc/{gateway.process.pid}"
        with open(f"{folder}/limits") as limits:  # noqa: ASYNC230, PTH123 - the kernel answers at once
            assert next(line.split()[4:6] for line in limits if line.startswith("Max core")) == ["0", "0"]
        assert os.stat(f"{folder}/environ").st_uid == 0, "not the user's own any more"  # noqa: PTH116
        if os.geteuid() == 0:
            probe = subprocess.run(  # noqa: ASYNC221 - short
                [sys.executable, "-c", PROBE, str(gateway.process.pid)], capture_output=True, text=True, check=True
            )
            assert "PermissionError" in probe.stdout
            assert CANARY not in probe.stdout
