"""Upstreams over TLS: verified, or not spoken to; and an end without close_notify is no end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import socket
import ssl
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway.access.keysets import JwksFetcher
from gateway.addresses import Networks
from gateway.clock import SystemClock
from gateway.model import Issuer, Upstream
from gateway.proxy.connect import Connector
from gateway.resolver import Resolver
from gateway.tls import UpstreamContexts, client_context
from gateway.tokens.grant import TokenRequest
from gateway.tokens.sender import Sender
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.gateway import Running
    from tests.kit.wire import Script


@asynccontextmanager
async def tls_vendor(script: Script, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Run a raw vendor over TLS; yield its port."""
    peers: set[Peer] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peers.add(peer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for peer in peers:
            peer.reset()


def context_for(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def self_signed(name: str) -> ssl.SSLContext:
    """Present a certificate that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(certificate.public_bytes(Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def logged(it: Running) -> list[tuple[str, str | None]]:
    """Code and reason of each request so far; the reason without the vendor's host in front, which must be there."""
    events = [event for event in map(json.loads, it.log.splitlines()) if event["event"] == "request"]
    host = it.routes[0].route.upstream.authority
    assert all((event["reason"] or host).startswith(host) for event in events)
    return [(event["code"], (event["reason"] or "").removeprefix(f"{host}: ") or None) for event in events]


def to(port: int, ca_file: str | None = None, host: str = "localhost") -> dict[str, object]:
    return one_route(port, upstream=f"https://{host}:{port}", **({"ca_file": ca_file} if ca_file else {}))


async def test_a_vendor_behind_a_custom_authority_is_reached_by_name(authority: trustme.CA, ca_file: str) -> None:
    """With SNI, with TLS 1.2 or newer, offering HTTP/1.1 only; and the connection is used again."""
    seen: list[Message] = []
    names: list[str | None] = []
    context = context_for(authority.issue_cert("localhost"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _, name, __: names.append(name)
    async with tls_vendor(answering(ok(b"over TLS"), seen=seen), context) as port, running(to(port, ca_file)) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(get("/v/a"))
            assert (await app.message()).body == b"over TLS"
    assert names == ["localhost"]
    assert [message.one("Authorization") for message in seen] == [f"Bearer {CANARY}".encode()] * 3


def _wrong(kind: str, authority: trustme.CA) -> ssl.SSLContext:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    if kind == "expired":
        return context_for(authority.issue_cert("localhost", not_after=past))
    if kind == "another host":
        return context_for(authority.issue_cert("other.example"))
    if kind == "another authority":
        return context_for(trustme.CA().issue_cert("localhost"))
    if kind == "self-signed":
        return self_signed("localhost")
    context = context_for(authority.issue_cert("localhost"))
    if kind == "TLS 1.1":
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("expired", "tls_certificate_error", "certificate: certificate has expired"),
        (
            "another host",
            "tls_certificate_error",
            "certificate: Hostname mismatch, certificate is not valid for 'localhost'.",
        ),
        ("another authority", "tls_certificate_error", "certificate: unable to get local issuer certificate"),
        ("self-signed", "tls_certificate_error", "certificate: self-signed certificate"),
        ("TLS 1.1", "tls_protocol_error", "the connection broke off in the handshake"),
    ],
)
async def test_a_vendor_that_cannot_be_trusted_is_502_and_the_log_says_why(
    kind: str, error: str, reason: str, authority: trustme.CA, ca_file: str
) -> None:
    """The token never leaves; the app is told no more than `upstream_tls` and the kind of failure (RFC 9209 §2.3)."""
    seen: list[Message] = []
    async with (
        tls_vendor(answering(ok(), seen=seen), _wrong(kind, authority)) as port,
        running(to(port, ca_file)) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_tls")
        assert json.loads(got.body)["detail"] == "The vendor's TLS failed"
        assert got.one("Proxy-Status").decode() == (
            f'gatepass; error={error}; next-hop="upstream:v"; details="upstream_tls"'
        )
        assert logged(it) == [("upstream_tls", reason)]
        assert it.metric("gatepass_upstream_connects_total", route="v", outcome="tls") == 1
        assert it.at_rest()
    assert seen == []


async def test_a_self_signed_vendor_is_not_trusted_by_the_systems_authorities(authority: trustme.CA) -> None:
    """Nothing in the configuration turns verification off."""
    async with (
        tls_vendor(answering(ok()), context_for(authority.issue_cert("localhost"))) as port,
        running(to(port)) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a"))
        assert (await app.message()).status == 502
        assert logged(it) == [("upstream_tls", "certificate: unable to get local issuer certificate")]


async def test_a_vendor_that_wants_no_ciphers_of_ours_or_closes_is_502(authority: trustme.CA, ca_file: str) -> None:
    """A handshake that is cut off is one that failed, not a vendor that cannot be reached."""
    context = context_for(authority.issue_cert("localhost"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256")
    async with tls_vendor(answering(ok()), context) as port, running(to(port, ca_file)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_tls")
        assert b"error=tls_protocol_error" in got.one("Proxy-Status")


async def test_a_vendor_that_speaks_no_tls_is_502(ca_file: str) -> None:
    """And says so in the log."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with vendor(script) as upstream, running(to(upstream.port, ca_file)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        got = await app.message()
        assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_tls")
        assert b"error=tls_protocol_error" in got.one("Proxy-Status")
        ((code, reason),) = logged(it)
        assert code == "upstream_tls"
        assert reason in {"wrong version number", "record layer failure", "packet length too long"}, "by OpenSSL's age"


@pytest.mark.parametrize("orderly", [True, False], ids=["close_notify", "no close_notify"])
async def test_a_body_until_close_is_whole_only_with_close_notify(
    orderly: bool, authority: trustme.CA, ca_file: str
) -> None:
    """Without it anybody on the path could have cut it off (RFC 9112 §9.8)."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await asyncio.sleep(0.05)
        if not orderly:  # FIN without a word of TLS
            with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.2)

    async with (
        tls_vendor(script, context_for(authority.issue_cert("localhost"))) as port,
        running(to(port, ca_file)) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a"))
        if orderly:
            assert (await app.message()).body == b"hello"
        else:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await app.message()
        assert it.at_rest()


async def test_a_client_certificate_is_shown_to_a_vendor_that_wants_one(
    authority: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    """Mutual TLS with the vendor's API."""
    context = context_for(authority.issue_cert("localhost"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    mine = authority.issue_cert("gateway.example")
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    names = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    async with tls_vendor(answering(ok(b"known")), context) as port:
        config = to(port, ca_file)
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            assert (await app.message()).status == 502
        config["routes"]["v"]["client_certificate"] = names  # type: ignore[index]
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            assert (await app.message()).body == b"known"


async def test_large_bodies_pass_over_tls_both_ways(authority: trustme.CA, ca_file: str) -> None:
    """With back-pressure through the TLS layer."""
    size = 2**22

    async def script(peer: Peer) -> None:
        request = await peer.head()
        left = int(request.one("Content-Length"))
        await asyncio.sleep(0.05)
        while left:
            left -= len(await peer.reader.read(2**16))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await peer.send(b"y" * size)

    async with (
        tls_vendor(script, context_for(authority.issue_cert("localhost"))) as port,
        running(to(port, ca_file)) as it,
    ):
        app = await connect(it.address)
        app.writer.write(get("/v/a", f"Content-Length: {size}", method="POST") + b"x" * size)
        assert (await app.message()).body == b"y" * size
        assert it.at_rest()


async def test_a_websocket_passes_over_tls(authority: trustme.CA, ca_file: str) -> None:
    """Either end's farewell ends the tunnel: over TLS there is no half."""
    handshake = get(
        "/v/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"
    )

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        await peer.send(b"echo " + await peer.reader.readexactly(4))

    async with (
        tls_vendor(script, context_for(authority.issue_cert("localhost"))) as port,
        running(to(port, ca_file)) as it,
    ):
        app = await connect(it.address)
        await app.send(handshake)
        assert (await app.head()).status == 101
        await app.send(b"ping")
        assert await app.reader.read(-1) == b"earlyecho ping"
        app.close()
        await until(it.at_rest)
        assert "has no effect" not in it.log


@pytest.mark.parametrize("said", [0, 100], ids=["nothing", "a part of its hello"])
async def test_a_vendor_that_stops_in_the_handshake_is_a_time_out(
    said: int, authority: trustme.CA, ca_file: str
) -> None:
    """It is slow or hangs; nothing is wrong with its TLS."""
    context = context_for(authority.issue_cert("localhost"))

    async def script(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(await peer.reader.read(2**16))
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        await peer.send(outgoing.read(said) if said else b"")
        await peer.reader.read(-1)

    async with vendor(script) as upstream:
        route = one_route(
            upstream.port,
            upstream=f"https://localhost:{upstream.port}",
            ca_file=ca_file,
            timeouts={"connect": "300ms"},
        )
        async with running(route) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            got = await app.message()
            assert (got.status, json.loads(got.body)["code"]) == (504, "upstream_timeout")
            assert b"error=connection_timeout" in got.one("Proxy-Status")
            assert logged(it) == [("upstream_timeout", "connect time-out")]
            assert it.metric("gatepass_upstream_connects_total", route="v", outcome="timeout") == 1


async def test_the_event_loop_s_own_time_out_never_ends_a_handshake() -> None:
    """It is a minute, and what it raises looks like a connection that the vendor broke off."""
    connector = Connector(Upstream("https", "localhost", 1), 90.0, UpstreamContexts(), Resolver())
    asked: dict[str, float] = {}

    class Loop:
        async def create_connection(self, *_: object, **options: float) -> None:
            asked.update(options)

    async with vendor(answering(ok())) as upstream:
        sock = socket.create_connection(("127.0.0.1", upstream.port))
        await connector._negotiate(Loop(), sock, lambda _: None)  # type: ignore[arg-type]
        sock.close()
    assert asked["ssl_handshake_timeout"] > 90


# ------------------------------------------------------------------------------------- a name with a dot at its end


async def test_a_dot_at_the_end_of_a_vendor_s_name_is_not_in_sni_nor_looked_for_in_its_certificate(
    authority: trustme.CA, ca_file: str
) -> None:
    """RFC 6066 §3. The name is looked up as it is written: with the dot no search domain is tried."""
    names: list[str | None] = []
    seen: list[Message] = []
    system = System()
    system.addresses = {"vendor.test.": ["127.0.0.1"]}
    context = context_for(authority.issue_cert("vendor.test"))
    context.sni_callback = lambda _, name, __: names.append(name)
    async with tls_vendor(answering(ok(), seen=seen), context) as port:
        config = {**to(port, ca_file, "vendor.test."), "allow_addresses": ["127.0.0.0/8"]}
        async with running(config, resolver=resolver_of(system)) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            assert (await app.message()).status == 200
    assert names == ["vendor.test"]
    assert set(system.asked) == {"vendor.test."}
    assert seen[0].one("Host") == f"vendor.test.:{port}".encode()


async def test_a_certificate_for_another_name_does_not_become_right_by_a_dot(
    authority: trustme.CA, ca_file: str
) -> None:
    system = System()
    system.addresses = {"vendor.test.": ["127.0.0.1"]}
    context = context_for(authority.issue_cert("other.test"))
    async with tls_vendor(answering(ok()), context) as port:
        config = {**to(port, ca_file, "vendor.test."), "allow_addresses": ["127.0.0.0/8"]}
        async with running(config, resolver=resolver_of(system)) as it:
            app = await connect(it.address)
            await app.send(get("/v/a"))
            assert (await app.message()).status == 502
            assert logged(it) == [
                ("upstream_tls", "certificate: Hostname mismatch, certificate is not valid for 'vendor.test'.")
            ]


async def test_a_dot_at_the_end_of_a_token_endpoint_s_or_an_issuer_s_name_does_no_harm_either(
    authority: trustme.CA, ca_file: str
) -> None:
    system = System()
    system.addresses = {"vendor.test.": ["127.0.0.1"]}
    resolver = resolver_of(system)
    names: list[str | None] = []
    context = context_for(authority.issue_cert("vendor.test"))
    context.sni_callback = lambda _, name, __: names.append(name)
    allowed = Networks(["127.0.0.0/8"])
    async with tls_vendor(answering(ok()), context) as port:
        sender = Sender(SystemClock(), allowed, resolver)
        request = TokenRequest("POST", f"https://vendor.test.:{port}/token", (), b"secret=CANARY")
        tls = client_context(Path(ca_file))
        assert (await sender.send(request, tls=tls, within=60)).status == 200
        await sender.close()
        issuer = Issuer("corp", "x", ("gatepass",), jwks_url=f"https://vendor.test.:{port}/keys", ca_file=Path(ca_file))
        assert await JwksFetcher(allowed, resolver)(issuer) == b"{}"
    assert names == ["vendor.test", "vendor.test"]
