"""Going down, restarting and being succeeded: no request is lost that could have been served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.phase import HEAD
from gateway.serving import sockets
from gateway.serving.sockets import SocketError, inherited
from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.nginx import PROGRAM, nginx
from tests.kit.ports import free_port
from tests.kit.served import Apps, Served, accepts, until
from tests.kit.stall import unless_stalled
from tests.kit.wire import Peer, answering, connect, get, ok, vendor

ENVIRON = {"CANARY": CANARY}
NO_GRACE = {"drain": {"grace": "0s"}}


def slow(seconds: float) -> Any:
    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await asyncio.sleep(seconds)
            await peer.send(ok(b"late"))

    return script


# ------------------------------------------------------------------------------------------------------------ one dies


async def test_sigterm_fails_readiness_at_once_serves_through_the_grace_and_ends_with_0(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        config = {**one_route(it_vendor.port), "drain": {"grace": "2s", "timeout": "60s"}}
        async with Served(tmp_path, config, environ=ENVIRON) as gateway:
            kept = await connect(gateway.address)
            await kept.send(get("/v/x"))
            assert (await kept.message()).all("Connection") == []
            gateway.signal(signal.SIGTERM)
            await gateway.seen("draining")
            assert await gateway.readiness() == 503
            for app in (kept, await connect(gateway.address)):
                await app.send(get("/v/x"))
                answer = await app.message()
                assert (answer.status, answer.one("Connection")) == (200, b"close")
                assert await app.at_end()
            assert await gateway.end() == 0
            assert not accepts(gateway.port)


async def test_a_request_that_runs_is_answered_and_an_idle_connection_is_closed() -> None:
    async with vendor(slow(0.5)) as it_vendor, running(one_route(it_vendor.port)) as it:
        idle, busy = await connect(it.address), await connect(it.address)
        await idle.send(get("/nowhere"))
        await idle.message()
        await busy.send(get("/v/x"))
        await until(lambda: it_vendor.connections == 1)
        draining = asyncio.create_task(it.gateway.drain())
        assert await idle.at_end()
        assert (await busy.message()).body == b"late"
        await draining


@pytest.mark.slow
async def test_a_connection_that_was_accepted_last_is_still_served() -> None:
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        fresh = await connect(it.address)
        draining = asyncio.create_task(it.gateway.drain())
        await until(lambda: not accepts(it.address[1]))
        await fresh.send(get("/v/x"))
        assert (await fresh.message()).status == 200
        await draining


async def test_connections_that_only_the_kernel_has_accepted_are_still_served() -> None:
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        data = it.gateway._data
        assert data is not None
        with contextlib.ExitStack() as stack:
            queued = [stack.enter_context(socket.create_connection(it.address)) for _ in range(3)]
            data._acceptor.stop(take_queued=True)  # the loop has not run since
            assert data.connections == 3
            for sock in queued:
                app = Peer(*await asyncio.open_connection(sock=sock.dup()))
                await app.send(get("/v/x"))
                assert (await app.message()).status == 200
                app.close()


async def test_connections_in_the_kernel_s_queue_are_left_to_a_successor() -> None:
    """Connections that are already open are served here until they close."""
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        data = it.gateway._data
        assert data is not None
        kept = await connect(it.address)
        await kept.send(get("/v/x"))
        await kept.message()
        data._acceptor._pause()  # until the next round of the loop, in which the sockets are closed
        with data.sockets[0].dup() as successor, socket.create_connection(it.address) as queued:
            handing = asyncio.create_task(it.gateway.hand_over())
            await until(lambda: not data.sockets)
            await kept.send(get("/v/x"))
            answer = await kept.message()
            assert (answer.status, answer.one("Connection")) == (200, b"close")
            assert await kept.at_end()
            kept.close()
            await handing
            accepted, address = successor.accept()
            accepted.close()
            assert address == queued.getsockname()


async def test_a_request_whose_head_ends_after_the_last_call_gets_503_draining() -> None:
    """Half of the head had arrived, so the connection was not idle; the vendor gets no request."""
    async with vendor(answering(ok())) as it_vendor, running({**one_route(it_vendor.port), **NO_GRACE}) as it:
        data, handler = it.gateway._data, it.gateway._handler
        assert data is not None
        assert handler is not None
        late = await connect(it.address)
        await late.send(get("/v/x")[:-2])
        await until(lambda: [each.phase for each in data._connections] == [HEAD])
        draining = asyncio.create_task(it.gateway.drain())
        await until(lambda: handler.closing)
        await late.send(b"\r\n")
        answer = await late.message()
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "draining")
        assert (answer.one("Retry-After"), answer.one("Connection")) == (b"1", b"close")
        assert await late.at_end()
        late.close()
        await draining
        assert it_vendor.connections == 0


@unless_stalled
async def test_what_runs_too_long_is_cut_at_the_drain_time_out_a_websocket_too() -> None:
    upgraded = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    async def websocket(peer: Peer) -> None:
        await peer.head()
        await peer.send(upgraded)
        while data := await peer.reader.read(100):
            await peer.send(data)

    async with vendor(websocket) as it_vendor:
        config = {**one_route(it_vendor.port), "drain": {"grace": "0s", "timeout": "600ms"}}
        async with running(config) as it:
            app = await connect(it.address)
            fields = (
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: eA==",
                "Sec-WebSocket-Version: 13",
            )
            await app.send(get("/v/x", *fields))
            assert (await app.head()).status == 101
            began = time.monotonic()
            draining = asyncio.create_task(it.gateway.drain())
            await asyncio.sleep(0.3)
            await app.send(b"still here")
            assert await app.reader.readexactly(10) == b"still here"
            assert await app.at_end()
            await draining
            assert 0.5 < time.monotonic() - began < 2


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with vendor(slow(30)) as it_vendor, Served(tmp_path, one_route(it_vendor.port), environ=ENVIRON) as gateway:
        app = await connect(gateway.address)
        await app.send(get("/v/x"))
        await until(lambda: it_vendor.connections == 1)
        gateway.signal(signal.SIGTERM)
        await gateway.seen("draining")
        gateway.signal(signal.SIGTERM)
        assert await gateway.end(20) == 128 + signal.SIGTERM  # and not after the 30 s that the drain would take
        assert gateway.events("stopped_at_once")


async def test_the_end_waits_for_no_thread_that_hangs(tmp_path: Path) -> None:
    """A name that is being looked up, or a program that is asked for a secret, would hold the process for long."""
    program, runs = tmp_path / "program", tmp_path / "runs"
    program.write_text(
        f"""#!/bin/sh
