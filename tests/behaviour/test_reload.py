"""A configuration that changes under load: nobody notices; one that is wrong: it is refused, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from gateway.access import hash_key, new_key
from gateway.config import load
from gateway.errors import ConfigError
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.served import Apps, Served, until
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config
    from tests.kit.wire import Peer


def loaded(folder: Path, config: dict[str, Any], **top: Any) -> Config:
    path = folder / "next.yaml"
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, **top, **config}))
    return load([path], environ={"CANARY": CANARY})


# ------------------------------------------------------------------------------------------------------ without loss


async def test_fifty_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    """Routes, clients and credentials come, go and change; the route that is called stays."""
    async with vendor(answering(ok())) as it:
        key = "5" * 64

        def config(turn: int) -> dict[str, Any]:
            config = one_route(it.port, timeouts={"first_byte": 5 + turn % 3}, pool={"size": 100 + turn % 2})
            config["credentials"][f"extra{turn}"] = {"static": {"token": f"CANARY-{turn}"}}
            config["routes"][f"other{turn % 3}"] = {
                "credential": f"extra{turn}",
                "upstream": f"http://127.0.0.1:{it.port}",
            }
            clients = [{"name": f"app{turn}", "key_sha256": f"{turn:x}".rjust(64, "a")}] if turn % 2 else []
            return {**config, "access": "open", "clients": [*clients, {"name": "x", "key_sha256": key}]}

        async with (
            Served(tmp_path, config(0), environ={"CANARY": CANARY}) as gateway,
            Apps(gateway.address, "/v/x", apps=8, pause=0.012) as kept,
            Apps(gateway.address, "/v/x", apps=2, pause=0.02, kept=False, post=True) as fresh,
        ):
            for turn in range(1, 51):
                gateway.write(config(turn))
                gateway.signal(signal.SIGHUP)
                await gateway.seen("reloaded", turn)
            rate = kept.rate + fresh.rate
            assert gateway.events("reload_refused") == []
            assert await gateway.metric('gatepass_config_loads_total{outcome="ok"}') == 51
        assert not kept.failures, kept.failures
        assert not fresh.failures, fresh.failures
        assert rate > 100
        assert CANARY not in gateway.text


async def test_a_request_in_flight_ends_on_the_configuration_that_it_began_with(tmp_path: Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.message()
        began.set()
        await go_on.wait()
        await peer.send(ok(b"old"))

    async with vendor(slow) as old, vendor(answering(ok(b"new"))) as new, running(one_route(old.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/x"))
        await began.wait()
        await it.gateway.reload(loaded(tmp_path, one_route(new.port)))
        other = await connect(it.address)
        await other.send(get("/v/x"))
        assert (await other.message()).body == b"new"
        go_on.set()
        assert (await app.message()).body == b"old"


async def test_time_outs_hold_for_requests_that_a_reload_has_left_behind(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def hangs(peer: Peer) -> None:
        await peer.message()
        began.set()
        await peer.at_end()

    timeouts = {"first_byte": 0.3}
    async with vendor(hangs) as old, running(one_route(old.port, timeouts=timeouts)) as it:
        app = await connect(it.address)
        await app.send(get("/v/x"))
        await began.wait()
        await it.gateway.reload(loaded(tmp_path, one_route(old.port, pool={"size": 3})))
        assert (await app.message()).status == 504


async def test_a_pool_whose_upstream_stays_is_kept(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(get("/v/x"))
            assert (await app.message()).status == 200
            await it.gateway.reload(loaded(tmp_path, one_route(it_vendor.port, max_body="1KiB")))
        assert it_vendor.connections == 1


async def test_limits_are_taken_up_and_addresses_are_told_to_need_a_restart(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        config = loaded(tmp_path, {**one_route(it_vendor.port), "limits": {"head_bytes": 300}}, listen="127.0.0.1:1")
        await it.gateway.reload(config)
        app = await connect(it.address)
        await app.send(get("/v/x", "X-Long: " + "x" * 400))
        assert (await app.message()).status == 431
        assert '"keys":["listen"]' in it.log


async def test_a_port_that_others_reach_is_never_opened_by_a_reload(tmp_path: Path) -> None:
    """`listen: loopback` lets anyone call without a key; the running port is what counts."""
    async with vendor(answering(ok())) as it_vendor:
        wide = {**one_route(it_vendor.port), "clients": [{"name": "a", "key_sha256": "0" * 64}]}
        text = yaml.safe_dump(wide)
        async with running(text) as it:
            it.gateway.data_address = ("0.0.0.0", it.address[1])
            with pytest.raises(ConfigError, match="without a key"):
                await it.gateway.reload(loaded(tmp_path, one_route(it_vendor.port)))
            assert it.gateway.config.clients
            it.gateway.data_address = ("127.0.0.1", it.address[1])


# ------------------------------------------------------------------------------------------------- a wrong one, files


async def test_a_wrong_configuration_is_refused_with_file_and_line_and_the_old_one_goes_on(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        config = one_route(it_vendor.port)
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            good = gateway.path.read_text()
            async with Apps(gateway.address, "/v/x", apps=2) as apps:
                gateway.write(good + "unknown_key: 1\n")
                refused = await gateway.seen("reload_refused")
                line = good.count("\n") + 1
                assert refused["problems"] == [f"{gateway.path}:{line}: unknown_key: unknown key"]
                assert await gateway.metric('gatepass_config_loads_total{outcome="failed"}') >= 1
                gateway.write(good + "replay_budget: 1MiB\n")  # no signal: the file is watched, still
                await gateway.seen("reloaded")
            assert not apps.failures, apps.failures
            assert apps.good > 10


async def test_a_swapped_secret_is_seen_within_a_second(tmp_path: Path) -> None:
    """As Kubernetes does it: files behind a link to a folder, and the link is replaced."""
    for name, secret in (("one", "CANARY-one"), ("two", "CANARY-two")):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "key").write_text(secret)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "key").symlink_to("..data/key")
    tokens: list[bytes] = []

    async def echo(peer: Peer) -> None:
        while True:
            tokens.append((await peer.message()).one("Authorization"))
            await peer.send(ok())

    async with vendor(echo) as it_vendor:
        config = one_route(it_vendor.port)
        config["credentials"] = {"key": {"static": {"token": f"${{file:{tmp_path}/key}}"}}}
        async with Served(tmp_path, config) as gateway, Apps(gateway.address, "/v/x", apps=1) as apps:
            await until(lambda: b"Bearer CANARY-one" in tokens)
            (tmp_path / "..next").symlink_to("..two")
            (tmp_path / "..next").rename(tmp_path / "..data")
            assert await until(lambda: b"Bearer CANARY-two" in tokens) < 1.2
        assert not apps.failures, apps.failures
        assert "CANARY" not in gateway.text
        (warning,) = gateway.events("secret_file_open")
        assert (warning["path"], warning["mode"]) == (f"{tmp_path}/key", "-rw-r--r--")


@pytest.mark.long
async def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    async with (
        vendor(answering(ok())) as it_vendor,
        Served(tmp_path, one_route(it_vendor.port), environ={"CANARY": CANARY}) as gateway,
    ):
        text = gateway.path.read_text() + "replay_budget: 2MiB\n"
        with gateway.path.open("w") as file:
            for start in range(0, len(text), 40):
                file.write(text[start : start + 40])
                file.flush()
                os.fsync(file.fileno())
                await asyncio.sleep(0.1)
        await gateway.seen("reloaded")
        assert gateway.events("reload_refused") == []


@pytest.mark.long
async def test_a_reload_that_changes_nothing_is_none(tmp_path: Path) -> None:
    async with (
        vendor(answering(ok())) as it_vendor,
        Served(tmp_path, one_route(it_vendor.port), environ={"CANARY": CANARY}) as gateway,
    ):
        os.utime(gateway.path, (time.time() + 5, time.time() + 5))
        await asyncio.sleep(1.0)
        assert gateway.events("reloaded") == []
        assert json.loads((await gateway.ask("/readyz"))[1])["state"] == "ready"


async def test_the_admin_port_reloads_for_whoever_has_a_key_and_says_what_is_wrong(tmp_path: Path) -> None:
    key = new_key()
    async with vendor(answering(ok())) as it_vendor:
        config = {**one_route(it_vendor.port), "admin_keys_sha256": [hash_key(key)]}
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{gateway.admin_port}/reload"
            async with session.post(url) as answer:
                assert answer.status == 401
            bearer = {"Authorization": f"Bearer {key}"}
            gateway.write(config, replay_budget="3MiB")
            async with session.post(url, headers=bearer) as answer:
                assert (answer.status, await answer.json()) == (200, {"reloaded": True, "problems": []})
            gateway.write(config, replay_budget="many")
            async with session.post(url, headers=bearer) as answer:
                assert answer.status == 409
                (problem,) = (await answer.json())["problems"]
            assert "replay_budget: must be a size" in problem
            status = json.loads((await gateway.ask("/status.json"))[1])
            assert status["config"]["problems"] == [problem]
            await gateway.seen("reloaded")
