"""A configuration that changes under load: nobody notices; one that is wrong: it is refused, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme
import yaml

from gateway.access import hash_key, new_key
from gateway.config import load
from gateway.errors import ConfigError
from gateway.model import Client
from gateway.restart import AT_START
from gateway.serving.watch import INTERVAL
from tests.kit.configuration import ROOT
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.served import Apps, Served, until
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config
    from tests.kit.wire import Peer


def loaded(folder: Path, config: dict[str, Any], **top: Any) -> Config:
    path = folder / "next.yaml"
    access = {} if "clients" in config else {"access": "open"}
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, **access, **top, **config}))
    return load([path], environ={"CANARY": CANARY})


# ------------------------------------------------------------------------------------------------------ without loss


def changed(port: int, turn: int) -> dict[str, Any]:
    """Return a configuration in which routes, clients and credentials come, go and change; the route `/v` stays."""
    config = one_route(port, timeouts={"first_byte": 5 + turn % 3}, pool={"size": 100 + turn % 2})
    config["credentials"][f"extra{turn}"] = {"static": {"token": f"CANARY-{turn}"}}
    config["routes"][f"other{turn % 3}"] = {"credential": f"extra{turn}", "upstream": f"http://127.0.0.1:{port}"}
    clients = [{"name": f"app{turn}", "key_sha256": f"{turn:x}".rjust(64, "a")}] if turn % 2 else []
    return {**config, "access": "open", "clients": [*clients, {"name": "x", "key_sha256": "5" * 64}]}


@pytest.mark.slow
async def test_fifty_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it:
        async with (
            Served(tmp_path, changed(it.port, 0), environ={"CANARY": CANARY}) as gateway,
            Apps(gateway.address, "/v/x", apps=8, pause=0.012) as kept,
            Apps(gateway.address, "/v/x", apps=2, pause=0.02, kept=False, post=True) as fresh,
        ):
            for turn in range(1, 51):
                gateway.write(changed(it.port, turn))
                gateway.signal(signal.SIGHUP)
                await gateway.seen("reloaded", turn)
            served = kept.good + fresh.good
            assert gateway.events("reload_refused") == []
            assert await gateway.metric('gatepass_config_loads_total{outcome="ok"}') == 51
        assert not kept.failures, kept.failures
        assert not fresh.failures, fresh.failures
        assert served > 500, "some between any two of them"
        assert CANARY not in gateway.text


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
async def test_fifty_reloads_at_five_hundred_requests_a_second_fail_none(tmp_path: Path) -> None:
    """A load of its own process: 20 connections of 30 requests a second each, for 75 s."""
    async with (
        vendor(answering(ok())) as it,
        Served(tmp_path, changed(it.port, 0), environ={"CANARY": CANARY}, logs={"sample": 0}) as gateway,
    ):
        url = f"http://127.0.0.1:{gateway.port}/v/x"
        began = time.monotonic()
        load = await asyncio.create_subprocess_exec(
            *("h2load", "--h1", "--clients=20", "--rps=30", "--requests=45000", url), stdout=asyncio.subprocess.PIPE
        )
        assert load.stdout is not None
        report = asyncio.create_task(load.stdout.read())
        try:
            for turn in range(1, 51):
                gateway.write(changed(it.port, turn))
                gateway.signal(signal.SIGHUP)
                await gateway.seen("reloaded", turn)
            assert load.returncode is None, "the load ended before the last reload"
            told = (await report).decode()
        finally:
            if load.returncode is None and not report.done():
                load.kill()
        rate = 45_000 / (time.monotonic() - began)
        assert "45000 done, 45000 succeeded, 0 failed, 0 errored, 0 timeout" in told
        assert "status codes: 45000 2xx, 0 3xx, 0 4xx, 0 5xx" in told
        assert gateway.events("reload_refused") == []
        if rate < 500:
            pytest.skip(f"none failed, but this machine had no time for more than {rate:.0f} requests a second")


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


PLANES = {"ask": {"edge": {"routes": ["v"], "request": "path", "uid": 0}}}
AT_THE_START_ONLY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "listen": ({}, {"listen": "127.0.0.1:1"}),
    "admin": ({}, {"admin": "127.0.0.1:1"}),
    "state_file": ({}, {"state_file": "FOLDER/state.json"}),
    "store": ({}, {"store": {"url": "redis://127.0.0.1:1/0", "keys": ["CANARY-store-key-0123456789abcdef"]}}),
    "planes.listen": ({}, {"planes": {"listen": "unix:FOLDER/planes.sock", **PLANES}}),
    "planes.mode": (
        {"planes": {"listen": "unix:FOLDER/planes.sock", **PLANES}},
        {"planes": {"listen": "unix:FOLDER/planes.sock", "mode": "0600", **PLANES}},
    ),
    "logs.format": ({}, {"logs": {"format": "console"}}),
    "logs.buffer": ({}, {"logs": {"format": "json", "buffer": "1MiB"}}),
}


@pytest.mark.parametrize("key", AT_THE_START_ONLY)
async def test_as_long_as_a_restart_is_needed_each_reload_names_the_key(key: str, tmp_path: Path) -> None:
    """And none does when the configuration is again the one that the gateway started with."""

    def written(more: dict[str, Any]) -> dict[str, Any]:
        mine = {"name": "x", "key_sha256": "5" * 64}
        with_folder = json.loads(json.dumps(more).replace("FOLDER", str(tmp_path)))
        return {**one_route(9), "clients": [mine], "logs": {"format": "json"}, **with_folder}

    before, after = (written(each) for each in AT_THE_START_ONLY[key])
    async with running(before) as it:
        for config, times in ((before, 0), (after, 1), ({**after, "replay_budget": "1MiB"}, 2), (before, 2)):
            await it.gateway.reload(loaded(tmp_path, config))
            named = [json.loads(line)["keys"] for line in it.log.splitlines() if '"restart_needed"' in line]
            assert named == [[key]] * times


def test_the_documentation_names_what_only_a_restart_changes() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(AT_THE_START_ONLY) == set(AT_START)
    for key in AT_START:
        assert re.search(rf"^Everything can change while the gateway runs, except .*`{key}`", page, re.MULTILINE), key


async def test_a_port_that_others_reach_is_never_opened_by_a_reload(tmp_path: Path) -> None:
    """`listen: loopback` lets anyone call without a key; the running port is what counts."""
    async with vendor(answering(ok())) as it_vendor:
        wide = {**one_route(it_vendor.port), "clients": [{"name": "a", "key_sha256": "0" * 64}]}
        text = yaml.safe_dump(wide)
        async with running(text) as it:
            data = it.gateway._data
            assert data is not None
            with socket.create_server(("0.0.0.0", 0)) as reached:
                data._acceptor.sockets.append(reached)
                with pytest.raises(ConfigError, match="without a key"):
                    await it.gateway.reload(loaded(tmp_path, one_route(it_vendor.port)))
                data._acceptor.sockets.remove(reached)
            assert it.gateway.config.clients


async def test_a_reload_that_is_overtaken_by_the_end_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow part of it runs on a thread; when that comes back, the gateway may have stopped."""
    issuer = {"issuer": "x", "audience": ["a"], "jwks_url": "http://127.0.0.1:9/keys"}
    fetched, go_on, began = one_route(1), threading.Event(), threading.Event()
    fetched["credentials"]["late"] = {
        "grant": {
            "request": {"url": "http://127.0.0.1:9/token", "form": {"client_secret": "${CANARY}"}},
            "response": {"expires": {"after": "1h"}},
        }
    }
    config = loaded(tmp_path, {**fetched, "issuers": {"corp": issuer}})
    async with running(one_route(1)) as it:
        prepare = it.gateway._prepare

        def slow(config: Config) -> Any:
            began.set()
            go_on.wait(30)
            return prepare(config)

        monkeypatch.setattr(it.gateway, "_prepare", slow)
        reloading = asyncio.create_task(it.gateway.reload(config))
        await until(began.is_set)
        tasks = asyncio.all_tasks()
        await it.gateway.stop()
        go_on.set()
        await reloading
        assert asyncio.all_tasks() <= tasks
        assert it.gateway.config is not config
        assert '"event":"reloaded"' not in it.log


