"""`gatepass check` with a shared store: it connects, and prints what it found or what is wrong."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from gateway.errors import StoreAway
from gateway.model import Secret
from gateway.store import Sealing
from gateway.store.look import look
from tests.kit.configuration import ROOT
from tests.kit.rights import PASSWORD, commands, rights
from tests.kit.storeclient import client, config
from tests.kit.valkey import ENGINES, STORE_KEY, TLS, Engine, Store, block, store

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "credentials": {"a": {"static": {"token": "CANARY-static"}}},
    "routes": {"a": {"credential": "a", "upstream": "https://api.example.com"}},
}


async def check(folder: Path, **keys: object) -> tuple[int, str]:
    """Run `gatepass check` with a `store` block; return its status and what it printed."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "store": keys}))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "check", "-c", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    out, _ = await asyncio.wait_for(child.communicate(), 120)
    assert b"CANARY" not in out
    return child.returncode or 0, out.decode()


async def put_record(server: Store, key: str, fence: int, place: bytes | None = None) -> None:
    """Write a token as an instance with this key does."""
    name = Sealing([Secret(key)], "gatepass").name("cache key")
    sealed = Sealing([Secret(key)], "gatepass").seal(b"{}", place or f"{name}|{fence}".encode())
    await server.command("HSET", f"gp1:gatepass:{{{name}}}:t", "f", fence, "x", 1, "c", sealed)


@pytest.mark.parametrize("engine", ENGINES)
async def test_check_prints_the_engine_latency_members_and_records(engine: Engine, tmp_path: Path) -> None:
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        await it.beat()
        await put_record(server, STORE_KEY, 7)
        status, said = await check(tmp_path, **block(server))
        assert status == 0, said
        version = (await server.statistics())[f"{engine}_version"]
        [line] = [line for line in said.splitlines() if line.startswith("store: ")]
        assert line.startswith(f"store: {engine.capitalize()} {version} at 127.0.0.1:{server.port}, answers in ")
        assert line.endswith(" ms, 1 member, 1 record")


async def test_check_leaves_no_key_and_joins_no_members(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        found = await look(config(server.port))
        assert (found.members, found.records) == (0, 0)
        assert await server.command("KEYS", "*") == []


async def test_check_connects_with_tls(tmp_path: Path) -> None:
    tls = TLS(tmp_path)
    async with store(tmp_path, "redis", tls=tls) as server:
        status, said = await check(tmp_path, **block(server))
        assert status == 0, said
        status, said = await check(tmp_path, **{**block(server), "ca_file": None})
        assert status == 1
        assert "of no use" in said
        assert "certificate" in said


async def test_records_of_another_key_or_place_fail_the_check(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        await put_record(server, STORE_KEY, 1)
        await put_record(server, "CANARY-another-key-0123456789abcdef", 2)
        status, said = await check(tmp_path, **block(server))
        assert status == 1
        assert "store: 1 of 2 records cannot be opened: compare `store.keys`" in said
        await put_record(server, STORE_KEY, 3, place=b"elsewhere|3")
        found = await look(config(server.port))
        assert (found.records, found.undecryptable) == (2, 2)


WRONG = {
    "nobody listens": ("", "connection refused"),
    "no password": ("--requirepass CANARY-right", "NOAUTH"),
    "read-only": ("--replicaof 127.0.0.1 1", "READONLY"),
    "full": ("--maxmemory 1 --maxmemory-policy noeviction", "OOM"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", WRONG)
async def test_an_unusable_store_is_reported_with_the_reason(fault: str, engine: Engine, tmp_path: Path) -> None:
    options, reason = WRONG[fault]
    async with store(tmp_path, engine, *options.split()) as server:
        if not options:
            await server.kill()
        with pytest.raises(StoreAway, match=reason):
            await look(config(server.port))


async def test_a_wrong_password_is_reported_but_not_printed(tmp_path: Path) -> None:
    async with store(tmp_path, "valkey", "--requirepass", "CANARY-right") as server:
        status, said = await check(tmp_path, **block(server, password="CANARY-wrong"))
        assert status == 1
        assert f"store: 127.0.0.1:{server.port} is of no use: WRONGPASS" in said


async def test_a_hung_store_does_not_hang_the_check(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        server.pause()
        with pytest.raises(StoreAway, match="no answer in time"):
            await asyncio.wait_for(look(config(server.port)), 5)


async def test_a_user_without_info_and_scan_gets_the_other_findings(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        await server.command("ACL", "SETUSER", "narrow", *rights("gatepass"))
        found = await look(config(server.port, username="narrow", password=Secret(PASSWORD)))
        assert (found.engine, found.complete) == ("a server", False)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_right_that_is_missing_fails_the_check(engine: Engine, tmp_path: Path) -> None:
    """Only a database other than 0 needs SELECT, and only Sentinels need ROLE."""
    async with store(tmp_path, engine) as server:
        for missing in sorted(set(commands()) - {"select", "role"}):
            await server.command("ACL", "SETUSER", missing, *rights("gatepass"), f"-{missing}")
            with pytest.raises(StoreAway, match=r"NOPERM|script"):
                await look(config(server.port, username=missing, password=Secret(PASSWORD)))
