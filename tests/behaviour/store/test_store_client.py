"""The client of the shared store, with a real Valkey and a real Redis: commands, members, messages, keys, metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.clock import SystemClock
from gateway.errors import StoreAway, Undecryptable
from gateway.model import Secret
from gateway.observe import Metrics
from gateway.store import Script, SharedStore
from tests.kit.faults import FaultProxy
from tests.kit.metrics import sample
from tests.kit.served import until
from tests.kit.storeclient import COUNT, SET, TELL, away, client, config
from tests.kit.valkey import ENGINES, STORE_KEY, Engine, Store, store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_script_runs_in_one_round_trip_and_its_text_is_sent_once(engine: Engine, tmp_path: Path) -> None:
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        assert it.is_up
        assert await it.run(SET, [it.key("x")], ["1"]) == b"1"
        assert await it.run_many([(SET, [it.key("x")], ["2"]), (COUNT, [it.key("n")], [])]) == [b"2", 1]
        calls = {name: value for name, value in (await server.statistics()).items() if "cmdstat_eval" in name}
        assert calls["cmdstat_eval"].startswith("calls=4,")  # SET, COUNT and two of the first heartbeat; later EVALSHA


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_error_of_one_script_does_not_count_as_an_outage(engine: Engine, tmp_path: Path) -> None:
    wrong = Script("wrong", "return redis.call('HGET', KEYS[1], 'f')")
    async with store(tmp_path, engine) as server, client(config(server.port)) as it:
        await it.run(SET, [it.key("x")], ["1"])
        for _ in range(5):
            with pytest.raises(StoreAway, match="WRONGTYPE"):
                await it.run(wrong, [it.key("x")], [])
        assert it.is_up


async def test_members_are_counted_and_ranked_and_leave(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one:
        async with client(config(server.port)) as other:
            await until(lambda: one.members == other.members == 2, 5)
            assert {one.rank, other.rank} == {0, 1}
        assert await until(lambda: one.members == 1, 5) < 5


@pytest.mark.slow
async def test_a_member_that_dies_is_gone_within_five_seconds(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one:
        other = SharedStore(config(server.port), clock=SystemClock(), metrics=Metrics())
        await other.start()
        await until(lambda: one.members == 2, 5)
        for task in other._tasks:
            task.cancel()
        assert await until(lambda: one.members == 1, 8) <= 5
        await other._wires.close()


async def test_a_message_calls_all_listeners_of_its_name_at_once(tmp_path: Path) -> None:
    async with store(tmp_path) as server, client(config(server.port)) as one, client(config(server.port)) as other:
        heard: list[str] = []
        await until(lambda: not one._subscriber.is_cut_off, 10)
        one.listen(one.name("a"), lambda: heard.append("a"))
        stop = one.listen(one.name("a"), lambda: heard.append("stopped"))
        one.listen(one.name("b"), lambda: heard.append("b"))
        stop()
        await other.run(TELL, [], [other.channel, other.name("a")])
        assert await until(lambda: bool(heard), 5) < 0.5
        assert heard == ["a"]


@pytest.mark.slow
async def test_if_no_messages_arrive_all_listeners_are_called_within_four_seconds(tmp_path: Path) -> None:
    """The subscriber's connection looks healthy but no message arrives, as with a hung master; commands work."""
    async with store(tmp_path) as server, FaultProxy(server.port) as proxy, client(config(proxy.port)) as it:
        heard: list[int] = []
        await until(lambda: not it._subscriber.is_cut_off, 10)
        it.listen(it.name("a"), lambda: heard.append(1))
        proxy.mute()
        assert await until(lambda: bool(heard), 10) < 4
        assert it.is_up
        await proxy.heal()
        await until(lambda: not it._subscriber.is_cut_off, 10)


async def test_a_record_is_decrypted_only_at_its_place_and_a_failure_is_counted(tmp_path: Path) -> None:
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


MOVES: dict[str, dict[str, object]] = {
    "a key is put before the others": {"keys": (Secret("CANARY-new-key-0123456789abcdefghij"), Secret(STORE_KEY))},
    "another last key": {"keys": (Secret("CANARY-new-key-0123456789abcdefghij"),)},
    "another namespace": {"namespace": "other"},
}


@pytest.mark.parametrize("change", MOVES.values(), ids=MOVES)
async def test_after_a_reload_everything_is_written_again_and_no_loss_is_logged(
    change: dict[str, object], tmp_path: Path
) -> None:
    written: list[int] = []
    with capture_logs() as events:
        async with store(tmp_path) as server, client(config(server.port)) as it:
            it.on_loss(lambda: written.append(1))
            await it.beat()
            for settings, times in ((config(server.port), 0), (config(server.port, **change), 1)):
                it.use(settings)
                await it.beat()
                await it.beat()
                assert len(written) == times
    assert [each["event"] for each in events] == ["store_up"]


async def test_a_client_stops_at_every_moment_of_its_start(tmp_path: Path) -> None:
    """Also while a command is being sent, where a library's own time-out can lose a cancellation."""
    async with store(tmp_path) as server:
        for turns in range(120):
            it = SharedStore(config(server.port), clock=SystemClock(), metrics=Metrics())
            await it.start()
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.create_task(it.stop())
            done, _ = await asyncio.wait((stopping,), timeout=10)
            assert done, f"it does not stop when it has run for {turns} turns of the event loop"


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
