"""The client of the shared store in each kind of outage: it notices, sends no command twice, and recovers."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.clock import SystemClock
from gateway.errors import StoreAway
from gateway.model import Address, Secret, StoreServer
from gateway.observe import Metrics
from gateway.store import Script, SharedStore
from gateway.store.look import look
from tests.kit.faults import FaultProxy
from tests.kit.metrics import sample
from tests.kit.rights import PASSWORD, commands, rights
from tests.kit.served import until
from tests.kit.storeclient import COUNT, GET, SET, away, back, client, config
from tests.kit.valkey import ENGINES, Engine, store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_hung_store_counts_as_away_until_it_answers(engine: Engine, tmp_path: Path) -> None:
    changes: list[bool] = []
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        it.on_change(changes.append)
        server.pause()
        await away(it)
        server.go_on()
        await back(it)
        assert changes == [False, True]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_store_that_is_killed_counts_as_away_until_it_is_restarted_empty(
    engine: Engine, tmp_path: Path
) -> None:
    """It has lost the scripts, so each is sent again with its text."""
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        assert await it.run(COUNT, [it.key("n")], []) == 1
        await server.kill()
        await away(it)
        await server.start()
        await back(it)


async def test_a_flushed_store_stays_up_and_the_loss_is_reported(tmp_path: Path) -> None:
    lost: list[int] = []
    async with store(tmp_path) as server, client(config(server.port)) as it:
        it.on_loss(lambda: lost.append(1))
        await it.run(COUNT, [it.key("n")], [])
        await it.beat()
        assert not lost
        await server.command("FLUSHALL")
        await server.command("SCRIPT", "FLUSH")
        assert await it.run(COUNT, [it.key("n")], []) == 1
        await it.beat()
        assert it.is_up
        assert lost == [1]
        await it.beat()
        assert lost == [1]


@pytest.mark.slow
async def test_a_store_counts_as_away_while_it_is_slower_than_the_time_out(tmp_path: Path) -> None:
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        proxy.delay = 2.0
        await away(it)
        await proxy.heal()
        await back(it)


@pytest.mark.slow
async def test_an_unreachable_store_counts_as_away_until_it_can_be_reached(tmp_path: Path) -> None:
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        proxy.hang()
        await away(it)
        await proxy.heal()
        await back(it)
        await proxy.refuse()
        await away(it)
        await proxy.heal()
        await back(it)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_full_store_counts_as_away_although_it_answers_reads(engine: Engine, tmp_path: Path) -> None:
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        await server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await server.command("CONFIG", "SET", "maxmemory", "1")
        while it.is_up:  # reads succeed, but must not make it count as up
            try:
                await it.run(GET, [it.key("x")], [])
            except StoreAway:
                break
            await asyncio.sleep(0.02)
        await away(it)
        await server.command("CONFIG", "SET", "maxmemory", "0")
        await back(it)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_read_only_replica_counts_as_away(engine: Engine, tmp_path: Path) -> None:
    async with (
        store(tmp_path, engine) as server,
        store(tmp_path, engine) as other,
        client(config(server.port)) as it,
    ):
        await server.command("REPLICAOF", "127.0.0.1", other.port)
        await away(it)
        await server.command("REPLICAOF", "NO", "ONE")
        await back(it)


@pytest.mark.parametrize("engine", ENGINES)
async def test_with_a_wrong_password_the_store_is_away_until_the_file_has_the_right_one(
    engine: Engine, tmp_path: Path
) -> None:
    """The file is read for each connection, without a reload."""
    file = tmp_path / "password"
    file.write_text("CANARY-wrong\n")
    async with (
        store(tmp_path, engine, "--requirepass", "CANARY-right") as server,
        client(config(server.port, password=Secret("CANARY-wrong"), password_file=file)) as it,
    ):
        assert not it.is_up
        file.write_text("CANARY-right\n")
        await back(it)


async def test_a_file_of_the_store_that_cannot_be_read_is_named_as_the_reason(tmp_path: Path) -> None:
    password, ca_file, empty = tmp_path / "password", tmp_path / "ca.pem", tmp_path / "empty.pem"
    empty.write_text("nothing")
    async with store(tmp_path) as server:
        tls = StoreServer((Address("127.0.0.1", server.port),), tls=True)
        for settings, reason in (
            (config(server.port, password_file=password), f"the password's file {password}: no such file or directory"),
            (config(server.port, server=tls, ca_file=ca_file), f"store.ca_file {ca_file}: no such file or directory"),
            (config(server.port, server=tls, ca_file=empty), f"store.ca_file {empty}: no certificate in it"),
        ):
            async with client(settings) as it:
                assert it.status().reason == reason
            with pytest.raises(StoreAway, match=re.escape(reason)):
                await look(settings)


async def test_a_password_that_the_store_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("CANARY-one")
    async with (
        store(tmp_path, "valkey", "--requirepass", "CANARY-one") as server,
        client(config(server.port, password=Secret("CANARY-one"), password_file=file)) as it,
    ):
        assert it.is_up
        await server.command("CONFIG", "SET", "requirepass", "CANARY-two", login=("CANARY-one",))
        file.write_text("CANARY-two")
        await server.command("CLIENT", "KILL", "TYPE", "normal", login=("CANARY-two",))
        await back(it)


async def test_a_command_is_never_sent_twice(tmp_path: Path) -> None:
    """If the answer is lost after the command ran, the caller gets StoreAway, and the command is not repeated."""
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        assert await it.run(COUNT, [it.key("n")], []) == 1
        proxy.delay = 0.6
        with pytest.raises(StoreAway):
            await it.run(COUNT, [it.key("n")], [])
        await proxy.heal()
        await asyncio.sleep(0.5)
        assert await server.command("GET", it.key("n")) == b"2"


async def test_a_start_without_a_store_is_noticed_within_half_a_second(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        server.pause()
        it = SharedStore(config(server.port), clock=SystemClock(), metrics=Metrics())
        await it.start()
        began = asyncio.get_running_loop().time()
        await it.tried.wait()
        assert asyncio.get_running_loop().time() - began < 0.7
        assert not it.is_up
        await it.stop()


async def test_a_late_answer_is_never_read_as_the_answer_to_another_command(tmp_path: Path) -> None:
    """The connection of a cancelled or late command is closed."""
    slow = Script("slow", "local i = 0; while i < tonumber(ARGV[1]) do i = i + 1 end; return 'slow'")
    async with store(tmp_path) as server, client(config(server.port)) as it:
        task = asyncio.create_task(it.run(slow, [], [20_000_000]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, StoreAway)):
            await task
        await until(lambda: it.is_up, 10)
        for _ in range(20):
            try:
                assert await it.run(SET, [it.key("x")], ["mine"]) == b"mine"
            except StoreAway:
                await asyncio.sleep(0.1)


# --------------------------------------------------------------------------------------------------------------- rights

IN_SCRIPTS = sorted(set(commands()) - {"subscribe", "select", "role"})


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_store_whose_user_lacks_any_right_of_the_scripts_is_away_from_the_start(
    engine: Engine, tmp_path: Path
) -> None:
    """Even if heartbeats do not need that right."""
    async with store(tmp_path, engine) as server:
        for missing in IN_SCRIPTS:
            await server.command("ACL", "SETUSER", missing, *rights("gatepass"), f"-{missing}")
            await server.command("SCRIPT", "FLUSH")
            with capture_logs() as events:
                async with client(config(server.port, username=missing, password=Secret(PASSWORD))) as it:
                    assert not it.is_up, missing
            reasons = [each["reason"] for each in events if each["event"] == "store_away"]
            assert len(reasons) == 1
            assert re.fullmatch(
                "NOPERM .*|ACL failure in script: .*|The user executing the script can't .*", reasons[0]
            )
            assert "user_script" not in reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_right_that_is_withdrawn_makes_the_store_away_until_it_is_granted_again(
    engine: Engine, tmp_path: Path
) -> None:
    async with store(tmp_path, engine) as server:
        await server.command("ACL", "SETUSER", "narrow", *rights("gatepass"), "+incr")
        async with client(config(server.port, username="narrow", password=Secret(PASSWORD))) as it:
            write = Script("write", "return redis.call('HSET', KEYS[1], 'a', 'b')")
            assert await it.run(write, [it.key("h")], []) == 1
            await server.command("ACL", "SETUSER", "narrow", "-hset")
            with capture_logs() as events:
                with pytest.raises(StoreAway, match=r"(?i)script"):
                    await it.run(write, [it.key("h")], [])
                await away(it, 5.0)
                await asyncio.sleep(2.5)
                assert not it.is_up, "heartbeats that succeed do not bring it back"
            assert [each["event"] for each in events] == ["store_command_failed", "store_away"]
            await server.command("ACL", "SETUSER", "narrow", "+hset")
            await back(it)


async def test_a_command_that_fails_is_logged_once_until_it_has_succeeded(tmp_path: Path) -> None:
    metrics = Metrics()
    async with store(tmp_path) as server, client(config(server.port), metrics) as it:
        wrong = Script("wrong", "return redis.call('HGETALL', KEYS[1])")
        with capture_logs() as events:
            for times in (1, 2):
                await server.command("SET", it.key("x"), "text")
                for _ in range(3):
                    with pytest.raises(StoreAway, match="WRONGTYPE"):
                        await it.run(wrong, [it.key("x")], [])
                assert [(each["event"], each["script"]) for each in events] == [
                    ("store_command_failed", "wrong")
                ] * times
                await server.command("DEL", it.key("x"))
                await it.run(wrong, [it.key("x")], [])
        assert "WRONGTYPE" in events[0]["reason"]
        assert it.is_up
        assert sample(metrics, "gatepass_store_command_duration_seconds_count", {"outcome": "failed"}) == 6


@pytest.mark.slow
async def test_a_subscription_that_is_refused_is_logged_once_and_the_store_stays_up(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        await server.command("ACL", "SETUSER", "narrow", *rights("gatepass"), "-subscribe")
        with capture_logs() as events:
            async with client(config(server.port, username="narrow", password=Secret(PASSWORD))) as it:
                await asyncio.sleep(2.5)
                assert it.is_up
                assert [each["event"] for each in events] == ["store_up", "store_not_subscribed"]
                assert events[1]["reason"].startswith("NOPERM")
                await server.command("ACL", "SETUSER", "narrow", "+subscribe")
                await until(lambda: not it._subscriber.is_cut_off, 5)
