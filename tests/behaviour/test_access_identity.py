"""Clients known by JWT and by certificate, on real sockets: keys over HTTP, certificates in a handshake."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.access import hash_key
from gateway.proxy.tunnel import Tunnel
from tests.behaviour.test_serve_tls import loaded
from tests.kit.gateway import Running, one_route, running
from tests.kit.signing import AUDIENCE, ISSUER, jwk, jwks, token
from tests.kit.stall import unless_stalled
from tests.kit.wire import OPENED, Message, Peer, answering, connect, get, ok, vendor
from tests.wire.test_upgrades import HANDSHAKE, echo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "gp_CANARY-5f1d2c-do-not-print-web"


def fresh(name: str = "ec-1", **more: Any) -> str:
    now = time.time()
    return token(name, "ES256", **{"exp": now + 300, "iat": now, **more})


def config(port: int, jwks_port: int, **issuer: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{jwks_port}/keys"
    return {
        **one_route(port),
        "issuers": {"corp": {"issuer": ISSUER, "audience": [AUDIENCE], "jwks_url": url, **issuer}},
        "clients": [{"name": "web", "jwt": [{"issuer": "corp", "claims": {"azp": "web"}}]}],
    }


async def ask(it: Running, *fields: str, path: str = "/v/a") -> Message:
    app = await connect(it.address)
    await app.send(get(path, *fields))
    return await app.message()


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - it is for the other side of a socket to come true
            await asyncio.sleep(0.005)


async def test_a_jwt_lets_its_client_in_under_new_keys_too_and_never_reaches_the_vendor() -> None:
    """As a bearer or as the gateway's key; the answer to a token under a new key waits for the key, not for luck."""
    seen: list[Message] = []
    documents = [ok(jwks(jwk("ec-1"))), ok(jwks(jwk("ec-1"), jwk("ec-2")))]
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        vendor(answering(*documents)) as endpoint,
        running(config(upstream.port, endpoint.port)) as it,
    ):
        sent = [fresh(), fresh(), fresh("ec-2")]
        assert (await ask(it, f"Authorization: Bearer {sent[0]}")).status == 200
        assert (await ask(it, f"X-Gatepass-Key: {sent[1]}")).status == 200
        assert endpoint.connections == 1
        assert (await ask(it, f"Authorization: Bearer {sent[2]}")).status == 200
        assert endpoint.connections == 2
        for bad in (fresh(aud="x"), fresh(exp=time.time() - 60), fresh("ec-3")):
            assert (await ask(it, f"Authorization: Bearer {bad}")).status == 401
        assert endpoint.connections == 2
        assert it.metric("gatepass_client_requests_total", client="web", route="v", outcome="ok") == 3
        log = it.log
    assert len(seen) == 3
    everything = log + "".join(str(message.headers) for message in seen)
    assert not any(each.split(".")[1] in everything for each in sent)


@pytest.mark.parametrize(("key", "status"), [("ec-2", 404), ("ec-3", 401)], ids=["known", "unknown"])
async def test_a_path_without_a_route_is_404_only_for_a_jwt_that_is_valid_under_the_fetched_keys(
    key: str, status: int
) -> None:
    documents = [ok(jwks(jwk("ec-1"))), ok(jwks(jwk("ec-1"), jwk("ec-2")))]
    async with (
        vendor(answering(ok())) as upstream,
        vendor(answering(*documents)) as endpoint,
        running(config(upstream.port, endpoint.port)) as it,
    ):
        assert (await ask(it, f"Authorization: Bearer {fresh()}")).status == 200
        assert (await ask(it, f"Authorization: Bearer {fresh(key)}", path="/nowhere")).status == status
        assert endpoint.connections == 2


