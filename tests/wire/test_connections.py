"""Connections: kept, shared, pipelined, cut off in every phase; what runs ends at once and nothing is left over."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.gateway import one_route, running
from tests.kit.rest import Rest, until
from tests.kit.stall import unless_stalled
from tests.kit.wire import Message, Peer, answering, connect, get, ok, post, vendor


async def test_one_vendor_connection_serves_many_apps() -> None:
    """And the one used last is used first."""
    async with vendor(answering(ok())) as upstream, running(one_route(upstream.port)) as it:
        for _ in range(5):
            app = await connect(it.address)
            for _ in range(5):
                await app.send(get("/v/a"))
                assert (await app.message()).status == 200
            app.close()
        assert upstream.connections == 1


async def test_pipelined_requests_of_every_framing_are_answered_in_order() -> None:
    """In one segment, in two halves, and byte by byte."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            await peer.send(ok(request.target + b" " + request.body))

    chunked = get("/v/2", "Transfer-Encoding: chunked", method="POST") + b"3\r\ntwo\r\n0\r\n\r\n"
    trailers = get("/v/3", "Transfer-Encoding: chunked", method="POST") + b"5\r\nthree\r\n0\r\nX-T: 1\r\n\r\n"
    stream = (
        post("/v/1", b"one") + chunked + trailers + get("/v/4") + b"\r\n" + post("/v/5", b"five" * 10_000) + get("/v/6")
    )
    expected = [b"/1 one", b"/2 two", b"/3 three", b"/4 ", b"/5 " + b"five" * 10_000, b"/6 "]
    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        for size in (len(stream), len(stream) // 2 + 1, 997, 1):
            app = await connect(it.address)
            for at in range(0, len(stream), size):
                app.writer.write(stream[at : at + size])
                if at < 2000:
                    await asyncio.sleep(0)
            assert [(await app.message()).body for _ in expected] == expected
            app.close()


async def test_requests_behind_one_that_closes_are_not_served() -> None:
    """`Connection: close` is the last word (RFC 9112 §9.6)."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Connection: close") + get("/v/b"))
        assert (await app.message()).one("Connection") == b"close"
        assert await app.at_end()
    assert len(seen) == 1


@pytest.mark.parametrize(
    "fields", [[], ["Connection: keep-alive"], ["Connection: Keep-Alive", "Keep-Alive: timeout=5"]]
)
async def test_an_http_1_0_app_gets_its_answer_and_the_end_of_the_connection(fields: list[str]) -> None:
    """Keep-alive is not offered to HTTP/1.0; the vendor is asked in HTTP/1.1 all the same."""
    seen: list[Message] = []
    async with vendor(answering(ok(b"hi"), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send("\r\n".join(("GET /v/a HTTP/1.0", *fields, "", "")).encode())
        got = await app.message()
        assert (got.start, got.body, got.one("Connection")) == (b"HTTP/1.1 200 OK", b"hi", b"close")
        assert await app.at_end()
    assert seen[0].start == b"GET /a HTTP/1.1"
    assert seen[0].one("Host") == f"127.0.0.1:{upstream.port}".encode()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_vendor_that_closes_behind_every_answer_costs_no_request(method: str) -> None:
    """With and without saying so; a POST is never sent twice."""
    targets: list[bytes] = []

    async def script(peer: Peer) -> None:
        request = await peer.message()
        targets.append(request.target)
        await peer.send(ok() if len(targets) % 2 else ok(b"{}", b"Connection: close"))

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for index in range(20):
            await app.send(post(f"/v/{index}", b"x") if method == "POST" else get(f"/v/{index}"))
            assert (await app.message()).status == 200
    assert targets == [b"/%d" % index for index in range(20)]


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_a_pool_of_stale_connections_after_a_restart_harms_nobody(how: str) -> None:
    """All of them are noticed and replaced; neither GET nor POST fails or arrives twice."""
    targets: list[bytes] = []
    together = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            targets.append(request.target)
            if len(targets) == 20:
                together.set()
            await together.wait()
            await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        apps = [await connect(it.address) for _ in range(20)]
        for index, app in enumerate(apps):
            await app.send(get(f"/v/{index}"))
        for app in apps:
            assert (await app.message()).status == 200
        assert upstream.connections == 20
        for peer in tuple(upstream.open):
            peer.reset() if how == "RST" else peer.close()
        for index, app in enumerate(apps):
            await app.send(post(f"/v/again-{index}", b"x") if index % 2 else get(f"/v/again-{index}"))
        assert [(await app.message()).status for app in apps] == [200] * 20
    assert len(set(targets)) == len(targets) == 40


async def test_a_get_is_sent_again_when_a_kept_connection_dies_under_it_and_a_post_is_not() -> None:
    """The vendor reads the request on the kept connection and closes without a word (RFC 9110 §9.2.2)."""
    targets: list[bytes] = []

    async def script(peer: Peer) -> None:
        for turn in range(2):
            request = await peer.message()
            targets.append(request.target)
            if turn == 0:
                await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        for path, again in (("/v/1", False), ("/v/2", True)):
            await app.send(get(path))
            assert (await app.message()).status == 200, again
        await app.send(post("/v/3", b"x"))
        got = await app.message()
        assert (got.status, b'"upstream_reset"' in got.body) == (502, True)
        assert it.at_rest()
    assert targets == [b"/1", b"/2", b"/2", b"/3"]


async def test_a_fresh_connection_that_dies_is_not_tried_again() -> None:
    """Nothing says that a second try would end otherwise."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await peer.message()
        asked += 1

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a"))
        assert (await app.message()).status == 502
    assert asked == 1


@pytest.mark.parametrize("speech", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"])
async def test_a_vendor_that_speaks_first_or_hangs_up_at_once_is_an_error(speech: bytes) -> None:
    """Not a wait for the time-out, and not an answer."""

    async def script(peer: Peer) -> None:
        await peer.send(speech)
        if speech:
            await peer.at_end()
        else:
            peer.reset()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        for method in ("GET", "POST"):
            app = await connect(it.address)
            await app.send(get("/v/a", method=method))
            got = await app.message()
            assert (got.status, b"poison" in got.body) == (502, False)
        assert it.at_rest()


# ------------------------------------------------------------------------------------------- the vendor breaks off

PHASES = {
    "before the head": (b"", 502),
    "inside the head": (b"HTTP/1.1 200 OK\r\nContent-Le", 502),
    "after an interim response": (b"HTTP/1.1 103 X\r\n\r\n", 502),
    "after the head": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None),
    "inside the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhell", None),
}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_vendor_that_breaks_off_in_any_phase(phase: str, how: str) -> None:
    """502 while there is no head, an aborted connection later; the gateway is at rest at once."""
    raw, status = PHASES[phase]
    half = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.send(raw)
        if status is None:
            await half.wait()
        else:
            await asyncio.sleep(0.01)
        peer.reset() if how == "RST" else peer.close()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        rest = Rest(it)
        app = await connect(it.address)
        await app.send(get("/v/a"))
        if status is not None:
            assert (await app.message()).status == status
            app.close()
        else:
            head = await app.head()
            half.set()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await app.body(head)
            app.close()
        await asyncio.sleep(0.01)
        assert await rest.comes(), rest.left_over


