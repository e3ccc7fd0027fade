"""Vendor connections that are never used for a second exchange, because it would get another one's answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kit.configuration import loaded
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.names import System
from tests.kit.names import resolver as resolver_of
from tests.kit.wire import Message, Peer, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.app import Gateway
    from gateway.resolver import Resolver

LOGIN = "Authorization: {}"


def by_connection(*answers: bytes) -> tuple[list[str], object]:
    """Return who is logged in on each request, and a vendor that keeps a connection's login (as IIS does)."""
    answered: list[str] = []
    left = list(answers)

    async def script(peer: Peer) -> None:
        who = "nobody"
        while True:
            request = await peer.message()
            for value in request.all("Authorization"):
                who = value.decode("latin-1").split()[-1]
            answered.append(who)
            await peer.send(left.pop(0) if left else ok())

    return answered, script


async def answered_as(config: dict[str, object], script: object, *fields: str) -> None:
    """Send a request with these fields, and then one of another app, without a login."""
    async with vendor(script) as upstream:  # type: ignore[arg-type]
        route = config["routes"]["v"]  # type: ignore[index]
        route["upstream"] = f"http://127.0.0.1:{upstream.port}"
        async with running(config) as it:
            for sent in (fields, ()):
                app = await connect(it.address)
                await app.send(get("/v/a", *sent))
                await app.message()


def passing() -> dict[str, object]:
    return one_route(0, authorization="pass", header="X-Api-Key")


@pytest.mark.parametrize(
    "login",
    ["Negotiate bob", "NTLM bob", "ntlm bob", "NEGOTIATE\tbob", "Kerberos bob", "Nego2 bob", "Negotiate  \t bob"],
)
async def test_a_login_that_belongs_to_a_connection_is_nobody_else_s(login: str) -> None:
    answered, script = by_connection()
    await answered_as(passing(), script, LOGIN.format(login))
    assert answered == ["bob", "nobody"]


async def test_the_second_of_two_logins_counts_as_well() -> None:
    answered, script = by_connection()
    await answered_as(passing(), script, LOGIN.format("Basic alice"), LOGIN.format("NTLM bob"))
    assert answered == ["bob", "nobody"]


@pytest.mark.parametrize(
    "challenge",
    [
        b"WWW-Authenticate: Negotiate",
        b"WWW-Authenticate: NTLM TlRMTVNTUAACAAAA",
        b'WWW-Authenticate: Basic realm="x", negotiate',
        b"www-authenticate: Basic\r\nWWW-Authenticate: NTLM",
        b"Persistent-Auth: true",
    ],
)
async def test_a_vendor_that_keeps_logins_by_connection_is_believed(challenge: bytes) -> None:
    """Whatever scheme the app has used: the vendor's challenge, or IIS's own field, tells that it does so."""
    challenged = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" + challenge + b"\r\n\r\n"
    answered, script = by_connection(challenged)
    await answered_as(passing(), script, LOGIN.format("Custom bob"))
    assert answered == ["bob", "nobody"]


@pytest.mark.parametrize("login", ["Basic bob", "Bearer bob", "Digest bob", "Negotiated bob", "NTLM-like bob"])
async def test_a_login_that_belongs_to_a_request_costs_no_connection(login: str) -> None:
    async with vendor(by_connection()[1]) as upstream:  # type: ignore[arg-type]
        config = one_route(upstream.port, authorization="pass", header="X-Api-Key")
        async with running(config) as it:
            app = await connect(it.address)
            for _ in range(3):
                await app.send(get("/v/a", LOGIN.format(login)))
                assert (await app.message()).status == 200
        assert upstream.connections == 1


# ---------------------------------------------------------------------------------------- content where none may be