async def test_a_websocket_goes_on_while_the_keys_of_its_jwt_are_being_fetched(tmp_path: Path) -> None:
    """A reload that changes the issuer makes the gateway fetch its keys anew."""
    answers = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        if endpoint.connections > 1:
            await answers.wait()
        await peer.send(ok(jwks(jwk("ec-1"))))

    async with (
        vendor(echo) as upstream,
        vendor(script) as endpoint,
        running(config(upstream.port, endpoint.port)) as it,
    ):
        app = await connect(it.address)
        await app.send(HANDSHAKE[:-2] + f"Authorization: Bearer {fresh()}\r\n\r\n".encode())
        assert (await app.head()).status == 101
        assert it.gateway._data is not None
        (connection,) = it.gateway._data._connections
        await it.gateway.reload(loaded(tmp_path, config(upstream.port, endpoint.port, refresh="200s")))
        await eventually(lambda: endpoint.connections == 2)
        for turn in (1, 2):
            tunnel = connection._tunnel
            assert isinstance(tunnel, Tunnel)
            before = tunnel._checked
            tunnel.sweep(asyncio.get_running_loop().time() + turn)  # as in a second or two
            assert (tunnel._checked > before, tunnel.reason) == (True, "")
            await app.send(b"still")
            assert await app.reader.readexactly(5) == b"still"
            answers.set()
            await eventually(lambda: all(keys.usable for keys in it.gateway._access._keysets.values()))
        app.close()
        await eventually(it.at_rest)


@unless_stalled
async def test_while_the_jwks_endpoint_is_down_old_keys_go_on_then_503_and_never_open() -> None:
    async def once(peer: Peer) -> None:
        await peer.message()
        if endpoint.connections == 1:
            await peer.send(ok(jwks(jwk("ec-1"))))
        else:
            peer.reset()

    async with (
        vendor(answering(ok())) as upstream,
        vendor(once) as endpoint,
        running(config(upstream.port, endpoint.port, refresh="0.1s", max_age="1s")) as it,
    ):
        bearer = f"Authorization: Bearer {fresh()}"
        assert (await ask(it, bearer)).status == 200
        await eventually(lambda: endpoint.connections > 2)
        assert (await ask(it, bearer)).status == 200
        answers: list[Message] = []
        async with asyncio.timeout(30):
            while not answers or answers[-1].status == 200:
                answers.append(await ask(it, bearer))
        refused = answers[-1]
        assert (refused.status, json.loads(refused.body)["code"]) == (503, "identity_unavailable")
        assert refused.one("Retry-After")
        assert (await ask(it, "Authorization: Bearer nonsense")).status == 401


async def test_a_key_goes_on_beside_a_jwks_endpoint_that_never_answered() -> None:
    async def never(peer: Peer) -> None:
        peer.reset()

    async with vendor(answering(ok())) as upstream, vendor(never) as endpoint:
        whole = config(upstream.port, endpoint.port)
        whole["clients"][0]["key_sha256"] = hash_key(KEY)
        async with running(whole) as it:
            assert (await ask(it, f"X-Gatepass-Key: {KEY}")).status == 200
            assert (await ask(it, f"Authorization: Bearer {fresh()}")).status == 503


# ------------------------------------------------------------------------------------------------------- certificates

CA, OTHERS = trustme.CA(), trustme.CA()
SERVER = CA.issue_cert("localhost", "127.0.0.1")


def tls_config(folder: Path, port: int) -> dict[str, Any]:
    files = {
        "certificate": SERVER.cert_chain_pems[0].bytes(),
        "key": SERVER.private_key_pem.bytes(),
        "client_ca": CA.cert_pem.bytes(),
    }
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    return {
        **one_route(port),
        "tls": {name: str(folder / f"{name}.pem") for name in files},
        "clients": [
            {"name": "web", "certificates": ["dns:web.internal"], "key_sha256": hash_key(KEY)},
            {"name": "batch", "certificates": ["subject:CN=batch,OU=Jobs,O=Acme"]},
        ],
    }


async def connect_with(it: Running, certificate: trustme.LeafCert) -> Peer:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    certificate.configure_cert(context)
    peer = Peer(*await asyncio.open_connection(*it.address, ssl=context, server_hostname="localhost"))
    OPENED.append(peer)
    return peer


WEB = CA.issue_cert("web.internal")
BATCH = CA.issue_cert("x.internal", common_name="batch", organization_name="Acme", organization_unit_name="Jobs")
STRANGER = CA.issue_cert("stranger.internal")