async def test_a_vendor_that_resets_while_the_app_uploads_ends_the_exchange_at_once() -> None:
    """Without waiting for the rest of the body."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.chunk()
        peer.reset()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
        got = await app.message()
        assert (got.status, got.one("Connection")) == (502, b"close")
        assert await app.at_end()
        assert it.at_rest()


# ---------------------------------------------------------------------------------------------- the app goes away

GONE = {
    "inside the head": b"GET /v/a HTTP/1.1\r\nHos",
    "inside a sized body": get("/v/a", "Content-Length: 9", method="POST") + b"hell",
    "inside a chunked body": get("/v/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n",
    "waiting for 100": get("/v/a", "Content-Length: 9", "Expect: 100-continue", method="POST"),
    "waiting for the answer": get("/v/a"),
    "with a pipelined request behind": get("/v/a") + get("/v/b"),
    "inside the answer": get("/v/stream"),
}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("phase", GONE)
async def test_an_app_that_goes_away_in_any_phase(phase: str, how: str) -> None:
    """The vendor sees it within 100 ms, and no task, socket, slot or gauge is left over."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        asked.set()
        if head.target == b"/stream":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")
        while await peer.reader.read(2**16):
            pass
        gone.set()

    async with vendor(script) as upstream, running(one_route(upstream.port)) as it:
        rest = Rest(it)
        app = await connect(it.address)
        await app.send(GONE[phase])
        if phase != "inside the head":
            await asked.wait()
        if phase == "inside the answer":
            await app.head()
        await asyncio.sleep(0.02)
        app.reset() if how == "RST" else app.close()
        if phase != "inside the head":
            await until(lambda: gone.is_set() or not upstream.open, within=0.1)
        assert await rest.comes(), rest.left_over
        assert upstream.connections == (phase != "inside the head")


async def test_an_app_that_goes_away_while_its_upload_is_held_back_is_noticed() -> None:
    """A paused transport is not told of it: the sweep looks."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.pause_reading()
        await until(lambda: peer.writer.is_closing() or not upstream.open)

    config = {**one_route(0, max_body=None), "limits": {"header_timeout": 0.4}}
    async with vendor(script) as upstream:
        config["routes"]["v"]["upstream"] = f"http://127.0.0.1:{upstream.port}"
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", f"Content-Length: {2**26}", method="POST"))
            app.writer.write(b"x" * 2**25)
            await asyncio.sleep(0.3)  # until the buffers are full
            assert not it.at_rest()
            app.reset()
            await until(it.at_rest, within=1)
            for peer in tuple(upstream.open):
                peer.reset()


async def test_an_app_that_goes_away_while_it_waits_for_a_connection_gives_its_place_up() -> None:
    """The next in line gets it."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.target == b"/hold":
                await go.wait()
            await peer.send(ok(request.target))

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 1, "wait": 60})) as it:
        holder, leaver, stayer = [await connect(it.address) for _ in range(3)]
        line = it.routes[0].pool._queue
        await holder.send(get("/v/hold"))
        await until(lambda: upstream.open)
        await leaver.send(get("/v/leaver"))
        await until(lambda: len(line) == 1)
        await stayer.send(get("/v/stayer"))
        await until(lambda: len(line) == 2)
        leaver.reset()
        await until(lambda: len(line) == 1)
        go.set()
        assert (await holder.message()).status == 200
        assert (await stayer.message()).body == b"/stayer"
        assert it.at_rest()
        assert upstream.connections == 1


