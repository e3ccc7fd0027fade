"""`status`, `usage` and `health` when something else answers, or a gateway of another version."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMANDS = ["status", "status --json", "usage", "usage --csv", "health"]
READING = COMMANDS[:4]
STATUS = {
    "version": "9.9.9",
    "state": "ready",
    "failing": 0,
    "headline": "ready",
    "uptime": 1.0,
    "config": {"digest": "0" * 64, "problems": []},
    "store": None,
    "window": 900.0,
    "credentials": [
        {"name": "a", "state": "valid", "fingerprint": "0" * 8, "life": 9.0, "expires_in": 8.0, "next_attempt_in": 7.0}
        | {"reason": None, "advice": None}
    ],
    "routes": [{"name": "a", "requests": 1, "errors": {"app": 0}, "p50_ms": None, "p99_ms": None, "curve": [0, 1]}],
    "clients": [{"name": "a", "requests": {}, "limited": 0, "budgets": []}],
    "planes": [],
    "month": "2026-11",
    "days": [{"client": "a", "route": "a", "day": "2026-11-01", "calls": 1, "billed": 1, "cost": None}],
    "totals": [{"client": "a", "route": "a", "calls": 1, "billed": 1, "cost": None, "currency": None}],
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def stranger(said: bytes, *, pause: float = 0.0) -> AsyncIterator[str]:
    """Run a server that answers each request with these bytes, and with `pause` between two of them."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in [said] if not pause else [bytes([each]) for each in said]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def run(words: str, url: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, [*words.split(), "--url", url])


def check_one_line(shown: Result) -> None:
    assert shown.exit_code == 1
    assert isinstance(shown.exception, SystemExit)
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.rstrip("\n").isprintable()


STRANGERS = {
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
    "half an answer": HEAD + b'Content-Length: 500\r\n\r\n{"state":',
    "no JSON": answer(b'{"state": ready'),
    "no UTF-8": answer(b'{"state": "\xff"}'),
    "an empty body": answer(b""),
    "a list": answer(b"[]"),
    "deep JSON": answer(b"[" * 100_000),
    "a huge number": answer(b'{"state": ' + b"9" * 10_000 + b"}"),
    "nothing": b"",
    "SSH": b"\x00\x1b[2JSSH-2.0\r\n\r\n",
    "endless fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_is_called_one_in_one_line(said: bytes, command: str) -> None:
    async with stranger(said) as url:
        shown = await run(command, url)
    check_one_line(shown)
    assert "is not the admin port of a gateway" in shown.stderr


@pytest.mark.parametrize("command", READING)
async def test_an_endless_answer_is_read_up_to_a_bound(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.ask.LONGEST", 100_000)
    async with stranger(HEAD + b"\r\n" + b"[" * 1_000_000) as url:
        check_one_line(await run(command, url))


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_answer_byte_by_byte_has_the_same_time(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.ask.TIMEOUT", 0.5)
    monkeypatch.setattr("gateway.commands.look.TIMEOUT", 0.5)
    async with stranger(HEAD * 9, pause=0.1) as url:
        began = time.monotonic()
        shown = await run(command, url)
        assert time.monotonic() - began < 3
    check_one_line(shown)
    assert "does not answer within 0.5 s" in shown.stderr


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_reason_of_a_gateway_is_shown(command: str) -> None:
    title = {"status": 421, "title": "list this name under admin_hosts"}
    async with stranger(answer(json.dumps(title).encode(), "421 Misdirected Request")) as url:
        shown = await run(command, url)
    check_one_line(shown)
    assert shown.stderr.endswith(" answers 421: list this name under admin_hosts\n")


def without(data: Any) -> list[Any]:
    """Return copies of the data, each without one member somewhere or with another kind of value there."""
    made = []
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        inner = without(data[key])
        for other in [None, 5, "[/x]", [1], *inner]:
            changed = copy.copy(data)
            changed[key] = other
            made.append(changed)
        if isinstance(data, dict):
            made.append({name: value for name, value in data.items() if name != key})
    return made


async def test_another_versions_answer_is_shown_or_refused_but_never_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For each member that is missing or has another kind of value."""
    said: list[Any] = [STATUS]
    monkeypatch.setattr("gateway.commands.status.ask", lambda *_: said[0])
    monkeypatch.setattr("gateway.commands.usage.ask", lambda *_: said[0])
    for command in READING:
        said[0] = STATUS
        assert (await run(command, "http://x")).exit_code == 0
    for changed in without(STATUS):
        for command in READING:
            said[0] = changed
            shown = CliRunner().invoke(main, command.split())
            assert shown.exception is None or isinstance(shown.exception, SystemExit), (command, changed)
            if shown.stderr and "this is gatepass" in shown.stderr:
                check_one_line(shown)


async def test_what_a_terminal_obeys_is_not_shown() -> None:
    said = copy.deepcopy(STATUS)
    said["totals"][0]["client"] = said["credentials"][0]["name"] = said["days"][0]["client"] = "\x1b[2J\ud800"  # type: ignore[index]
    async with stranger(answer(json.dumps(said).encode())) as url:
        for command in READING:
            shown = await run(command, url)
            assert shown.exit_code == 0
            assert "\x1b" not in shown.output
