"""Through the company's proxy: a real one, for upstreams, token endpoints, issuers and the trace collector."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from gateway.access.keysets import JwksFetcher
from gateway.addresses import AddressRefused, Networks
from gateway.clock import SystemClock
from gateway.egress import EgressError
from gateway.errors import TokenUnavailable
from gateway.model import Egress, Issuer, Secret
from gateway.tls import client_context
from gateway.tokens.grant import TokenRequest
from gateway.tokens.sender import Sender
from tests.kit.configuration import loaded
from tests.kit.gateway import CANARY, Running, one_route, running
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.proxy import PASSWORD, USER, tinyproxy, tls_in_front
from tests.kit.rest import until
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor
from tests.wire.test_upstream_tls import context_for, tls_vendor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LOGIN = {"username": USER, "password": PASSWORD}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The vendors' authority."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "vendors.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def through(proxy_port: int, vendor_port: int, scheme: str = "http", **more: Any) -> dict[str, Any]:
    """Return a configuration whose vendor is reached through a proxy."""
    config = one_route(vendor_port, upstream=f"{scheme}://vendor.test:{vendor_port}", **more.pop("route", {}))
    return {**config, "egress": {"proxy": f"http://127.0.0.1:{proxy_port}", **more}}


def reasons(it: Running) -> list[tuple[str, str]]:
    """Code and reason of each request so far; the vendor's name before the reason is left out."""
    events = [json.loads(line) for line in it.log.splitlines()]
    return [
        (event["code"], re.sub(r"^\S+?:[0-9]+: ", "", event["reason"] or ""))
        for event in events
        if event["event"] == "request"
    ]


async def ask(it: Running, path: str = "/v/a") -> Message:
    app = await connect(it.address)
    await app.send(get(path))
    return await app.message()


# ---------------------------------------------------------------------------------------------------------- upstreams


async def test_an_https_vendor_is_reached_through_a_proxy_that_wants_a_login(
    authority: trustme.CA, ca_file: Path
) -> None:
    """One tunnel serves many requests; its TLS ends at the vendor, so the proxy sees no token."""
    seen: list[Message] = []
    context = context_for(authority.issue_cert("vendor.test"))
    async with tinyproxy(login=True) as proxy, tls_vendor(answering(ok(b"far away"), seen=seen), context) as port:
        config = through(proxy.port, port, "https", route={"ca_file": str(ca_file)}, **LOGIN)
        async with running(config) as it:
            for _ in range(3):
                assert (await ask(it)).body == b"far away"
            assert PASSWORD not in it.log
            told = [json.loads(line) for line in it.log.splitlines() if "egress_proxy" in line]
            assert [(each["event"], each["proxy"]) for each in told] == [
                ("egress_proxy", f"http://127.0.0.1:{proxy.port}")
            ]
            assert it.metric("gatepass_upstream_connects_total", route="v", outcome="ok") == 1
        assert proxy.tunnels == [f"vendor.test:{port}"]
    assert [message.one("Authorization") for message in seen] == [f"Bearer {CANARY}".encode()] * 3
    assert not any(message.all("Proxy-Authorization") for message in seen)


async def test_a_plain_vendor_is_reached_through_a_tunnel_too() -> None:
    async with tinyproxy() as proxy, vendor(answering(ok(b"plain"))) as upstream:
        async with running(through(proxy.port, upstream.port)) as it:
            assert (await ask(it)).body == b"plain"
        assert proxy.tunnels == [f"vendor.test:{upstream.port}"]


