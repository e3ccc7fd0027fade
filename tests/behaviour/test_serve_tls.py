"""TLS on the data port: what is agreed on, what is refused, and certificates that change while apps are connected."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from gateway.config import load
from tests.kit.configuration import problems
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.served import Served
from tests.kit.stall import unless_stalled
from tests.kit.wire import Peer, answering, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model import Config


def issue(folder: Path, ca: trustme.CA, name: str = "localhost", until: datetime | None = None) -> dict[str, str]:
    """Write a certificate and its key; the same files every time."""
    made = ca.issue_cert(name, not_after=until)
    (folder / "tls.key").write_bytes(made.private_key_pem.bytes())
    (folder / "tls.crt").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    return {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")}


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def connect_tls(address: tuple[str, int], context: ssl.SSLContext) -> Peer:
    return Peer(*await asyncio.open_connection(*address, ssl=context, server_hostname="localhost"))


async def ask(address: tuple[str, int], context: ssl.SSLContext) -> Peer:
    app = await connect_tls(address, context)
    await app.send(get("/v/x"))
    assert (await app.message()).status == 200
    return app


def loaded(folder: Path, config: dict[str, Any]) -> Config:
    path = folder / "next.yaml"
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, **config}))
    return load([path], environ={"CANARY": CANARY})


async def test_apps_are_served_over_tls_1_3_with_http_1_1(tmp_path: Path) -> None:
    ca = trustme.CA()
    async with (
        vendor(answering(ok())) as it_vendor,
        running({**one_route(it_vendor.port), "tls": issue(tmp_path, ca)}) as it,
    ):
        context = trusting(ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        app = await ask(it.address, context)
        agreed = app.writer.get_extra_info("ssl_object")
        assert (agreed.version(), agreed.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        app.close()


@pytest.mark.parametrize(
    ("version", "ciphers", "agreed"),
    [
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+CHACHA20", True),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", False),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA", False),
        (ssl.TLSVersion.TLSv1_2, "DHE+AESGCM", False),
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", False),
        (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0", False),
    ],
    ids=["1.2 AES-GCM", "1.2 ChaCha20", "no forward secrecy", "CBC", "finite-field DH", "1.1", "1.0"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_only_modern_tls_is_agreed_on(
    version: ssl.TLSVersion, ciphers: str, agreed: bool, tmp_path: Path
) -> None:
    ca = trustme.CA()
    async with (
        vendor(answering(ok())) as it_vendor,
        running({**one_route(it_vendor.port), "tls": issue(tmp_path, ca)}) as it,
    ):
        context = trusting(ca)
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(ciphers)
        if agreed:
            (await ask(it.address, context)).close()
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await ask(it.address, context)


async def test_plain_http_on_the_tls_port_gets_no_answer(tmp_path: Path) -> None:
    async with (
        vendor(answering(ok())) as it_vendor,
        running({**one_route(it_vendor.port), "tls": issue(tmp_path, trustme.CA())}) as it,
    ):
        app = Peer(*await asyncio.open_connection(*it.address))
        await app.send(get("/v/x"))
        data = await app.reader.read(1000)
        assert not data.startswith(b"HTTP")
        app.close()
        assert it_vendor.connections == 0
        events = [json.loads(line) for line in it.log.splitlines()]
    [event] = [each for each in events if each["event"] == "handshake_failed"]
    assert (event["level"], event["reason"], event["remote"]) == (
        "warning",
        "plain HTTP on a port with TLS",
        "127.0.0.1",
    )


@pytest.mark.parametrize("raw", [b"GET /v/x", b"POST / HTTP/1.1\r\n", b"hello there"])
async def test_whatever_else_is_sent_to_the_tls_port_has_a_reason_in_the_log(tmp_path: Path, raw: bytes) -> None:
    async with running({**one_route(1), "tls": issue(tmp_path, trustme.CA())}) as it:
        app = Peer(*await asyncio.open_connection(*it.address))
        await app.send(raw)
        await app.reader.read(1000)
        app.close()
        events = [json.loads(line) for line in it.log.splitlines()]
    [event] = [each for each in events if each["event"] == "handshake_failed"]
    assert event["reason"]


async def test_a_handshake_that_only_stalls_is_logged_and_a_silent_connection_is_not(tmp_path: Path) -> None:
    config = {**one_route(1), "tls": issue(tmp_path, trustme.CA()), "limits": {"header_timeout": 0.2}}
    async with running(config) as it:
        silent, stalled = [Peer(*await asyncio.open_connection(*it.address)) for _ in range(2)]
        await stalled.send(b"\x16\x03\x01\x02")
        assert await silent.reader.read() == await stalled.reader.read() == b""
        events = [json.loads(line) for line in it.log.splitlines()]
        silent.close()
        stalled.close()
    [event] = [each for each in events if each["event"] == "handshake_failed"]
    assert event["reason"] == "the handshake did not end in time"


async def test_a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    async with vendor(answering(ok())) as it_vendor:
        until = datetime(2036, 1, 1, tzinfo=UTC)
        config = {"access": "open", **one_route(it_vendor.port), "tls": issue(tmp_path, old, until=until)}
        async with running(config) as it:
            kept = await ask(it.address, trusting(old))
            assert it.metric("gatepass_tls_certificate_expiry_timestamp_seconds") == 2_082_758_400
            config["tls"] = issue(tmp_path, new, until=datetime(2037, 1, 1, tzinfo=UTC))
            await it.gateway.reload(loaded(tmp_path, config))
            (await ask(it.address, trusting(new))).close()
            assert it.metric("gatepass_tls_certificate_expiry_timestamp_seconds") == 2_114_380_800
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(it.address, trusting(old))
            await kept.send(get("/v/x"))
            assert (await kept.message()).status == 200
            kept.close()


@pytest.mark.parametrize("how", ["the files change", "SIGHUP"])
async def test_a_certificate_that_is_renewed_on_disk_is_shown_without_a_restart(how: str, tmp_path: Path) -> None:
    """As certbot does it: the same names, other files. Nobody asks, or SIGHUP does; open connections go on."""
    old, new = trustme.CA(), trustme.CA()
    async with vendor(answering(ok())) as it_vendor:
        config = {"access": "open", **one_route(it_vendor.port), "tls": issue(tmp_path, old)}
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            kept = await ask(gateway.address, trusting(old))
            issue(tmp_path, new)
            if how == "SIGHUP":
                gateway.signal(signal.SIGHUP)
            await gateway.seen("reloaded", seconds=30)
            (await ask(gateway.address, trusting(new))).close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(gateway.address, trusting(old))
            await kept.send(get("/v/x"))
            assert (await kept.message()).status == 200
            kept.close()
            assert gateway.process is not None
            assert gateway.process.returncode is None
            assert len(gateway.events("started")) == 1


async def test_a_certificate_whose_key_does_not_fit_is_not_taken_up(tmp_path: Path) -> None:
    """Half of a renewal: the old pair goes on, the mistake is told, and the whole renewal is taken up by itself."""
    old, new = trustme.CA(), trustme.CA()
    (tmp_path / "made").mkdir()
    issue(tmp_path / "made", new)
    async with vendor(answering(ok())) as it_vendor:
        config = {"access": "open", **one_route(it_vendor.port), "tls": issue(tmp_path, old)}
        async with Served(tmp_path, config, environ={"CANARY": CANARY}) as gateway:
            (tmp_path / "tls.crt").write_bytes((tmp_path / "made" / "tls.crt").read_bytes())
            refused = await gateway.seen("reload_refused", seconds=30)
            assert "tls: certificate and key are not a pair" in refused["problems"][0]
            (await ask(gateway.address, trusting(old))).close()
            (tmp_path / "tls.key").write_bytes((tmp_path / "made" / "tls.key").read_bytes())
            await gateway.seen("reloaded", seconds=30)
            (await ask(gateway.address, trusting(new))).close()


async def test_with_client_ca_only_apps_with_a_certificate_of_it_are_served(tmp_path: Path) -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    (tmp_path / "clients.pem").write_bytes(ca.cert_pem.bytes())
    tls = {**issue(tmp_path, ca), "client_ca": str(tmp_path / "clients.pem")}
    async with vendor(answering(ok())) as it_vendor, running({**one_route(it_vendor.port), "tls": tls}) as it:
        known = trusting(ca)
        ca.issue_cert("web.internal").configure_cert(known)
        (await ask(it.address, known)).close()
        other = trusting(ca)
        stranger.issue_cert("web.internal").configure_cert(other)
        for context in (trusting(ca), other):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await ask(it.address, context)


@unless_stalled
async def test_a_handshake_that_stalls_is_ended(tmp_path: Path) -> None:
    config = {"tls": issue(tmp_path, trustme.CA()), "limits": {"header_timeout": "300ms"}}
    async with vendor(answering(ok())) as it_vendor, running({**one_route(it_vendor.port), **config}) as it:
        with socket.create_connection(it.address) as silent:
            silent.setblocking(False)
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(silent, 10) == b""


def test_files_that_are_no_pair_are_a_mistake_before_any_port_opens(tmp_path: Path) -> None:
    tls = issue(tmp_path, trustme.CA())
    (tmp_path / "other").mkdir()
    other = issue(tmp_path / "other", trustme.CA())
    text = yaml.safe_dump({**one_route(1), "tls": {**tls, "key": other["key"]}})
    assert problems(tmp_path, text, CANARY=CANARY) == [
        "config.yaml:9: tls: certificate and key are not a pair of PEM files"
    ]