async def test_a_reload_that_fails_half_way_leaves_no_trace_of_what_it_asked_for(tmp_path: Path) -> None:
    """The loader catches what it can; this one is wrong in a way that shows only when its clients are built."""
    issuers = {name: {"issuer": name, "audience": ["a"], "jwks_url": "http://127.0.0.1:9/keys"} for name in "ab"}
    async with running({**one_route(1), "issuers": {"a": issuers["a"]}}) as it:
        before = list(it.gateway._access._keysets.items())
        twins = (Client("one", ("ab" * 32,)), Client("two", ("ab" * 32,)))
        asked = replace(loaded(tmp_path, {**one_route(1), "issuers": {"b": issuers["b"]}}), clients=twins)
        with pytest.raises(ValueError, match="the same key"):
            await it.gateway.reload(asked)
        await asyncio.sleep(0)
        assert list(it.gateway._access._keysets.items()) == before
        (keys,) = it.gateway._access._keysets.values()
        assert keys._refreshing is not None
        assert not keys._refreshing.done(), "the old issuer's keys are kept fresh"
        await it.gateway.reload(replace(asked, clients=()))
        assert [keys.issuer.name for keys in it.gateway._access._keysets.values()] == ["b"]


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


async def test_a_configuration_that_was_broken_and_put_back_is_in_force_again(tmp_path: Path) -> None:
    """The very same content: nothing is reloaded, but nothing is refused any more either."""
    async with (
        vendor(answering(ok())) as it_vendor,
        Served(tmp_path, one_route(it_vendor.port), environ={"CANARY": CANARY}) as gateway,
    ):
        good = gateway.path.read_text()
        for turn in (1, 2):
            gateway.write(good + "unknown_key: 1\n")
            await gateway.seen("reload_refused", turn)
            assert await gateway.metric("gatepass_config_last_load_successful") == 0
            gateway.write(good)
            await gateway.seen("reload_recovered", turn, seconds=8)
            assert await gateway.metric("gatepass_config_last_load_successful") == 1
            _, status = await gateway.ask("/status.json")
            assert "unknown_key" not in status
        assert not gateway.events("reloaded")


