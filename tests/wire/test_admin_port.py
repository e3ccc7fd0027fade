"""Hostile bytes on the admin port: bounded in time and number, answered without a traceback, nothing of them logged."""

from __future__ import annotations

import asyncio
import contextlib
import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.access import hash_key
from gateway.admin import AdminServer, connection
from gateway.admin import input as admin_input
from gateway.admin.input import is_own_host
from gateway.config import load
from gateway.model import Address, Logs
from gateway.observe import Metrics, close_logging, configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "gp_CANARY-admin-key-of-the-wire-tests"
TRACE = "CANARYfieldtext"
"""Stands in every path and field that is sent; the log must not contain it."""
CONFIG = f"""
admin_keys_sha256: [{hash_key(KEY)}]
admin_hosts: [gatepass, Monitor.Internal]
credentials: {{key: {{static: {{token: "CANARY-static-token"}}}}}}
routes: {{v: {{credential: key, upstream: "http://127.0.0.1:9"}}}}
"""


@asynccontextmanager
async def admin_port(folder: Path) -> AsyncIterator[tuple[tuple[str, int], io.StringIO]]:
    """An admin port with a key and two host names, and its log."""
    path = folder / "config.yaml"
    path.write_text(CONFIG)
    log = io.StringIO()
    configure_logging(Logs(format="json", level="debug"), log)
    server = AdminServer(Address("127.0.0.1", 0), metrics=Metrics(), status=list, state=lambda: "ready")
    server.use(load([path], environ={}))
    await server.start()
    try:
        yield server.address, log
    finally:
        await server.stop()
        close_logging()


async def talk(address: tuple[str, int], raw: bytes) -> bytes:
    """Send bytes and return everything until the server closes, or is silent for 0.5 s."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(raw)
    got = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := await asyncio.wait_for(reader.read(65536), 0.5):
            got += data
    writer.close()
    return got


def form(body: bytes, *fields: str, path: str = "/status/enter") -> bytes:
    head = [f"POST {path}?{TRACE} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"X-Note: {TRACE}", *fields]
    if not any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


URLENCODED = "Content-Type: application/x-www-form-urlencoded"
MALFORMED = {
    "bearer that is not UTF-8": form(b"", "Authorization: Bearer \xff" + TRACE, path="/reload"),
    "bearer on an action": form(b"", "Authorization: Bearer \xfe\xff", path="/status/credentials/key/fetch"),
    "cookie that is not UTF-8": form(b"", f"Cookie: gatepass_admin=\xff{TRACE}", path="/reload"),
    "cookie on the page": f"GET /status HTTP/1.1\r\nHost: localhost\r\nCookie: gatepass_admin=\xff{TRACE}\r\n"
    "Connection: close\r\n\r\n".encode("latin-1"),
    "expectation that is not UTF-8": form(b"", f"Expect: \xff{TRACE}"),
    "unknown expectation": form(b"", f"Expect: {TRACE}", path="/nowhere"),
    "unknown charset": form(b"key=x", URLENCODED + "; charset=klingon"),
    "charset that is no text encoding": form(b"key=x", URLENCODED + "; charset=base64"),
    "form that is not UTF-8": form(b"key=\xff\xfe", URLENCODED),
    "percent-encoding that is not UTF-8": form(b"key=%ff%fe", URLENCODED),
    "too many fields": form(b"&".join(b"f%d=1" % n for n in range(99)), URLENCODED),
    "broken multipart": form(b"--x\r\ngarbage", "Content-Type: multipart/form-data; boundary=x"),
    "multipart without boundary": form(b"garbage", "Content-Type: multipart/form-data"),
    "garbage content type": form(b"key=x", "Content-Type: ;;=\xff"),
    "garbage chunk size": form(b"zz\r\nkey\r\n0\r\n\r\n", URLENCODED, "Transfer-Encoding: chunked"),
    "broken gzip": form(b"\x1f\x8bgarbage", URLENCODED, "Content-Encoding: gzip"),
    "JSON that is not UTF-8": form(b'{"level": "\xff"}', f"Authorization: Bearer {KEY}", path="/logging").replace(
        b"POST", b"PUT"
    ),
    "JSON nested too deep": form(b"[" * 9000, f"Authorization: Bearer {KEY}", path="/logging").replace(b"POST", b"PUT"),
    "body too large": form(b"x" * 20_000, URLENCODED),
    "csrf that is not UTF-8": form(b"csrf=\xc3\x28", URLENCODED, path="/reload"),
    "credential that is not UTF-8": form(
        b"", f"Authorization: Bearer {KEY}", path=f"/status/credentials/%ff{TRACE}/fetch"
    ),
    "method that is no token": f"G@T /{TRACE} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "field name that is no token": f"GET / HTTP/1.1\r\nHost: localhost\r\nbad {TRACE}\x00: x\r\n\r\n".encode(),
    "two lengths": f"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n"
    f"X: {TRACE}\r\n\r\n".encode(),
    "target with a broken host": f"GET http://[::1/{TRACE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "target with a broken port": f"GET http://h:99999999/{TRACE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "field that is too long": b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + TRACE.encode() * 1000 + b"\r\n\r\n",
    "too many header fields": b"GET / HTTP/1.1\r\n" + f"X: {TRACE}\r\n".encode() * 500 + b"\r\n",
    "no HTTP": f"\x16\x03\x01{TRACE}\r\n\r\n".encode(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_refused_without_a_traceback_and_without_its_text(
    tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with admin_port(tmp_path) as (address, log):
        answer = await talk(address, raw)
        still = await talk(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    said = log.getvalue() + caplog.text
    status = int(answer.split()[1])
    assert 400 <= status < 500 or (status == 200 and raw.startswith(b"GET /status ")), answer[:300]
    assert TRACE.encode() not in answer
    assert b"Python" not in answer
    assert b"aiohttp" not in answer
    assert TRACE not in said
    assert "Traceback" not in said
    assert "CANARY" not in said
    assert still.startswith(b"HTTP/1.1 200")


# -------------------------------------------------------------------------------------------------------- time-outs

HALVES = {
    "silence": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "half a body": form(b"key=", URLENCODED, "Content-Length: 100"),
    "half a body that nobody reads": form(b"x", "Content-Length: 100", path="/healthz").replace(b"POST", b"GET"),
    "a chunked body without an end": form(b"3\r\nkey\r\n", URLENCODED, "Transfer-Encoding: chunked"),
    "silence after an answer": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("raw", HALVES.values(), ids=HALVES)
async def test_a_client_that_stops_in_the_middle_is_closed(
    tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 0.2)
    monkeypatch.setattr(admin_input, "BODY_TIMEOUT", 0.2)
    async with admin_port(tmp_path) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(raw.replace(b"Connection: close\r\n", b""))
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(65536):
                    pass
        writer.close()


async def test_a_client_that_drips_its_head_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 0.3)
    async with admin_port(tmp_path) as (address, _):
        reader, writer = await asyncio.open_connection(*address)

        async def drip() -> None:
            for byte in b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 10_000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        dripping.cancel()
        writer.close()


async def test_a_client_that_does_not_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty pipelined status pages fill every buffer on the way."""
    monkeypatch.setattr(connection, "WRITE_TIMEOUT", 0.2)
    async with admin_port(tmp_path) as (address, _):
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        request = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request)
        await reader.readexactly(1)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while not writer.transport.is_closing():
                    writer.write(request * 100)
                    await asyncio.sleep(0.05)
        assert writer.transport.is_closing()