@pytest.mark.parametrize(
    ("certificate", "fields", "status", "client"),
    [
        (WEB, [], 200, "web"),
        (BATCH, [], 200, "batch"),
        (WEB, [f"X-Gatepass-Key: {KEY}"], 200, "web"),
        (STRANGER, [f"X-Gatepass-Key: {KEY}"], 200, "web"),
        (STRANGER, [], 401, None),
        (BATCH, [f"X-Gatepass-Key: {KEY}"], 401, None),
        (WEB, ["X-Gatepass-Key: gp_wrong"], 401, None),
    ],
    ids=["SAN", "subject", "both agree", "a key beside it", "nobody's", "disagree", "a wrong key beside it"],
)
async def test_a_client_is_known_by_the_certificate_of_its_connection(
    certificate: trustme.LeafCert, fields: list[str], status: int, client: str | None, tmp_path: Path
) -> None:
    async with vendor(answering(ok())) as upstream, running(tls_config(tmp_path, upstream.port)) as it:
        app = await connect_with(it, certificate)
        for _ in range(2):
            await app.send(get("/v/a", *fields))
            assert (await app.message()).status == status
        told = [json.loads(line)["client"] for line in it.log.splitlines() if '"event":"request"' in line]
    assert told == [client, client]


async def test_a_certificate_of_another_authority_opens_nothing(tmp_path: Path) -> None:
    seen: list[Message] = []

    async def try_it(it: Running) -> None:
        app = await connect_with(it, OTHERS.issue_cert("web.internal"))
        await app.send(get("/v/a"))
        await app.message()

    async with vendor(answering(ok(), seen=seen)) as upstream, running(tls_config(tmp_path, upstream.port)) as it:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await try_it(it)
    assert not seen


@pytest.mark.parametrize(
    "fields",
    ["Content-Security-Policy: default-src " + "x" * 40_000, "\r\n".join(f"X-{n}: y" for n in range(150))],
    ids=["a long field", "many fields"],
)
async def test_keys_are_read_behind_a_large_head(fields: str) -> None:
    document = jwks(jwk("ec-1"))
    head = f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {len(document)}\r\n\r\n"
    async with (
        vendor(answering(ok())) as upstream,
        vendor(answering(head.encode() + document)) as endpoint,
        running(config(upstream.port, endpoint.port)) as it,
    ):
        assert (await ask(it, f"Authorization: Bearer {fresh()}")).status == 200


async def test_keys_behind_a_query_are_fetched_with_it_as_it_is_written() -> None:
    seen: list[Message] = []
    async with (
        vendor(answering(ok())) as upstream,
        vendor(answering(ok(jwks(jwk("ec-1"))), seen=seen)) as endpoint,
    ):
        url = f"http://127.0.0.1:{endpoint.port}/keys?p=B2C_1A%2Fsignin&v=2.0"
        async with running(config(upstream.port, endpoint.port, jwks_url=url)) as it:
            assert (await ask(it, f"Authorization: Bearer {fresh()}")).status == 200
    assert seen[0].target == b"/keys?p=B2C_1A%2Fsignin&v=2.0"


async def test_callers_that_wait_for_keys_take_no_place_of_those_that_are_known() -> None:
    """An endpoint that hangs, as many unknown tokens as there may be requests, and a client with a key."""
    key = "gp_CANARY-5f1d2c-do-not-print-web"
    hangs = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await hangs.wait()

    async with vendor(answering(ok())) as upstream, vendor(script) as endpoint:
        settings = config(upstream.port, endpoint.port)
        settings["clients"].append({"name": "other", "key_sha256": hash_key(key)})
        async with running({**settings, "limits": {"exchanges": 3}}) as it:
            apps = [await connect(it.address) for _ in range(6)]
            for app in apps:
                await app.send(get("/v/a", f"Authorization: Bearer {fresh('ec-2')}"))
            await eventually(lambda: sum(keys._waiting for keys in it.gateway._access._keysets.values()) == 6)
            assert (await ask(it, f"X-Gatepass-Key: {key}")).status == 200
            hangs.set()