@pytest.mark.parametrize("garbage", [None, b"\xff\xfe", b"two\nlines", b""], ids=["missing", "bytes", "lines", "empty"])
async def test_a_file_that_only_the_refused_configuration_names_is_watched_too(
    garbage: bytes | None, tmp_path: Path
) -> None:
    """The retry comes after ten seconds; a file that becomes good is taken up at once."""
    async with vendor(answering(ok())) as it_vendor:
        config = one_route(it_vendor.port)
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            late = tmp_path / "late"
            if garbage is not None:
                late.write_bytes(garbage)
            gateway.write({**config, "credentials": {"key": {"static": {"token": f"${{file:{late}}}"}}}})
            await gateway.seen("reload_refused")
            await asyncio.sleep(2 * INTERVAL)  # its watch has begun
            late.write_text("CANARY-late\n")
            assert await until(lambda: bool(gateway.events("reloaded"))) < 5


async def test_authorities_that_only_the_refused_configuration_names_are_watched_too(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        config = one_route(it_vendor.port)
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            late = tmp_path / "late.pem"
            gateway.write(one_route(it_vendor.port, ca_file=str(late)))
            await gateway.seen("reload_refused")
            await asyncio.sleep(2 * INTERVAL)
            late.write_bytes(trustme.CA().cert_pem.bytes())
            assert await until(lambda: bool(gateway.events("reloaded"))) < 5


@pytest.mark.slow
async def test_a_secret_that_blocks_is_refused_with_its_name_and_the_next_reload_works(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        key = tmp_path / "key"
        key.write_text("CANARY-one")
        config = one_route(it_vendor.port)
        config["credentials"] = {"key": {"static": {"token": f"${{file:{key}}}"}}}
        async with Served(tmp_path, config) as gateway, Apps(gateway.address, "/v/x", apps=1) as apps:
            key.unlink()
            os.mkfifo(key)
            [problem] = (await gateway.seen("reload_refused"))["problems"]
            assert f"file {key} cannot be read: it did not answer within" in problem
            key.unlink()
            key.write_text("CANARY-two")
            await gateway.seen("reloaded", seconds=8)
        assert not apps.failures, apps.failures


async def test_a_swapped_secret_is_seen_within_a_second(tmp_path: Path) -> None:
    """As Kubernetes does it: files behind a link to a folder, and the link is replaced.

    Files are looked at every quarter of a second, and two looks must agree. How much longer it takes is for the machine
    to say, so one swap of several has to be seen in time.
    """
    assert 2 * INTERVAL < 1
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
            took: list[float] = []
            while not took or (min(took) >= 1.2 and len(took) < 8):
                name = "one" if len(took) % 2 else "two"
                expected = f"Bearer CANARY-{name}".encode()
                (tmp_path / "..next").symlink_to(f"..{name}")
                (tmp_path / "..next").rename(tmp_path / "..data")
                took.append(await until(lambda: tokens[-1] == expected))  # noqa: B023 - it ends before the next turn
            assert min(took) < 1.2, took
        assert not apps.failures, apps.failures
        assert "CANARY" not in gateway.text
        warning = gateway.events("secret_file_open")[0]
        assert (warning["path"], warning["mode"]) == (f"{tmp_path}/key", "-rw-r--r--")


async def test_a_swapped_client_secret_is_asked_with_at_once_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """The same for a secret that tokens are fetched with: the old token serves until the new secret brought one."""
    for name in ("one", "two"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "secret").write_text(f"CANARY-secret-{name}\n")
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "secret").symlink_to("..data/secret")
    tokens: list[str] = []

    async def echo(peer: Peer) -> None:
        while True:
            token = (await peer.message()).one("Authorization").decode().removeprefix("Bearer ")
            if token not in tokens:
                tokens.append(token)
            await peer.send(ok())

    async with TokenEndpoint(latency=0.2) as endpoint, vendor(echo) as it_vendor:
        form = {"grant_type": "client_credentials", "client_id": "web", "client_secret": f"${{file:{tmp_path}/secret}}"}
        config = one_route(it_vendor.port)
        config["credentials"] = {
            "key": {"grant": {"request": {"url": endpoint.url, "form": form}, "response": {"expires": {"after": "1h"}}}}
        }
        async with Served(tmp_path, config) as gateway:
            waits = 'gatepass_token_waits_total{credential="key"}'
            before = await gateway.metric(waits)
            async with Apps(gateway.address, "/v/x", apps=2) as apps:
                await until(lambda: tokens == endpoint.issued[:1] and apps.good > 5)
                (tmp_path / "..next").symlink_to("..two")
                (tmp_path / "..next").rename(tmp_path / "..data")
                await until(lambda: len(tokens) == 2)
            await gateway.seen("token_fetched", 2)
            assert not apps.failures, apps.failures
            assert tokens == endpoint.issued
            assert [request.form["client_secret"] for request in endpoint.requests] == [
                "CANARY-secret-one",
                "CANARY-secret-two",
            ]
            assert [event["cause"] for event in gateway.events("token_fetched")] == ["startup", "rotated"]
            assert await gateway.metric(waits) == before, "the old token served meanwhile"
        assert "CANARY" not in gateway.text


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
            gateway.write(config, replay_budget="3MiB", drain={"grace": "3s"})
            await gateway.seen("reloaded", 2)
            gateway.signal(signal.SIGTERM)
            await gateway.seen("draining")
            async with session.post(url, headers=bearer) as answer:
                assert answer.status == 409
                (problem,) = (await answer.json())["problems"]
            assert "the gateway is shutting down" in problem


BUDGETS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "no soft limit": ({"per": "day", "hard": 5}, {"day hard": 5}),
    "no hard limit": ({"per": "day", "soft": 3}, {"day soft": 3}),
    "another period": ({"per": "month", "hard": 5}, {"month hard": 5}),
    "no budget": ({}, {}),
}