async def late_content(head: bytes, *, before: bytes = b"") -> list[Message]:
    """Answer the first request with a head; what it declares arrives when the next request is on its way.

    Returns the answers to both.
    """
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(before + head)
        await peer.message()
        await peer.send(smuggled)

    answers = []

    async def other(peer: Peer) -> None:
        await peer.message()
        await peer.send(ok(b"honest"))
        await peer.reader.read(-1)

    scripts = [script, other]

    async def each(peer: Peer) -> None:
        await scripts.pop(0)(peer)

    async with vendor(each) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(2):
            await app.send(get("/v/a"))
            answers.append(await app.message())
    return answers


@pytest.mark.parametrize(
    "field",
    [b"Content-Length: 47", b"Transfer-Encoding: chunked", b"content-length:\t47"],
    ids=["length", "chunked", "tab"],
)
async def test_a_204_that_declares_content_is_the_last_answer_of_its_connection(field: bytes) -> None:
    """Its content may come at any time, and would be the next app's answer (RFC 9110 §8.6)."""
    first, second = await late_content(b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n")
    assert (first.status, second.status, second.body) == (204, 200, b"honest")


async def test_so_is_the_answer_behind_an_interim_one_that_declares_content() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 47\r\n\r\n"
    first, second = await late_content(ok(b"first"), before=interim)
    assert (first.body, second.body) == (b"first", b"honest")


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 47\r\n\r\n", "GET"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD"),
    ],
    ids=["204", "204 with no length", "304", "HEAD", "HEAD chunked"],
)
async def test_an_answer_that_may_declare_content_without_having_it_costs_no_connection(
    head: bytes, method: str
) -> None:
    """RFC 9110 §8.6: a 304 and the answer to a HEAD say how long the content would be."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(head)

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for _ in range(3):
            await app.send(get("/v/a", method=method))
            assert (await app.message(is_head=True)).status in {200, 204, 304}
        assert upstream.connections == 1


# --------------------------------------------------------------------------------------------- an address now forbidden


async def test_a_reload_that_forbids_an_address_holds_for_open_connections_too(tmp_path: Path) -> None:
    """Idle ones are closed at once; one in use ends with its exchange."""
    hold, arrived = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.message()).target == b"/held":
                arrived.set()
                await hold.wait()
            await peer.send(ok())

    async with vendor(script) as upstream:
        config = one_route(upstream.port, upstream=f"http://vendor.test:{upstream.port}")
        allowing = {**config, "allow_addresses": ["127.0.0.0/8"]}
        async with running(allowing, resolver=_loopback()) as it:
            await _ask(it.address, "/v/a")
            held = asyncio.ensure_future(_ask(it.address, "/v/held"))
            await arrived.wait()
            await _ask(it.address, "/v/b")
            assert upstream.connections == 2
            await _reload(it.gateway, tmp_path, config)
            assert await _ask(it.address, "/v/a") == 502
            hold.set()
            assert await held == 200
            assert await _ask(it.address, "/v/a") == 502
            await _reload(it.gateway, tmp_path, allowing)
            assert await _ask(it.address, "/v/a") == 200
            assert upstream.connections == 3


def _loopback() -> Resolver:
    system = System()
    system.addresses["vendor.test"] = ["127.0.0.1"]
    return resolver_of(system)


async def _ask(address: tuple[str, int], path: str) -> int:
    app = await connect(address)
    await app.send(get(path))
    return (await app.message()).status


async def _reload(gateway: Gateway, folder: Path, config: dict[str, object]) -> None:
    text = yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "access": "open", **config})
    await gateway.reload(loaded(folder, text, CANARY=CANARY))


async def test_a_reload_that_still_allows_an_address_keeps_its_connection(tmp_path: Path) -> None:
    async with vendor(answering(ok())) as upstream:
        config = one_route(upstream.port, upstream=f"http://vendor.test:{upstream.port}")
        async with running({**config, "allow_addresses": ["127.0.0.0/8"]}, resolver=_loopback()) as it:
            assert await _ask(it.address, "/v/a") == 200
            await _reload(it.gateway, tmp_path, {**config, "allow_addresses": ["127.0.0.1/32"]})
            assert await _ask(it.address, "/v/a") == 200
        assert upstream.connections == 1