async def test_a_proxy_that_speaks_tls_is_verified_by_its_own_authority(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    """TLS inside TLS: neither authority is trusted for the other's certificate."""
    companys = trustme.CA()
    companys.cert_pem.write_to_path(str(tmp_path / "company.pem"))
    context = context_for(authority.issue_cert("vendor.test"))
    outer = context_for(companys.issue_cert("localhost"))
    async with (
        tinyproxy(login=True) as proxy,
        tls_in_front(proxy.port, outer) as front,
        tls_vendor(answering(ok(b"twice sealed")), context) as port,
    ):
        way = {"proxy": f"https://localhost:{front}", "ca_file": str(tmp_path / "company.pem"), **LOGIN}
        config = through(0, port, "https", route={"ca_file": str(ca_file)}) | {"egress": way}
        async with running(config) as it:
            for _ in range(3):
                assert (await ask(it)).body == b"twice sealed"
            assert it.metric("gatepass_upstream_connects_total", route="v", outcome="ok") == 1
        for wrong in ({**way, "ca_file": str(ca_file)}, {"proxy": way["proxy"], **LOGIN}):
            async with running({**config, "egress": wrong}) as it:
                assert (await ask(it)).status == 502
                ((code, reason),) = reasons(it)
                assert code == "upstream_unreachable"
                assert reason == "egress proxy: certificate: unable to get local issuer certificate"
        config["routes"]["v"]["ca_file"] = str(tmp_path / "company.pem")
        async with running(config) as it:
            assert (await ask(it)).status == 502
            assert reasons(it) == [("upstream_tls", "certificate: unable to get local issuer certificate")]


async def test_servers_in_no_proxy_and_this_machine_are_reached_directly() -> None:
    async with vendor(answering(ok())) as upstream:
        dead = {"proxy": "http://127.0.0.1:1"}
        config = one_route(upstream.port, upstream=f"http://localhost:{upstream.port}")
        async with running({**config, "egress": dead}) as it:
            assert (await ask(it)).status == 200
        async with running({**one_route(upstream.port), "egress": dead}) as it:
            assert (await ask(it)).status == 200


async def test_a_route_has_a_proxy_of_its_own_or_none() -> None:
    async with tinyproxy() as one, tinyproxy() as other, vendor(answering(ok())) as upstream:
        config = through(one.port, upstream.port)
        config["routes"]["other"] = {**config["routes"]["v"], "egress": {"proxy": f"http://127.0.0.1:{other.port}"}}
        config["routes"]["none"] = {**config["routes"]["v"], "egress": {"proxy": "direct"}}
        async with running(config) as it:
            assert (await ask(it, "/v/a")).status == 200
            assert (await ask(it, "/other/a")).status == 200
            assert (await ask(it, "/none/a")).status == 502
            assert reasons(it)[-1] == ("upstream_unreachable", "the name does not resolve")
        assert (len(one.tunnels), len(other.tunnels)) == (1, 1)


async def test_a_reload_changes_the_way_without_a_gap(tmp_path: Path) -> None:
    """From direct to the proxy, from one login to another, and back; the token in hand serves throughout."""
    token = ok(b'{"access_token": "CANARY-fetched", "expires_in": 3600}')
    system = System()
    system.addresses = {"vendor.test": ["127.0.0.1"], "auth.test": ["127.0.0.1"]}
    async with tinyproxy(login=True) as proxy, vendor(answering(token)) as endpoint, vendor(answering(ok())) as api:
        grant = {"url": f"http://auth.test:{endpoint.port}/token", "form": {"grant_type": "client_credentials"}}
        direct = one_route(api.port, upstream=f"http://vendor.test:{api.port}")
        direct["credentials"] = {"key": {"grant": {"request": grant}}}
        direct["allow_addresses"] = ["127.0.0.0/8"]
        proxied = {**direct, "egress": {"proxy": f"http://127.0.0.1:{proxy.port}", **LOGIN}}
        wrong = {**direct, "egress": {**proxied["egress"], "password": "CANARY-wrong"}}
        async with running(direct, resolver=resolver_of(system)) as it:
            assert (await ask(it)).status == 200
            for turn, (config, status, tunnels) in enumerate(
                [(proxied, 200, 1), (wrong, 502, 2), (proxied, 200, 3), (direct, 200, 3)]
            ):
                text = yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "access": "open", **config})
                await it.gateway.reload(loaded(tmp_path, text))
                assert (await ask(it)).status == status, turn
                assert len(proxy.tunnels) == tunnels


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    async with vendor(answering(ok(b'{"access_token": "CANARY-t", "expires_in": 60}'), ok())) as upstream:
        sender = Sender(SystemClock(), Networks())
        request = TokenRequest("POST", f"http://127.0.0.1:{upstream.port}/token", (), b"secret=CANARY")
        assert (await sender.send(request, tls=None, within=60)).status == 200
        await sender.close()
        async with running(one_route(upstream.port)) as it:
            assert (await ask(it)).status == 200