@pytest.mark.parametrize(("budget", "limits"), BUDGETS.values(), ids=BUDGETS)
async def test_a_budget_or_issuer_that_a_reload_removes_is_shown_nowhere(
    budget: dict[str, Any], limits: dict[str, int], tmp_path: Path
) -> None:
    key = new_key()
    bearer = {"Authorization": f"Bearer {key}"}
    web: dict[str, Any] = {"name": "web", "key_sha256": hash_key(f"{CANARY}-web")}
    issuer = {"issuer": "https://login.example", "audience": ["a"], "jwks_url": "http://127.0.0.1:1/keys"}

    async def shown(gateway: Served) -> tuple[dict[str, int], str]:
        text = (await gateway.ask("/metrics"))[1]
        [client] = json.loads((await gateway.ask("/status.json"))[1])["clients"]
        assert {each["per"] for each in client["budgets"]} == set(re.findall(r'budget_used\{.*per="(\w+)"', text))
        found = re.findall(r'^gatepass_client_budget_limit\{.*per="(\w+)",level="(\w+)"\} (\d+)', text, re.MULTILINE)
        return {f"{per} {level}": int(calls) for per, level, calls in found}, text

    first = {**one_route(1), "admin_keys_sha256": [hash_key(key)], "issuers": {"corp": issuer}}
    first["clients"] = [{**web, "budgets": [{"route": "v", "per": "day", "soft": 3, "hard": 5}]}]
    async with Served(tmp_path, first, environ={"CANARY": CANARY}) as gateway, aiohttp.ClientSession() as session:
        before, text = await shown(gateway)
        assert before == {"day soft": 3, "day hard": 5}
        while 'issuer="corp"' not in text:
            await asyncio.sleep(0.05)
            _, text = await shown(gateway)
        budgets = [{"route": "v", **budget}] if budget else []
        gateway.write({**first, "issuers": {}, "clients": [{**web, "budgets": budgets}]})
        async with session.post(f"http://127.0.0.1:{gateway.admin_port}/reload", headers=bearer) as answer:
            assert answer.status == 200
        after, text = await shown(gateway)
    assert after == limits
    assert 'issuer="corp"' not in text