# --------------------------------------------------------------------------------------------------------- the bound


async def test_connections_over_the_bound_close_idle_ones_and_a_probe_still_gets_its_answer(tmp_path: Path) -> None:
    async with admin_port(tmp_path) as (address, _):
        opened = [await asyncio.open_connection(*address) for _ in range(connection.CONNECTIONS + 20)]
        answer = await talk(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        closed = 0
        for reader, _writer in opened[:21]:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 2) == b""
            closed += 1
        for _, writer in opened:
            writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert closed == 21


# ------------------------------------------------------------------------------------------------------------ hosts

OWN = ["127.0.0.1", "127.0.0.1:9090", "10.1.2.3:80", "[::1]", "[fe80::1]:9090", "localhost", "LOCALHOST:9090",
       "localhost.", "app.localhost", "gatepass", "gatepass:9090", "monitor.internal",
       "MONITOR.INTERNAL.:9090"]  # fmt: skip
FOREIGN = ["rebind.evil.example", "rebind.evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io",
           "evil.example#127.0.0.1", "evil@127.0.0.1", "[::1", "[localhost]", "gatepass.evil.example", "gatepass,x",
           "0x7f000001", "127.0.0.1:x", "", "gatepass:9090:1"]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_addresses_localhost_and_configured_names_are_our_own(host: str) -> None:
    assert is_own_host([host], {"gatepass", "monitor.internal"})


@pytest.mark.parametrize("host", FOREIGN)
def test_any_other_name_is_not(host: str) -> None:
    assert not is_own_host([host], {"gatepass", "monitor.internal"})


def test_a_program_of_http_1_0_may_name_no_host_and_nobody_names_two() -> None:
    assert is_own_host([], set())
    assert not is_own_host(["localhost", "localhost"], set())


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/status", "/status.json", "/logging", "/nothing"])
async def test_a_rebound_name_sees_nothing_on_any_page(tmp_path: Path, path: str) -> None:
    async with admin_port(tmp_path) as (address, log):
        request = "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n"
        foreign = await talk(address, request.format(path, f"{TRACE}.example").encode())
        named = await talk(address, request.format(path, "gatepass:9090").encode())
    assert foreign.startswith(b"HTTP/1.1 421")
    assert b"admin_hosts" in foreign
    assert TRACE not in log.getvalue()
    assert "admin_host_refused" in log.getvalue()
    assert not named.startswith(b"HTTP/1.1 421")
