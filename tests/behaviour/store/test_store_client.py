"""The client of the shared store, against a real Valkey and a real Redis: commands, members, news, and every outage."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.clock import SystemClock
from gateway.errors import StoreAway, Undecryptable
from gateway.model import Address, Secret, StoreConfig, StoreServer
from gateway.observe import Metrics
from gateway.store import Script, SharedStore
from tests.kit.faults import FaultProxy
from tests.kit.metrics import sample
from tests.kit.served import until
from tests.kit.valkey import ENGINES, STORE_KEY, Engine, Store, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SET = Script("set", "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
TELL = Script("tell", "return redis.call('PUBLISH', ARGV[1], ARGV[2])")
COUNT = Script("count", "return redis.call('INCR', KEYS[1])")


def config(port: int, **keys: object) -> StoreConfig:
    whole = StoreConfig(StoreServer((Address("127.0.0.1", port),)), (Secret(STORE_KEY),))
    return replace(whole, **keys)  # type: ignore[arg-type]


@asynccontextmanager
async def client(settings: StoreConfig, metrics: Metrics | None = None) -> AsyncIterator[SharedStore]:
    it = SharedStore(settings, clock=SystemClock(), metrics=metrics or Metrics())
    await it.start()
    try:
        await asyncio.wait_for(it.tried.wait(), 30)
        yield it
    finally:
        await it.stop()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_script_runs_in_one_round_trip_and_its_text_is_sent_once(engine: Engine, tmp_path: Path) -> None:
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        assert it.is_up
        assert await it.run(SET, [it.key("x")], ["1"]) == b"1"
        assert await it.run_many([(SET, [it.key("x")], ["2"]), (COUNT, [it.key("n")], [])]) == [b"2", 1]
        calls = {name: value for name, value in (await server.statistics()).items() if "cmdstat_eval" in name}
        assert calls["cmdstat_eval"].startswith("calls=3,")  # SET, COUNT and the heartbeat; all else by hash


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_error_of_one_script_is_no_outage(engine: Engine, tmp_path: Path) -> None:
    wrong = Script("wrong", "return redis.call('HGET', KEYS[1], 'f')")
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        await it.run(SET, [it.key("x")], ["1"])
        for _ in range(5):
            with pytest.raises(StoreAway, match="WRONGTYPE"):
                await it.run(wrong, [it.key("x")], [])
        assert it.is_up


async def test_members_are_counted_ranked_and_forgotten(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one:
        async with client(config(server.port)) as other:
            await until(lambda: one.members == other.members == 2, 5)
            assert {one.rank, other.rank} == {0, 1}
        assert await until(lambda: one.members == 1, 5) < 5


async def test_a_member_that_dies_is_gone_within_five_seconds(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one:
        other = SharedStore(config(server.port), clock=SystemClock(), metrics=Metrics())
        await other.start()
        await until(lambda: one.members == 2, 5)
        for task in other._tasks:
            task.cancel()
        assert await until(lambda: one.members == 1, 8) <= 5
        await other._wires.close()


async def test_news_is_heard_at_once_by_all_who_listen_for_that_name(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one, client(config(server.port)) as other:
        heard: list[str] = []
        await until(lambda: not one._subscriber.is_deaf, 10)
        one.listen(one.name("a"), lambda: heard.append("a"))
        stop = one.listen(one.name("a"), lambda: heard.append("stopped"))
        one.listen(one.name("b"), lambda: heard.append("b"))
        stop()
        await other.run(TELL, [], [other.channel, other.name("a")])
        assert await until(lambda: bool(heard), 5) < 0.5
        assert heard == ["a"]


async def test_with_silent_news_everybody_is_told_within_four_seconds(tmp_path: Path) -> None:
    """The connection of news looks healthy and carries nothing, as a hung master's did; commands work."""
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        heard: list[int] = []
        await until(lambda: not it._subscriber.is_deaf, 10)
        it.listen(it.name("a"), lambda: heard.append(1))
        proxy.mute()
        assert await until(lambda: bool(heard), 10) < 4
        assert it.is_up
        await proxy.heal()
        await until(lambda: not it._subscriber.is_deaf, 10)


# ----------------------------------------------------------------------------------------------------------- outages


async def away(it: SharedStore, within: float = 3.0) -> None:
    await until(lambda: not it.is_up, within)
    with pytest.raises(StoreAway):
        await it.run(COUNT, [it.key("n")], [])


async def back(it: SharedStore, within: float = 6.0) -> None:
    await until(lambda: it.is_up, within)
    assert await it.run(COUNT, [it.key("n")], []) >= 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_hung_store_is_away_and_comes_back(engine: Engine, tmp_path: Path) -> None:
    changes: list[bool] = []
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        it.on_change(changes.append)
        server.pause()
        await away(it)
        server.go_on()
        await back(it)
        assert changes == [False, True]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_store_that_ends_is_away_and_comes_back_empty(engine: Engine, tmp_path: Path) -> None:
    """The scripts are gone with it; each is sent again with its text."""
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        assert await it.run(COUNT, [it.key("n")], []) == 1
        await server.kill()
        await away(it)
        await server.start()
        await back(it)


