"""Where planes ask: a Unix socket that is created and removed safely, or an address with client certificates."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.config import load
from gateway.errors import ListenError
from gateway.model import SocketFile
from gateway.planes import keeping
from gateway.planes.listening import listen_unix
from tests.kit.configuration import ROOT
from tests.kit.gateway import CANARY, Running, running
from tests.kit.planes import KEY, WEB, ask, asked_gateway, plane_at, question
from tests.kit.served import Served, until
from tests.kit.wire import Message, Peer


def reloaded(folder: Path, config: dict[str, Any]) -> Any:
    path = folder / "next.yaml"
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, **config}))
    return load([path], environ={"CANARY": CANARY})


async def reload(it: Running, folder: Path, config: dict[str, Any]) -> None:
    await it.gateway.reload(await asyncio.to_thread(reloaded, folder, config))


# ------------------------------------------------------------------------------------------------------ the Unix socket


@pytest.mark.parametrize("mode", ["0600", "0660", "666"])
async def test_the_socket_has_its_permissions_and_is_removed_when_the_gateway_stops(mode: str, tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    config["planes"]["mode"] = mode
    path = tmp_path / "planes.sock"
    async with running(config):
        found = path.lstat().st_mode
        assert stat.S_ISSOCK(found)
        assert stat.S_IMODE(found) == int(mode, 8)
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200
        assert os.listdir(tmp_path) == ["planes.sock"]  # noqa: PTH208 - no I/O to speak of
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "planes.sock"))
    async with running(asked_gateway(tmp_path)):
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200


async def test_a_socket_that_is_served_is_left_alone(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        with pytest.raises(ListenError, match="another process serves this socket"):
            async with running(asked_gateway(tmp_path)):
                pass
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200


@pytest.mark.parametrize("what", ["a file", "a folder", "a link"])
def test_a_file_that_is_not_a_socket_is_left_alone(what: str, tmp_path: Path) -> None:
    path = tmp_path / "planes.sock"
    if what == "a file":
        path.write_text("precious")
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    before = path.lstat().st_ino
    with pytest.raises(ListenError, match="is there and is no socket"):
        listen_unix(SocketFile(path))
    assert path.lstat().st_ino == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"planes\.listen: cannot listen on unix:.*does the folder .*/no exist"):
        listen_unix(SocketFile(tmp_path / "no" / "planes.sock"))


@pytest.mark.parametrize("name", ["seven.s", "planes.sock", "a-socket-for-the-planes-of-this-machine.sock"])
def test_a_path_is_as_long_as_the_configuration_allows(name: str) -> None:
    """The socket is first created under another name, which must not be longer."""
    with tempfile.TemporaryDirectory(prefix="gp-") as short:
        folder = Path(short) / ("f" * (107 - len(short) - len(name) - 2))
        folder.mkdir()
        path = folder / name
        assert len(bytes(path)) == 107
        listen_unix(SocketFile(path)).close()
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert [each.name for each in folder.iterdir()] == [name]


async def test_a_socket_that_another_gateway_has_created_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "planes.sock"
    async with running(asked_gateway(tmp_path)):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


def lost(path: Path, how: str) -> None:
    """Take the socket's file away."""
    if how == "deleted":
        path.unlink()
    elif how == "moved":
        path.rename(path.with_name("elsewhere.sock"))
    elif how == "its folder is new":
        path.parent.rename(path.parent.with_name("old"))
        path.parent.mkdir()
    else:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the socket, at which a gateway then looks often."""
    monkeypatch.setattr(keeping, "INTERVAL", 0.02)
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.mark.parametrize("how", ["deleted", "moved", "its folder is new", "replaced by a socket that nobody serves"])
async def test_a_socket_whose_file_is_lost_is_made_again(how: str, folder: Path) -> None:
    path = folder / "planes.sock"
    config = asked_gateway(folder)
    config["planes"]["mode"] = "0600"
    async with running(config) as it:
        for again in (1, 2):
            before = path.lstat().st_ino
            plane = await plane_at(folder)
            lost(path, how)
            await until(lambda: it.log.count("planes_socket_made_again") == again)  # noqa: B023 - awaited at once
            assert (await ask(folder, "/ask/v/v/x", KEY)).status == 200
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            await plane.send(question("/ask/v/v/x", KEY))
            assert (await plane.message()).status == 200, f"an open connection stays ({before})"
            if how in {"moved", "its folder is new"}:
                break
        assert "planes_socket_lost" not in it.log
    assert not path.exists()


@pytest.mark.parametrize("what", ["a file", "a folder", "a served socket", "no folder"])
async def test_a_socket_that_cannot_be_made_again_is_logged_once_and_tried_again(what: str, folder: Path) -> None:
    path = folder / "planes.sock"
    async with running(asked_gateway(folder)) as it:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            if what == "a file":
                path.write_text("precious")
            elif what == "a folder":
                path.mkdir()
            elif what == "a served socket":
                other.bind(str(path))
                other.listen()
            else:
                path.parent.rmdir()
            await until(lambda: "planes_socket_lost" in it.log)
            await asyncio.sleep(0.2)
            assert it.log.count("planes_socket_lost") == 1
            assert "planes_socket_made_again" not in it.log
        if what == "no folder":
            path.parent.mkdir()
        elif what == "a folder":
            path.rmdir()
        elif what == "a file":
            assert path.read_text() == "precious"
            path.unlink()
        await until(lambda: "planes_socket_made_again" in it.log)
        assert (await ask(folder, "/ask/v/v/x", KEY)).status == 200
    assert not path.exists()


async def test_a_successor_makes_the_socket_that_it_was_passed_again(tmp_path: Path) -> None:
    async with Served(tmp_path, asked_gateway(tmp_path), environ={"CANARY": CANARY}) as it:
        it.signal(signal.SIGUSR2)
        successor = int((await it.seen("upgrading"))["successor"])
        assert await it.end() == 0
        (tmp_path / "planes.sock").unlink()
        await it.seen("planes_socket_made_again")
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200
        os.kill(successor, signal.SIGTERM)
        await until(lambda: not (tmp_path / "planes.sock").exists())


@pytest.mark.slow
async def test_an_upgrade_passes_the_socket_on_and_answers_all_the_time(tmp_path: Path) -> None:
    statuses: list[int] = []
    over = asyncio.Event()

    async def plane() -> None:
        while not over.is_set():
            statuses.append((await ask(tmp_path, "/ask/v/v/x", KEY)).status)

    config = asked_gateway(tmp_path)
    async with Served(tmp_path, config, environ={"CANARY": CANARY}) as it:
        inode = (tmp_path / "planes.sock").lstat().st_ino
        asking = asyncio.create_task(plane())
        it.signal(signal.SIGUSR2)
        upgraded = await it.seen("upgrading")
        assert await it.end() == 0
        over.set()
        await asking
        assert set(statuses) == {200}
        assert (tmp_path / "planes.sock").lstat().st_ino == inode
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200
        os.kill(int(upgraded["successor"]), signal.SIGTERM)
        await until(lambda: not os.path.exists(f"/proc/{upgraded['successor']}/fd"))  # noqa: PTH110 - no I/O to speak of


async def test_a_stop_answers_the_questions_under_way_and_removes_the_socket(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path) | {"drain": {"grace": "300ms"}}
    async with Served(tmp_path, config, environ={"CANARY": CANARY}) as it:
        plane = await plane_at(tmp_path)
        it.signal(signal.SIGTERM)
        await it.seen("draining")
        await plane.send(question("/ask/v/v/x", KEY))
        answer = await plane.message()
        assert answer.status == 200
        assert await it.end() == 0
        assert not (tmp_path / "planes.sock").exists()


# ------------------------------------------------------------------------------------------------------------- reloads


async def test_a_reload_changes_who_may_ask(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    async with running(config) as it:
        plane = await plane_at(tmp_path)
        for uid, status in ((os.getuid() + 1, 403), (os.getuid(), 200)):
            await reload(it, tmp_path, asked_gateway(tmp_path, ask={"uid": uid}))
            assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == status
        await plane.send(question("/ask/v/v/x", KEY))
        assert (await plane.message()).status == 200
        del config["planes"]
        await reload(it, tmp_path, config)
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 403


async def test_a_reload_with_another_planes_listen_logs_that_a_restart_is_needed(tmp_path: Path) -> None:
    config = asked_gateway(tmp_path)
    async with running(config) as it:
        config["planes"]["listen"] += "2"
        await reload(it, tmp_path, config)
        assert '"keys":["planes.listen"]' in it.log
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200


async def test_a_reload_changes_clients_and_routes_of_open_connections(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)) as it:
        plane = await plane_at(tmp_path)
        await plane.send(question("/ask/v/v/x", KEY))
        assert (await plane.message()).status == 200
        await reload(it, tmp_path, asked_gateway(tmp_path, deny=["/x"]))
        await plane.send(question("/ask/v/v/x", KEY))
        assert (await plane.message()).status == 400


def test_without_planes_nothing_of_them_is_imported() -> None:
    source = "import gateway.app, sys; print([name for name in sys.modules if name.startswith('gateway.planes')])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


# ----------------------------------------------------------------------------------------------------------------- TLS


class Certified:
    """A gateway's certificate, and those of planes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        server = self.ca.issue_cert("localhost")
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        server.private_key_pem.write_to_path(str(folder / "tls.key"))
        server.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))

    def config(self, **ask: Any) -> dict[str, Any]:
        config = asked_gateway(self.folder, ask={"uid": None, "certificates": ["dns:edge.internal"], **ask})
        tls = {"certificate": f"{self.folder}/tls.crt", "key": f"{self.folder}/tls.key"}
        config["planes"] |= {"listen": "127.0.0.1:0", "tls": {**tls, "client_ca": f"{self.folder}/ca.pem"}}
        return config

    def context(self, name: str | None, ca: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if name is not None:
            (ca or self.ca).issue_cert(name).configure_cert(context)
        return context


async def over_tls(it: Running, context: ssl.SSLContext) -> Message:
    [sock] = it.gateway.listening["planes"]
    address = sock.getsockname()
    peer = Peer(*await asyncio.open_connection(*address, ssl=context, server_hostname="localhost"))
    await peer.send(question("/ask/v/v/x", KEY))
    try:
        return await peer.message()
    finally:
        peer.close()


async def test_over_tls_a_plane_is_authenticated_by_its_certificate(tmp_path: Path) -> None:
    it_has = Certified(tmp_path)
    async with running(it_has.config()) as it:
        answer = await over_tls(it, it_has.context("edge.internal"))
        assert answer.one("Authorization") == f"Bearer {CANARY}".encode()
        assert (await over_tls(it, it_has.context("other.internal"))).status == 403
        for context in (it_has.context(None), it_has.context("edge.internal", trustme.CA())):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await over_tls(it, context)


async def test_the_certificate_of_a_plane_does_not_authenticate_the_app(tmp_path: Path) -> None:
    """Even if a client is authenticated by the same certificate on the data port."""
    it_has = Certified(tmp_path)
    config = it_has.config()
    config["tls"] = {**config["planes"]["tls"]}
    config["clients"] = [{"name": "web", "certificates": ["dns:edge.internal"]}]
    async with running(config) as it:
        assert (await over_tls(it, it_has.context("edge.internal"))).status == 401


async def test_a_reload_uses_a_renewed_certificate(tmp_path: Path) -> None:
    it_has = Certified(tmp_path)
    async with running(it_has.config()) as it:
        renewed = Certified(tmp_path)
        await reload(it, tmp_path, renewed.config())
        assert (await over_tls(it, renewed.context("edge.internal"))).status == 200


async def test_the_app_s_key_is_in_no_log_line(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)) as it:
        await ask(tmp_path, f"/ask/v/v/x?key={WEB}", f"Authorization: Bearer {WEB}x", f"X-Gatepass-Refused: {WEB}")
        await ask(tmp_path, f"/ask/v/v/{WEB}", KEY)
        assert WEB not in it.log
