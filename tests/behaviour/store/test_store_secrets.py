"""What a dump of the store shows, and which rights in the store the gateway needs."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from gateway.access import hash_key
from gateway.model import Secret
from gateway.observe import forms
from gateway.store.rights import RIGHTS
from tests.kit.configuration import ROOT
from tests.kit.instances import all_show, call, instances, vendors, vendors_config
from tests.kit.rights import PASSWORD, commands, rights
from tests.kit.valkey import STORE_KEY, TLS, block, store
from tests.kit.wire import connect, get

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.sandbox import Sandbox
    from tests.kit.served import Served

NAMES = ("idfy", "akiba")


def requested(sandbox: Sandbox) -> int:
    return sum(sandbox.vendors[name].counters.token_requests for name in NAMES)


def test_the_documented_user_has_exactly_the_commands_that_scripts_and_connections_use() -> None:
    used = {"eval", "evalsha", "subscribe", "select", "role"}
    for path in (ROOT / "gateway" / "store").glob("*.py"):
        used |= {name.lower() for name in re.findall(r"redis\.call\('([A-Z]+)'", path.read_text())}
    assert set(commands()) == used


def test_a_heartbeat_that_tries_every_right_runs_each_command_of_the_scripts() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "gateway" / "store").glob("*.py"))
    tried = re.findall(r"redis\.call\('([A-Z]+)'", RIGHTS.text)
    assert set(tried) == set(re.findall(r"redis\.call\('([A-Z]+)'", sources))


def secrets_of(sandbox: Sandbox) -> list[str]:
    """Return everything that a dump must not hold: tokens, vendors' secrets, the key, a client's key."""
    tokens = [issued.value.reveal() for name in NAMES for issued in sandbox.vendors[name].ledger.all()]
    own = [value for name in NAMES for value in _revealed(sandbox.vendors[name].credentials)]
    return [*tokens, *own, STORE_KEY, CLIENT_KEY, PASSWORD]


def _revealed(credentials: dict[str, Any]) -> list[str]:
    return [value.reveal() for value in credentials.values() if isinstance(value, Secret)]


CLIENT_KEY = "gp_CANARY-client-key-0123456789"


@pytest.mark.slow
async def test_with_tls_and_exactly_the_documented_rights_a_dump_shows_no_secret(tmp_path: Path) -> None:
    """A real Redis with TLS and the user of docs/scaling.md; then keys are rotated, one instance after the other."""
    tls = TLS(tmp_path)
    async with vendors() as sandbox, store(tmp_path, "redis", tls=tls) as server:
        await server.command("ACL", "SETUSER", "gatepass", *rights())
        await server.command("ACL", "SETUSER", "default", "on")
        shared = block(server, username="gatepass", password=PASSWORD, namespace="prod")
        config = vendors_config(sandbox, NAMES, store=shared, clients=[client(hash_key(CLIENT_KEY))])
        async with instances(tmp_path, 3, config, sandbox.environ()) as fleet:
            await all_show(fleet, "gatepass_store_members", 3)
            assert [await call(it, "idfy") for it in fleet] == [401] * 3, "without a key"
            for it in fleet:
                assert await keyed(it) == 200
            assert requested(sandbox) == len(NAMES)
            dump = await server.dump()
            assert len(await server.command("KEYS", "gp1:prod:{*}:t")) == len(NAMES)
            for secret in secrets_of(sandbox):
                for form in forms(secret):
                    assert form.encode() not in dump
            for name in (b"akiba", b"127.0.0.1", b"CANARY"):  # usage names clients and routes that were called
                assert name not in dump
            for keys in (["CANARY-new-key-0123456789abcdefghij", STORE_KEY], ["CANARY-new-key-0123456789abcdefghij"]):
                for it in fleet:
                    it.write({**config, "store": {**shared, "keys": keys}})
                    count = len(it.events("reloaded"))
                    await it.seen("reloaded", count + 1)
                    assert await keyed(it) == 200
            await asyncio.sleep(2)
            assert requested(sandbox) == len(NAMES), "keys rotate without a token request"
            for it in fleet:
                assert await it.metric("gatepass_store_undecryptable_records_total") == 0
                assert await it.metric("gatepass_store_up") == 1
                failed = 'gatepass_store_command_duration_seconds_count{outcome="failed"}'
                assert await it.metric(failed) == 0, "a right was missing"
                assert "CANARY" not in it.text


def client(sha256: str) -> dict[str, Any]:
    return {
        "name": "web",
        "key_sha256": sha256,
        "budgets": [{"route": "idfy", "per": "day", "hard": 1000}],
        "limits": [{"rate": 1000, "in_flight": 100}],
    }


async def keyed(it: Served) -> int:
    """Send one GET with the client's key and return the status."""
    app = await connect(it.address)
    try:
        await app.send(get("/idfy/sandbox/status/200", f"X-Gatepass-Key: {CLIENT_KEY}"))
        return (await app.message()).status
    finally:
        app.close()