async def test_an_app_that_goes_away_while_a_connection_is_being_opened_leaks_no_slot() -> None:
    """The TCP handshake, or the TLS one, is given up; the pool is whole again."""

    async def silent(peer: Peer) -> None:
        await peer.reader.read(-1)

    async with vendor(silent) as upstream:
        config = one_route(upstream.port, upstream=f"https://localhost:{upstream.port}", pool={"size": 2, "wait": 1})
        async with running(config) as it:
            rest = Rest(it)
            for _ in range(5):
                app = await connect(it.address)
                await app.send(get("/v/a"))
                await until(lambda: not it.at_rest())
                app.reset()
                assert await rest.comes(), rest.left_over


# ------------------------------------------------------------------------------------------------------- the pool


async def test_a_pool_never_opens_more_than_its_size() -> None:
    """A hundred apps, four connections, every answer to whom it belongs."""
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while True:
            request = await peer.message()
            most = max(most, len(upstream.open))
            await asyncio.sleep(0.001)
            await peer.send(ok(request.target))

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 4, "wait": 60})) as it:
        apps = [await connect(it.address) for _ in range(100)]
        for index, app in enumerate(apps):
            await app.send(get(f"/v/{index}"))
        assert [(await app.message()).body for app in apps] == [b"/%d" % index for index in range(100)]
        assert (most, upstream.connections) == (4, 4)
        assert it.at_rest()


async def test_who_waits_too_long_for_a_connection_gets_503() -> None:
    """With `Retry-After`; and the place in the line is free again."""

    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.at_end()

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 1, "wait": "100ms"})) as it:
        holder, other = await connect(it.address), await connect(it.address)
        await holder.send(get("/v/a"))
        await until(lambda: upstream.open)
        await other.send(get("/v/a"))
        got = await other.message()
        assert (got.status, b'"upstream_busy"' in got.body, got.one("Retry-After")) == (503, True, b"1")
        holder.reset()
        await until(it.at_rest)


@unless_stalled
async def test_the_wait_for_a_connection_is_bounded_in_all() -> None:
    """Being woken and finding the place taken does not start it anew."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.message()
            await asyncio.sleep(0.02)
            await peer.send(ok())

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 1, "wait": "300ms"})) as it:
        apps = [await connect(it.address) for _ in range(60)]
        loop = asyncio.get_running_loop()
        started = loop.time()
        for app in apps:
            await app.send(get("/v/a"))
        statuses = [(await app.message()).status for app in apps]
        assert set(statuses) == {200, 503}
        assert loop.time() - started < 1.5
        assert it.at_rest()


async def test_an_answered_connection_that_cannot_flush_does_not_stay_for_ever() -> None:
    """A vendor answers early and reads no more: what is left of the upload is given up."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.pause_reading()
        await asyncio.sleep(0.3)
        await peer.send(ok(b"early"))
        await asyncio.sleep(30)

    async with vendor(script) as upstream, running(one_route(upstream.port, max_body=None)) as it:
        app = await connect(it.address)
        app.writer.write(get("/v/a", f"Content-Length: {2**26}", method="POST") + b"x" * 2**24)
        assert (await app.message()).body == b"early"
        pool = it.routes[0].pool
        assert it.at_rest()
        assert not pool.finished
        pool.sweep(asyncio.get_running_loop().time() + 11)
        await until(lambda: pool.finished)
        for peer in tuple(upstream.open):
            peer.reset()


async def test_a_request_that_is_sent_again_gets_a_new_connection_although_idle_ones_fill_the_pool() -> None:
    """Its kept connection died, and a request that waited for that has taken the only place of the pool."""
    targets: list[bytes] = []
    asked, dies = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            targets.append(request.target)
            if targets.count(b"/again") == 1 and request.target == b"/again":
                asked.set()
                await dies.wait()
                return
            await peer.send(ok(request.target))

    async with vendor(script) as upstream, running(one_route(upstream.port, pool={"size": 1, "wait": 60})) as it:
        app, other = await connect(it.address), await connect(it.address)
        await app.send(get("/v/first"))
        assert (await app.message()).body == b"/first"
        await app.send(get("/v/again"))
        await asked.wait()
        await other.send(get("/v/other"))
        await until(lambda: len(it.routes[0].pool._queue) == 1)
        dies.set()
        assert (await other.message()).body == b"/other"
        assert (await app.message()).body == b"/again"
        assert it.at_rest()
    assert targets == [b"/first", b"/again", b"/other", b"/again"]
    assert upstream.connections == 3
