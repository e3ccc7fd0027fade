"""What deploy/ ships for several instances, run for real: Valkey with its file and ACL, and the balancer."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.budgets import PATIENT, App, counting_together, reach
from tests.kit.configuration import ROOT
from tests.kit.instances import call, instances, vendors, vendors_config
from tests.kit.ports import free_port
from tests.kit.served import accepts, until
from tests.kit.tools import SBIN, tool
from tests.kit.valkey import Store, block, store, valkey_program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.kit.served import Served

VALKEY, BALANCER = ROOT / "deploy" / "valkey", ROOT / "deploy" / "compose" / "balancer" / "haproxy.cfg"
BILLED = 'gatepass_client_billed_calls_total{client="web",route="v"}'
PASSWORD = "CANARY-store-password"


@asynccontextmanager
async def shipped_valkey(folder: Path) -> AsyncIterator[Store]:
    """Run Valkey with the shipped file and users."""
    acl = (VALKEY / "users.acl").read_text().replace("PASSWORD_SHA256", sha256(PASSWORD.encode()).hexdigest())
    own = "\nuser test on nopass allkeys allchannels +@all\n"  # for the test itself
    (folder / "users.acl").write_text(acl + own)
    text = (VALKEY / "valkey.conf").read_text().replace("/etc/valkey/users.acl", str(folder / "users.acl"))
    (folder / "valkey.conf").write_text(f"{text}\nport 0\n")
    it = Store("valkey", folder)
    process = await asyncio.create_subprocess_exec(
        valkey_program(),
        str(folder / "valkey.conf"),
        *("--port", str(it.port), "--bind", "127.0.0.1", "--dir", str(folder), "--loglevel", "warning"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: accepts(it.port), 30)
        yield it
    finally:
        process.kill()
        await process.wait()


def allowed() -> set[str]:
    """Return the commands that the shipped ACL allows."""
    return set(re.findall(r"\+(\w+)", (VALKEY / "users.acl").read_text()))


def test_the_acl_names_exactly_the_commands_that_are_used() -> None:
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "gateway" / "store").glob("*.py")))
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", sources))
    used |= set(re.findall(r"(?:wire\.command|send_command)\(\s*\"([A-Z]+)\"", sources))
    used |= set(re.findall(r"return \[\"(EVAL(?:SHA)?)\"", sources))
    used -= {"SENTINEL"}  # is sent to Sentinels
    assert {each.upper() for each in allowed()} == used | {"SELECT"}, "redis-py selects a database other than 0"
    assert len([name for name in dir(import_module("gateway.store.counts")) if name.isupper()]) > 2


@pytest.mark.slow
async def test_under_the_shipped_acl_gateways_share_tokens_and_counts_and_no_command_is_denied(
    tmp_path: Path,
) -> None:
    settings = {"username": "gatepass", "password": PASSWORD}
    (tmp_path / "valkey").mkdir()
    (tmp_path / "tokens").mkdir()
    async with shipped_valkey(tmp_path / "valkey") as server:
        shared: dict[str, Any] = {"store": block(server, **settings, **PATIENT)}
        async with vendors() as sandbox:
            config = vendors_config(sandbox, ["idfy"], **shared)
            async with instances(tmp_path / "tokens", 2, config, sandbox.environ()) as made:
                assert [await call(it, "idfy") for it in made] == [200, 200]
        budget = {"budgets": [{"route": "v", "per": "day", "hard": 100}]}
        async with counting_together(tmp_path, server, 2, budget, **shared) as (made, witness, app):
            await reach(made, "gatepass_store_members", 2)
            await app.load(300)
            assert 98 <= witness.billed <= 100
        denied = await server.command("ACL", "LOG", login=("test", ""))
        assert denied == []
        policy = await server.command("CONFIG", "GET", "maxmemory-policy", login=("test", ""))
        assert policy == [b"maxmemory-policy", b"noeviction"]


def balancer_for(made: list[Served], port: int) -> str:
    """Return the shipped file with the instances of this test instead of those that Compose's DNS knows."""
    text = re.sub(r"resolvers compose\n(?:    .*\n)+", "", BALANCER.read_text())
    for shipped, here in (
        ("bind :8080", f"bind 127.0.0.1:{port}"),
        (" port 9090", ""),
        (" resolvers compose init-addr none", ""),
        ("hdr Host gatepass", "hdr Host 127.0.0.1"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    servers = [f"    server at-{it.port} 127.0.0.1:{it.port} check port {it.admin_port}\n" for it in made]
    return re.sub(r" +server-template .*\n", "".join(servers), text)


class Front:
    """The balancer, as an app sees it."""

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)


@pytest.mark.slow
async def test_a_rolling_restart_behind_the_balancer_fails_no_request(tmp_path: Path) -> None:
    haproxy, port = tool("haproxy", SBIN), free_port()
    client = {"budgets": [{"route": "v", "per": "day", "hard": 100_000}]}
    more: dict[str, Any] = {"trusted_proxies": ["127.0.0.1/32"], "drain": {"grace": "2s"}}
    async with (
        store(tmp_path) as server,
        counting_together(tmp_path, server, 2, client, **more) as (made, witness, _),
    ):
        (tmp_path / "haproxy.cfg").write_text(balancer_for(made, port))
        process = await asyncio.create_subprocess_exec(
            haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg"), stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await until(lambda: accepts(port), 30)
            witness.pause = 0.02
            app = App([])
            over = asyncio.Event()
            load = [asyncio.create_task(app.run(Front(port), over)) for _ in range(4)]
            for it in made:
                it.signal(signal.SIGTERM)
                await it.end()
                await it.start()
                while not await it.metric(BILLED):  # the balancer has not noticed yet that it is back
                    assert not load[0].done()
                    await asyncio.sleep(0.1)
            over.set()
            assert sum(await asyncio.gather(*load)) == witness.billed > 100
            assert app.statuses.keys() == {200}
        finally:
            process.kill()
            await process.wait()