test -e {runs} && {{ echo $$ > {runs}; exec sleep 100; }}
: > {runs}
echo '{{"k": "CANARY-1", "Expiration": "2020-01-01T00:00:00+00:00"}}'
"""
    )
    program.chmod(0o700)
    config = one_route(1)
    config["credentials"] = {"key": {"static": {"token": f"${{command:{program}#k}}"}}}
    async with Served(tmp_path, config) as gateway:
        await until(lambda: runs.read_text().strip() != "")  # it is asked again, and hangs
        gateway.signal(signal.SIGTERM)
        assert await gateway.end() == 0
        os.kill(int(runs.read_text()), signal.SIGKILL)  # it was still there


async def test_a_port_that_died_keeps_nobody_from_going_down() -> None:
    async with vendor(answering(ok())) as it_vendor, running(one_route(it_vendor.port)) as it:
        data = it.gateway._data
        assert data is not None
        dead = socket.socket()  # one that does not listen accepts nothing
        dead.setblocking(False)
        data._acceptor.sockets.append(dead)
        await it.gateway.drain()
        assert it.gateway.state == "draining"


async def test_sigterm_gives_the_token_back_where_that_is_configured(tmp_path: Path) -> None:
    """RFC 7009, from the configuration to the wire: once, with the token that was in use, and it is told."""
    form = {"grant_type": "client_credentials", "client_secret": "${CANARY}"}
    back = {"token": "{token}", "token_type_hint": "access_token", "client_secret": "${CANARY}"}
    async with (
        TokenEndpoint() as endpoint,
        TokenEndpoint(always=Answer(200), path="/revoke") as revocation,
        vendor(answering(ok())) as it_vendor,
    ):
        config = one_route(it_vendor.port)
        config["credentials"] = {
            "key": {
                "grant": {
                    "request": {"url": endpoint.url, "form": form},
                    "response": {"expires": {"in": "expires_in"}},
                },
                "revoke_on_shutdown": True,
                "revoke": {"url": revocation.url, "form": back},
            }
        }
        async with Served(tmp_path, config, environ=ENVIRON) as gateway:
            app = await connect(gateway.address)
            await app.send(get("/v/x"))
            assert (await app.message()).status == 200
            assert revocation.count == 0
            gateway.signal(signal.SIGTERM)
            assert await gateway.end() == 0
            (told,) = gateway.events("token_revoked")
            assert told["outcome"] == "HTTP 200"
            names = [event["event"] for event in map(json.loads, gateway.text.splitlines())]
            assert names.index("draining") < names.index("token_revoked") < names.index("stopped")
            assert "CANARY" not in gateway.text
    (request,) = revocation.requests
    assert (request.method, request.target) == ("POST", "/revoke")
    assert request.form == {
        "token": endpoint.issued[0],
        "token_type_hint": "access_token",
        "client_secret": CANARY,
    }


async def test_a_gateway_in_a_container_that_only_the_container_reaches_says_so(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        environ = ENVIRON | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        async with Served(tmp_path, one_route(it_vendor.port), environ=environ) as gateway:
            await until(lambda: len(gateway.events("loopback_in_container")) > 1)
            told = gateway.events("loopback_in_container")
            assert [(each["key"], each["address"]) for each in told] == [
                ("listen", f"127.0.0.1:{gateway.port}"),
                ("admin", f"127.0.0.1:{gateway.admin_port}"),
            ]
            assert f"set listen to 0.0.0.0:{gateway.port}" in told[0]["hint"]


# ----------------------------------------------------------------------------------------------------- several in turn


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")
async def test_a_rolling_restart_of_two_instances_behind_the_shipped_nginx_snippet_fails_no_request(
    tmp_path: Path,
) -> None:
    async with vendor(answering(ok())) as it_vendor:
        config = {"access": "open", **one_route(it_vendor.port), "drain": {"grace": "2s", "timeout": "5s"}}
        gateways = [
            Served(tmp_path / name, config, environ=ENVIRON) for name in ("one", "two") if _folder(tmp_path, name)
        ]
        port = free_port()
        try:
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            async with (
                nginx(tmp_path, [gateway.port for gateway in gateways], port),
                Apps(("127.0.0.1", port), "/v/x", apps=4) as reading,
                Apps(("127.0.0.1", port), "/v/x", apps=4, post=True) as writing,
            ):
                for gateway in gateways:
                    gateway.signal(signal.SIGTERM)
                    assert await gateway.end() == 0
                    await gateway.start()
            assert not reading.failures, reading.failures
            assert not writing.failures, writing.failures
            assert reading.good > 100
        finally:
            for gateway in gateways:
                await gateway.stop()


def _folder(parent: Path, name: str) -> bool:
    (parent / name).mkdir()
    return True


ACTIVATE = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"
"""What systemd does between fork and exec."""


@pytest.mark.long
async def test_a_socket_that_systemd_holds_outlives_restarts_and_no_connection_is_refused(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(512)
        address = held.getsockname()
        os.dup2(held.fileno(), 3) if held.fileno() != 3 else None
        environ = {**ENVIRON, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "data"}
        async with vendor(answering(ok())) as it_vendor:
            config = {**one_route(it_vendor.port), "drain": {"grace": "300ms"}}
            gateway = Served(tmp_path, config, environ=environ)
            wrapper = (sys.executable, "-c", ACTIVATE)
            async with Apps(address, "/v/x", apps=4, kept=False) as apps:
                for _ in range(2):
                    await gateway.start(passed=[3], wrapper=wrapper)
                    before = apps.good
                    await until(lambda: apps.good > before + 50)  # noqa: B023 - it ends before the next turn
                    gateway.signal(signal.SIGTERM)
                    assert await gateway.end() == 0
                await gateway.start(passed=[3], wrapper=wrapper)
                await asyncio.sleep(0.3)
            await gateway.stop()
            assert not apps.failures, apps.failures
            assert gateway.events("started")[0]["data"] == f"127.0.0.1:{address[1]}"


async def test_an_upgrade_in_place_passes_the_sockets_on_and_fails_no_request(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as it_vendor:
        config = {**one_route(it_vendor.port), "drain": {"grace": "500ms", "timeout": "60s"}}
        gateway = Served(tmp_path, config, environ=ENVIRON)
        pids = []
        try:
            await gateway.start()
            async with (
                Apps(gateway.address, "/v/x", apps=4) as kept,
                Apps(gateway.address, "/v/x", apps=4, kept=False, post=True) as fresh,
            ):
                gateway.signal(signal.SIGUSR2)
                pids.append((await gateway.seen("upgrading"))["successor"])
                await gateway.seen("stopped", seconds=90)
                assert await gateway.readiness() == 200
            assert await gateway.end() == 0
            assert not kept.failures, kept.failures
            assert not fresh.failures, fresh.failures
            assert kept.good > 20
        finally:
            await gateway.stop()
            if pids:
                os.kill(pids[-1], signal.SIGTERM)
        await gateway.seen("stopped", 2)


@pytest.mark.long
async def test_a_successor_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    async with (
        vendor(answering(ok())) as it_vendor,
        Served(tmp_path, one_route(it_vendor.port), environ=ENVIRON) as gateway,
    ):
        gateway.write("listen: [this is wrong]\n")
        gateway.signal(signal.SIGUSR2)
        await gateway.seen("upgrade_failed")
        app = await connect(gateway.address)
        await app.send(get("/v/x"))
        assert (await app.message()).status == 200
        assert await gateway.readiness() == 200


async def test_a_successor_says_that_it_serves_the_old_addresses_and_closes_a_port_that_it_does_not_serve(
    tmp_path: Path,
) -> None:
    """The sockets were opened for the old addresses, by this process or by one before it."""
    async with vendor(answering(ok())) as it_vendor:
        config = one_route(it_vendor.port)
        gateway = Served(tmp_path, config, environ=ENVIRON)
        successor = 0
        try:
            await gateway.start()
            gateway.signal(signal.SIGUSR2)
            assert await gateway.end() == 0
            assert not gateway.events("restart_needed")
            successor = int(gateway.events("upgrading")[-1]["successor"])
            gateway.write(config, listen=f"127.0.0.1:{free_port()}", admin=None)
            os.kill(successor, signal.SIGUSR2)
            await gateway.seen("stopped", 2)
            successor = int(gateway.events("upgrading")[-1]["successor"])
            await gateway.seen("started", 3)
            await until(lambda: bool(gateway.events("restart_needed")))
            assert gateway.events("restart_needed")[-1]["keys"] == ["listen"]
            assert accepts(gateway.port)
            assert not accepts(gateway.admin_port)
            gateway.write(config)
            await until(lambda: gateway.events("restart_needed")[-1]["keys"] == ["admin"])
        finally:
            await gateway.stop()
            if successor:
                os.kill(successor, signal.SIGTERM)


@pytest.mark.parametrize("listening", [None, False], ids=["a file", "a socket that does not listen"])
def test_what_is_no_listening_socket_is_not_served_on(listening: bool | None, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, socket.socket() as sock:
        number = os.dup(file.fileno() if listening is None else sock.fileno())
        with pytest.raises(SocketError, match=rf"descriptor {number} was passed"):
            inherited({"GATEPASS_INHERIT": f"data={number}"})
        with contextlib.suppress(OSError):
            os.close(number)


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "data=",
        "data=a",
        "data=²",
        "data=5,,6",
        "ready=",
        "ready=abc",
        "=;=",
        "data=-1",
        "ready=99999999999999999999",
    ],
)
def test_a_variable_that_no_predecessor_has_written_is_refused_with_its_reason(value: str) -> None:
    with pytest.raises(SocketError, match="was passed as the number of a descriptor"):
        inherited({"GATEPASS_INHERIT": value})


def test_a_pipe_that_is_closed_is_refused_with_its_number() -> None:
    with pytest.raises(SocketError, match="descriptor 987654 was passed as a pipe"):
        inherited({"GATEPASS_INHERIT": "ready=987654"})


@pytest.mark.parametrize("count", ["", "0", "-1", " 1", "²", "x"])
def test_a_count_of_systemd_that_is_none_passes_nothing(count: str) -> None:
    assert inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}).data == []


def test_a_count_of_systemd_that_is_far_too_high_is_refused_at_the_first_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "FIRST", 987_654)
    with pytest.raises(SocketError, match="descriptor 987654 was passed"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "999999999"})
    with pytest.raises(SocketError, match="number of a descriptor"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "99999999999999"})


@pytest.mark.parametrize("when", ["at once", "while the successor reads its configuration"])
async def test_a_stop_during_an_upgrade_ends_the_successor_too_and_leaves_no_program(when: str, tmp_path: Path) -> None:
    """Otherwise the gateway would go on in a process that nobody has asked to stop."""
    hangs, pid = tmp_path / "hangs", tmp_path / "pid"
    program = tmp_path / "secret"
    program.write_text(f"#!/bin/sh\n[ ! -e {hangs} ] || {{ echo $$ > {pid}; exec sleep 1000; }}\necho {CANARY}\n")
    program.chmod(0o755)
    async with vendor(answering(ok())) as it_vendor:
        config = one_route(it_vendor.port)
        config["credentials"]["key"]["static"]["token"] = f"${{command:{program}}}"
        async with Served(tmp_path, config, environ=ENVIRON) as gateway:
            hangs.touch()
            gateway.signal(signal.SIGUSR2)
            if when != "at once":
                await until(lambda: pid.exists() and bool(pid.read_text()))
            gateway.signal(signal.SIGTERM)
            assert await gateway.end() == 0
            for event in gateway.events("upgrading"):
                with pytest.raises(ProcessLookupError):
                    os.kill(event["successor"], 0)
            assert all(each["reason"] == "the gateway was told to stop" for each in gateway.events("upgrade_failed"))
            assert gateway.events("stopped")[-1]["successor"] is None
            assert not accepts(gateway.port)
            if when != "at once":
                assert gateway.events("upgrade_failed")
                await until(lambda: not Path(f"/proc/{pid.read_text().strip()}/fd").exists(), 5.0)


def test_what_systemd_passed_to_another_process_is_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert inherited(environ).data == []
    assert environ == {}, "children of ours do not inherit the claim"