async def test_a_flushed_store_is_no_outage_but_a_loss(tmp_path: Path) -> None:
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


async def test_a_store_slower_than_the_time_out_is_away_while_it_is(tmp_path: Path) -> None:
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        proxy.delay = 2.0
        await away(it)
        await proxy.heal()
        await back(it)


async def test_a_partitioned_store_is_away_and_comes_back(tmp_path: Path) -> None:
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
async def test_a_full_store_is_away_although_it_answers_reads(engine: Engine, tmp_path: Path) -> None:
    get = Script("get", "return redis.call('GET', KEYS[1])")
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        await server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await server.command("CONFIG", "SET", "maxmemory", "1")
        while it.is_up:  # reads go on all the time, and are no reason to trust it
            try:
                await it.run(get, [it.key("x")], [])
            except StoreAway:
                break
            await asyncio.sleep(0.02)
        await away(it)
        await server.command("CONFIG", "SET", "maxmemory", "0")
        await back(it)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_read_only_replica_is_away(engine: Engine, tmp_path: Path) -> None:
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
async def test_a_wrong_password_is_away_until_the_file_has_the_right_one(engine: Engine, tmp_path: Path) -> None:
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
    """The answer is lost after the command was carried out: its caller learns that, and nobody repeats it."""
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        assert await it.run(COUNT, [it.key("n")], []) == 1
        proxy.delay = 0.6
        with pytest.raises(StoreAway):
            await it.run(COUNT, [it.key("n")], [])
        await proxy.heal()
        await asyncio.sleep(0.5)
        assert await server.command("GET", it.key("n")) == b"2"


async def test_a_start_without_a_store_is_known_after_half_a_second(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        server.pause()
        it = SharedStore(config(server.port), clock=SystemClock(), metrics=Metrics())
        await it.start()
        began = asyncio.get_running_loop().time()
        await it.tried.wait()
        assert asyncio.get_running_loop().time() - began < 0.7
        assert not it.is_up
        await it.stop()


async def test_an_answer_that_comes_too_late_is_nobody_else_s(tmp_path: Path) -> None:
    """A cancelled or late command takes its connection with it."""
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


# -------------------------------------------------------------------------------------------------- keys, metrics


async def test_a_record_opens_for_its_place_only_and_a_failure_is_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    async with store(tmp_path) as server, client(config(server.port), metrics) as it:
        sealed = it.seal(b"CANARY", b"h|1")
        assert it.unseal(sealed, b"h|1") == b"CANARY"
        with pytest.raises(Undecryptable):
            it.unseal(sealed, b"h|2")
        assert sample(metrics, "gatepass_store_undecryptable_records_total", {}) == 1


async def test_metrics_show_whether_the_store_is_up(tmp_path: Path) -> None:
    metrics = Metrics()
    async with store(tmp_path) as server, client(config(server.port), metrics) as it:
        assert sample(metrics, "gatepass_store_up", {}) == 1
        assert sample(metrics, "gatepass_store_mode", {"mode": "shared"}) == 1
        server.pause()
        await away(it)
        assert sample(metrics, "gatepass_store_up", {}) == 0
        assert sample(metrics, "gatepass_store_mode", {"mode": "alone"}) == 1
        silence = sample(metrics, "gatepass_store_silence_seconds", {})
        assert silence is not None
        assert silence > 0.5
        failed = sample(metrics, "gatepass_store_command_duration_seconds_count", {"outcome": "failed"})
        assert failed is not None
        assert failed >= 3


async def test_a_reload_changes_password_and_server(tmp_path: Path) -> None:
    async with (
        store(tmp_path) as first,
        store(tmp_path, "valkey", "--requirepass", "CANARY-2") as second,
        client(config(first.port)) as it,
    ):
        it.use(config(second.port, password=Secret("CANARY-2"), namespace="other"))
        assert await it.run(COUNT, [it.key("n")], []) == 1
        assert await second.command("GET", "gp1:other:n", login=("CANARY-2",)) == b"1"


async def test_a_client_leaves_nothing_open(tmp_path: Path) -> None:
    async with store(tmp_path) as server:
        before = await _clients(server)
        async with client(config(server.port)) as it:
            await asyncio.gather(*(it.run(COUNT, [it.key("n")], []) for _ in range(50)))
            assert await _clients(server) <= before + 9
        await asyncio.sleep(0.1)
        assert await _clients(server) == before


async def _clients(server: Store) -> int:
    return int((await server.statistics())["connected_clients"])
