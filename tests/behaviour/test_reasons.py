"""Every refusal has a reason in the log, in words that an operator can act on."""

from __future__ import annotations

import io
import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.access import hash_key
from gateway.config import load
from gateway.model import Logs
from gateway.observe import close_logging, configure_logging
from gateway.serving.process import Process
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.wire import answering, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config
    from tests.kit.wire import Peer

KEY = "gp_CANARY-reasons-key-0123456789"
AUTH = f"X-Gatepass-Key: {KEY}"
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))
CLASS_NAME = re.compile(r"\b[A-Z][a-z]+[A-Z]\w*\b|Error\b")
"""A word in camel case, such as the name of an exception."""

REFUSALS = {
    "unknown route": (get("/nothing", AUTH), "No route has the prefix of this path"),
    "path with dot segments": (get("/v/%2e%2e/a", AUTH), None),
    "denied path": (get("/v/secret/a", AUTH), None),
    "method": (b"PUT /v/a HTTP/1.1\r\nHost: x\r\n" + AUTH.encode() + b"\r\nContent-Length: 0\r\n\r\n", None),
    "unknown key": (get("/v/a", "X-Gatepass-Key: gp_CANARY-wrong"), None),
    "no key": (get("/v/a"), None),
    "too large": (post("/v/a", b"x" * 2000, AUTH), None),
    "garbage": (b"hello\r\n\r\n", "The request line is not one of HTTP/1.1"),
    "TLS": (CLIENT_HELLO, "a TLS handshake on a port without TLS"),
    "TLS in pieces": (CLIENT_HELLO[:1], "a TLS handshake on a port without TLS"),
    "TLS with an empty line": (CLIENT_HELLO[:5] + b"\r\n\r\n", "a TLS handshake on a port without TLS"),
    "two Host fields": (b"GET /v/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", None),
    "head too large": (b"GET /v/a HTTP/1.1\r\n" + b"X: " + b"a" * 70_000, None),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_every_refusal_has_a_reason(raw: bytes, reason: str | None) -> None:
    async with vendor(answering(*[ok()] * 3)) as there:
        config = one_route(there.port, deny=["/secret/**"], methods=["GET", "POST"], max_body=1000)
        config["clients"] = [{"name": "web", "key_sha256": hash_key(KEY)}]
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(raw)
            assert (await app.message()).status >= 400
            app.close()
            events = [json.loads(line) for line in it.log.splitlines()]
    [event] = [each for each in events if each["event"] in {"request", "app_connection_rejected"}]
    assert event["code"]
    assert event["reason"].startswith(reason or "")
    assert event["reason"]


async def _reset(peer: Peer) -> None:
    await peer.head()
    peer.reset()


async def _close(peer: Peer) -> None:
    await peer.head()
    peer.close()


async def _half(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    peer.reset()


@pytest.mark.parametrize("script", [_reset, _close, _half], ids=["reset", "closed", "in the middle"])
async def test_a_vendor_that_breaks_off_is_described_without_the_names_of_python_classes(script: Any) -> None:
    async with vendor(script) as there, running(one_route(there.port)) as it:
        app = await connect(it.address)
        await app.send(post("/v/a", b"x"))
        assert await app.at_end() or True
        app.close()
        events = [json.loads(line) for line in it.log.splitlines()]
    [event] = [each for each in events if each["event"] == "request"]
    assert event["level"] == "warning"
    assert event["reason"].startswith(f"127.0.0.1:{there.port}: ")
    assert not CLASS_NAME.search(event["reason"]), event["reason"]


# ------------------------------------------------------------------------------------------------------- at the start


async def started(config: Config) -> tuple[int, dict[str, Any]]:
    """Run a process that cannot start; return its status and its last event."""
    log = io.StringIO()
    configure_logging(Logs(format="json"), log)
    try:
        status = await Process(lambda: config, 0).run(config)
    finally:
        close_logging()
    return status, json.loads(log.getvalue().splitlines()[-1])


@pytest.mark.parametrize("key", ["listen", "admin"])
async def test_a_taken_port_is_named_with_its_key(tmp_path: Path, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, **one_route(1), key: address}))
        status, event = await started(load([path], environ={"CANARY": CANARY}))
    assert (status, event["event"], event["level"]) == (1, "cannot_listen", "error")
    assert (event["key"], event["address"], event["reason"]) == (key, address, "address already in use")