# ----------------------------------------------------------------------------------------------------------- failures


async def test_a_proxy_that_refuses_the_login_is_named() -> None:
    """Tinyproxy answers 407 without a login, and 401 to a wrong one."""
    async with tinyproxy(login=True) as proxy, vendor(answering(ok())) as upstream:
        for way, status in (({}, 407), ({**LOGIN, "password": "CANARY-wrong"}, 401)):
            async with running(through(proxy.port, upstream.port, **way)) as it:
                got = await ask(it)
                assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_unreachable")
                assert b"error=proxy_configuration_error" in got.one("Proxy-Status")
                assert str(status).encode() not in got.body
                assert reasons(it) == [("upstream_unreachable", f"egress proxy: {status}")]
                assert it.at_rest()
    assert upstream.connections == 0


async def test_a_vendor_that_the_proxy_cannot_reach_is_named_by_the_proxy_s_status() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with tinyproxy() as proxy, running(through(proxy.port, nobody.getsockname()[1])) as it:
            assert (await ask(it)).status == 502
            assert reasons(it) == [("upstream_unreachable", "egress proxy: 500")]


def saying(answer: bytes) -> Any:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    return script


async def no_tls(peer: Peer) -> None:
    await peer.reader.read(100)
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def silent(peer: Peer) -> None:
    await peer.reader.read(-1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (saying(b""), "it closed the connection"),
        (saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "403"),
        (saying(b"HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n"), "302"),
        (saying(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "bytes came before"),
        (saying(b"SSH-2.0-OpenSSH\r\n\r\n"), "its answer is not HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000), "its answer is too long"),
        (saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n"), "403"),
        (saying(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "101"),
        (silent, "connect time-out"),
    ],
    ids=["closes", "403", "302", "an answer nobody asked for", "SSH", "endless", "100 and 403", "101", "silent"],
)
async def test_what_a_proxy_does_instead_of_a_tunnel_is_named_and_leaves_nothing_open(script: Any, reason: str) -> None:
    async with vendor(script) as proxy:
        config = through(proxy.port, 443, route={"timeouts": {"connect": "400ms"}})
        async with running(config) as it:
            got = await ask(it)
            expected = (504, "upstream_timeout") if script is silent else (502, "upstream_unreachable")
            assert (got.status, json.loads(got.body)["code"]) == expected
            assert reasons(it)[0][1].startswith(f"egress proxy: {reason}")
            assert it.at_rest()
            await until(lambda: not proxy.open)


async def test_a_proxy_that_is_not_there_is_named() -> None:
    async with vendor(no_tls) as plain:
        ways = (
            ("http://127.0.0.1:1", "connection refused"),
            ("http://no.such.invalid:1", "the name does not resolve"),
            (f"https://127.0.0.1:{plain.port}", "its TLS failed"),
        )
        await _named(ways)


async def _named(ways: Iterable[tuple[str, str]]) -> None:
    for proxy, reason in ways:
        async with running(through(0, 443) | {"egress": {"proxy": proxy}}) as it:
            assert (await ask(it)).status == 502
            assert reasons(it)[0][1].startswith(f"egress proxy: {reason}")


async def test_a_vendor_that_stops_in_the_handshake_behind_a_proxy_is_a_time_out(ca_file: Path) -> None:
    route = {"timeouts": {"connect": "500ms"}, "ca_file": str(ca_file)}
    async with (
        tinyproxy() as proxy,
        vendor(silent) as upstream,
        running(through(proxy.port, upstream.port, "https", route=route)) as it,
    ):
        assert (await ask(it)).status == 504
        assert reasons(it) == [("upstream_timeout", "connect time-out")]
        assert it.at_rest()


async def breaks_off(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    await peer.reader.read(100)
    peer.reset()


async def test_a_handshake_behind_a_proxy_that_is_broken_off_is_the_vendor_s_tls() -> None:
    async with vendor(breaks_off) as proxy, running(through(proxy.port, 8443, "https")) as it:
        got = await ask(it)
        assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_tls")
        assert b"error=tls_protocol_error" in got.one("Proxy-Status")
        assert reasons(it) == [("upstream_tls", "the connection broke off in the handshake")]
        assert it.at_rest()


async def test_a_vendor_behind_a_proxy_that_closes_behind_the_handshake_gets_no_request(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close arrives before the gateway goes on, as on a busy machine; a request would wait for its time-out."""
    loop = asyncio.get_running_loop()
    start_tls = loop.start_tls

    async def slowly(transport: asyncio.Transport, protocol: Any, *args: Any, **named: Any) -> asyncio.Transport | None:
        secured = await start_tls(transport, protocol, *args, **named)
        await until(lambda: protocol.dirty)
        return secured

    async def closes(peer: Peer) -> None:
        peer.close()

    monkeypatch.setattr(loop, "start_tls", slowly)
    async with (
        tinyproxy() as proxy,
        tls_vendor(closes, context_for(authority.issue_cert("vendor.test"))) as port,
        running(through(proxy.port, port, "https", route={"ca_file": str(ca_file)})) as it,
    ):
        assert (await ask(it)).status == 502
        assert reasons(it) == [("upstream_tls", "the connection broke off in the handshake")]
        assert it.at_rest()


async def test_a_literal_address_where_nothing_goes_is_not_asked_of_the_proxy() -> None:
    """What a name leads to is known to the proxy alone."""
    async with vendor(silent) as proxy:
        for address in ("169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"):
            config = through(proxy.port, 443) | {}
            config["routes"]["v"]["upstream"] = f"https://{address}"
            async with running(config) as it:
                got = await ask(it)
                assert got.status == 502
                assert b"destination_ip_prohibited" in got.one("Proxy-Status")
    assert proxy.connections == 0


# ----------------------------------------------------------------------------------- token endpoints, issuers, traces


def egress(port: int, scheme: str = "http", ca_file: Path | None = None, password: str = PASSWORD) -> Egress:
    return Egress(scheme, "localhost" if ca_file else "127.0.0.1", port, USER, Secret(password), ca_file=ca_file)  # type: ignore[arg-type]


@pytest.mark.parametrize("sealed", [False, True], ids=["http proxy", "https proxy"])
async def test_a_token_endpoint_and_an_issuer_are_reached_through_the_proxy(
    sealed: bool, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    companys = trustme.CA()
    companys.cert_pem.write_to_path(str(tmp_path / "company.pem"))
    names: list[str | None] = []
    context = context_for(authority.issue_cert("auth.test", "login.test"))
    context.sni_callback = lambda _, name, __: names.append(name)
    async with (
        tinyproxy(login=True) as proxy,
        tls_in_front(proxy.port, context_for(companys.issue_cert("localhost"))) as front,
        tls_vendor(answering(ok()), context) as port,
    ):
        way = egress(front, "https", tmp_path / "company.pem") if sealed else egress(proxy.port)
        sender = Sender(SystemClock())
        request = TokenRequest("POST", f"https://auth.test.:{port}/token", (), b"secret=CANARY")
        answer = await sender.send(request, tls=client_context(ca_file), within=60, egress=way)
        assert answer.status == 200
        issuer = Issuer("corp", "x", ("us",), jwks_url=f"https://login.test:{port}/keys", ca_file=ca_file, egress=way)
        assert await JwksFetcher(Networks())(issuer) == b"{}"
        assert names == ["auth.test", "login.test"]
        assert proxy.tunnels == [f"auth.test.:{port}", f"login.test:{port}"]
        if sealed:
            wrong = egress(front, "https", ca_file)
            with pytest.raises(TokenUnavailable) as refusal:
                await sender.send(request, tls=client_context(ca_file), within=60, egress=wrong)
            assert refusal.value.reason.startswith("egress proxy: certificate: ")
        await sender.close()


async def test_a_proxy_s_refusal_of_a_token_request_or_of_an_issuer_is_named() -> None:
    async with tinyproxy(login=True) as proxy, vendor(answering(ok())) as endpoint, vendor(no_tls) as plain:
        sender = Sender(SystemClock())
        refusing = Egress("http", "127.0.0.1", proxy.port)
        for scheme in ("https", "http"):
            url = f"{scheme}://auth.test:{endpoint.port}/token"
            request = TokenRequest("POST", url, (), b"secret=CANARY")
            ways = (
                (refusing, "407"),
                (egress(1), "connection refused"),
                (Egress("http", "no.such.invalid", 3128), "the name does not resolve"),
                (Egress("https", "127.0.0.1", plain.port), "its TLS failed"),
            )
            for way, reason in ways:
                with pytest.raises(TokenUnavailable) as refusal:
                    await sender.send(request, tls=None, within=60, egress=way)
                assert refusal.value.reason == f"egress proxy: {reason}"
                issuer = Issuer("corp", "x", ("us",), jwks_url=url, egress=way)
                with pytest.raises(EgressError, match=f"egress proxy: {reason}"):
                    await JwksFetcher(Networks())(issuer)
        request = TokenRequest("POST", "https://169.254.169.254/token", (), b"secret=CANARY")
        with pytest.raises(TokenUnavailable) as unasked:
            await sender.send(request, tls=None, within=60, egress=egress(proxy.port))
        assert "a link-local address" in unasked.value.reason
        with pytest.raises(AddressRefused):
            await JwksFetcher(Networks())(
                Issuer("corp", "x", ("us",), jwks_url="https://169.254.169.254/k", egress=egress(proxy.port))
            )
        await sender.close()
    assert endpoint.connections == 0


async def test_a_failure_of_an_endpoint_that_is_reached_directly_is_not_blamed_on_the_proxy() -> None:
    sender = Sender(SystemClock())
    way = Egress("http", "127.0.0.1", 3128, no_proxy=("near.invalid", "10.0.0.0/8"))
    for url, reason in (
        ("https://near.invalid/token", "the token endpoint's name cannot be resolved"),
        ("http://127.0.0.1:1/token", "the token endpoint cannot be reached (connection refused)"),
    ):
        with pytest.raises(TokenUnavailable) as failure:
            await sender.send(TokenRequest("POST", url, (), b""), tls=None, within=60, egress=way)
        assert failure.value.reason == reason
    await sender.close()


async def test_a_gateway_fetches_its_tokens_through_the_proxy_and_a_credential_may_go_directly() -> None:
    token = ok(b'{"access_token": "CANARY-fetched", "expires_in": 3600}')
    async with tinyproxy(login=True) as proxy, vendor(answering(token)) as endpoint, vendor(answering(ok())) as api:

        def fetched(host: str, **more: Any) -> dict[str, Any]:
            url = f"http://{host}:{endpoint.port}/token"
            return {"grant": {"request": {"url": url, "form": {"grant_type": "client_credentials"}}}, **more}

        config = through(proxy.port, api.port, **LOGIN)
        config["credentials"] = {"key": fetched("auth.test"), "near": fetched("127.0.0.1", egress={"proxy": "direct"})}
        config["routes"]["near"] = {**config["routes"]["v"], "credential": "near"}
        async with running(config) as it:
            assert (await ask(it, "/v/a")).status == 200
            assert (await ask(it, "/near/a")).status == 200
            assert PASSWORD not in it.log
        assert endpoint.connections == 2


@pytest.mark.parametrize("way", ["http proxy", "https proxy", "direct"])
async def test_spans_are_sent_to_a_verified_collector_through_the_proxy(
    way: str, authority: trustme.CA, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    companys = trustme.CA()
    companys.cert_pem.write_to_path(str(tmp_path / "company.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ca_file))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    seen: list[Message] = []
    host = "localhost" if way == "direct" else "collector.test"
    context = context_for(authority.issue_cert(host))
    async with (
        tinyproxy(login=True) as proxy,
        tls_in_front(proxy.port, context_for(companys.issue_cert("localhost"))) as front,
        tls_vendor(answering(ok(b""), seen=seen), context) as port,
        vendor(answering(ok())) as api,
    ):
        url = f"https://localhost:{front}" if way == "https proxy" else f"http://127.0.0.1:{proxy.port}"
        more = {"ca_file": str(tmp_path / "company.pem")} if way == "https proxy" else {}
        config = {**one_route(api.port), "egress": {"proxy": url, **LOGIN, **more}}
        config["tracing"] = {"otlp": f"https://{host}:{port}", "sample": 1.0}
        async with running(config) as it:
            assert (await ask(it)).status == 200
            await until(lambda: seen)
            assert PASSWORD not in it.log
        assert proxy.tunnels[:1] == ([] if way == "direct" else [f"{host}:{port}"])
    assert not any(message.all("Proxy-Authorization") for message in seen)


async def test_a_collector_that_nobody_vouches_for_gets_no_span(authority: trustme.CA) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    seen: list[Message] = []
    context = context_for(authority.issue_cert("localhost"))
    async with tls_vendor(answering(ok(b""), seen=seen), context) as port, vendor(answering(ok())) as api:
        config = {**one_route(api.port), "tracing": {"otlp": f"https://localhost:{port}", "sample": 1.0}}
        async with running(config) as it:
            assert (await ask(it)).status == 200
            await until(lambda: "traces_not_sent" in it.log)
    assert not seen


# --------------------------------------------------------------------------------------------------------- under load


async def test_requests_bodies_and_websockets_pass_through_the_proxy_under_load(
    authority: trustme.CA, ca_file: Path
) -> None:
    """Each app gets its own answer, whole; tunnels are reused, and none is left behind."""
    rng = random.Random(5)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.all("Upgrade"):
                await peer.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                while data := await peer.reader.read(2**16):
                    await peer.send(data)
                return
            digest = hashlib.sha256(request.body).hexdigest().encode()
            await peer.send(ok(digest + request.target + bytes(len(request.body))))

    async def app(number: int, it: Running) -> None:
        peer = await connect(it.address)
        for turn in range(6):
            body = rng.randbytes(rng.choice((1, 900, 70_000, 400_000)))
            await peer.send(post(f"/v/{number}-{turn}", body))
            got = await peer.message()
            assert got.status == 200, (got.status, got.body[:200])
            expected = hashlib.sha256(body).hexdigest().encode() + b"/%d-%d" % (number, turn) + bytes(len(body))
            assert got.body == expected
        peer.close()

    async def socket_of(number: int, it: Running) -> None:
        peer = await connect(it.address)
        await peer.send(get("/v/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))  # fmt: skip
        assert (await peer.head()).status == 101
        for turn in range(20):
            message = b"%d-%d;" % (number, turn) * 300
            await peer.send(message)
            async with asyncio.timeout(30):
                assert await peer.reader.readexactly(len(message)) == message
        peer.close()

    context = context_for(authority.issue_cert("vendor.test"))
    async with tinyproxy(login=True) as proxy, tls_vendor(script, context) as port:
        route = {"ca_file": str(ca_file), "pool": {"size": 24, "wait": "60s"}}
        async with running(through(proxy.port, port, "https", route=route, **LOGIN)) as it:
            await asyncio.gather(
                *(app(number, it) for number in range(30)), *(socket_of(number, it) for number in range(6))
            )
            await until(it.at_rest)
            failed = [event for event in reasons(it) if event[0]]
            assert not failed
        assert len(proxy.tunnels) <= 30 + 6, "tunnels were reused"
