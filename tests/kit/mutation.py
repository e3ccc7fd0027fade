"""Sends correct requests and answers with a few changed bytes, which the gateway must survive.

`python -m tests.kit.mutation` runs until it is stopped (`make fuzz`); tests run a fixed number with a fixed seed.
"""

from __future__ import annotations

import asyncio
import re
import sys
from random import Random
from typing import TYPE_CHECKING

from tests.kit import paths
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.rest import Rest
from tests.kit.wire import PATIENCE, Peer, connect, get, ok, post, vendor

if TYPE_CHECKING:
    from tests.kit.gateway import Running

_ID = re.compile(rb"id-[0-9a-f]{16}")
_TOKEN = f"Bearer {CANARY}".encode()
_TOGETHER = 100
_LIMITS = {"header_timeout": "400ms", "body_timeout": "400ms", "keepalive_timeout": "400ms"}
_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\r\n\r\n",
        b"\r\n ",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"%",
        b"/",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\n",
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: authorization\r\n",
        b"Authorization: Bearer mine\r\n",
        b"Cookie: a=b\r\n",
    ),
    *(
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: evil\r\n",
        b"HTTP/1.0",
    ),
    *(
        b"0\r\n\r\n",
        b"5\r\n",
        b"ffffffffffffffff\r\n",
        b"-1",
        b"+1",
        b"0x",
        b"../",
        b"//",
        b"%2e%2e/",
        b"http://evil/",
        b"X" * 9000,
    ),
)


def mutated(random: Random, data: bytes) -> bytes:
    """Return `data` with one to four changes: bytes changed, removed, doubled or moved, or a special text inserted."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out) + 1)
        end = min(len(out), at + random.choice((1, 1, 2, 8, 40)))
        kind = random.randrange(6)
        if kind == 0 and at < len(out):
            out[at] = random.randrange(256)
        elif kind == 1:
            del out[at:end]
        elif kind == 2:
            out[at:at] = out[at:end]
        elif kind == 3:
            out[at:at] = random.choice(_PIECES)
        elif kind == 4:
            piece = bytes(out[at:end])
            del out[at:end]
            to = random.randrange(len(out) + 1)
            out[to:to] = piece
        else:
            lines = bytes(out).split(b"\r\n")
            line = random.randrange(len(lines))
            lines.insert(random.randrange(len(lines) + 1), lines[line])
            out = bytearray(b"\r\n".join(lines))
    return bytes(out)


def _requests(mark: str) -> tuple[bytes, ...]:
    chunked = get(f"/v/{mark}", "Transfer-Encoding: chunked", "X-A: 1", method="POST")
    return (
        get(f"/v/{mark}?q=%20", "Accept: */*", "X-Long: " + "y" * 60),
        post(f"/v/{mark}", b"hello world", "Content-Type: text/plain"),
        chunked + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
        chunked + b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        post(f"/v/{mark}", b"body", "Expect: 100-continue", "Connection: keep-alive"),
        get(
            f"/v/{mark}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 13",
        ),
        get(f"http://gatepass/v/{mark}", "Cookie: a=b", "Authorization: Bearer mine", method="DELETE"),
        get(f"/v/{mark}", method="HEAD"),
    )


_ANSWERS = (
    ok(b"the answer", b"X-A: 1"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 10\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
    b"HTTP/1.0 200 OK\r\n\r\nuntil close",
)


async def _echo(peer: Peer) -> None:
    """A vendor that checks every request, and answers with its target."""
    while True:
        request = await peer.head()
        names = [name.lower() for name, _ in request.headers]
        assert request.all("Authorization") == [_TOKEN], request
        assert names.count(b"host") == 1, request
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, request
        assert not {b"cookie", b"proxy-authorization", b"forwarded"} & set(names), request
        assert re.fullmatch(rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1", request.start), request
        try:
            await peer.body(request)
        except TimeoutError:
            return  # the app has not sent all of it, and on a busy machine the gateway has not yet timed out
        is_head = request.start.startswith(b"HEAD")
        answer = ok(request.target)
        await peer.send(answer[: answer.index(b"\r\n\r\n") + 4] if is_head else answer)


async def send_mutated_requests(seed: int, count: int) -> None:
    """Send `count` changed requests, a hundred at a time; raise AssertionError if a check fails."""
    random = Random(seed)
    async with vendor(_echo) as upstream, running({**one_route(upstream.port), "limits": _LIMITS}) as it:
        issued: set[bytes] = set()
        rest = Rest(it)

        async def one() -> None:
            mark = f"id-{random.getrandbits(64):016x}"
            issued.add(mark.encode())
            raw = mutated(random, random.choice(_requests(mark)))
            app = await connect(it.address)
            try:
                app.writer.write(raw + get(f"/v/{mark}-last", "Connection: close"))
                async with asyncio.timeout(PATIENCE):
                    said = await app.reader.read(-1)
            except ConnectionError:
                said = b""
            app.close()
            others = issued & set(_ID.findall(said)) - {mark.encode()}
            assert not others, (raw, said)

        for _ in range(count // _TOGETHER):
            await asyncio.gather(*(one() for _ in range(_TOGETHER)))
        await _alive(it, rest)


async def send_mutated_answers(seed: int, count: int) -> None:
    """Let a vendor send `count` changed answers; the next request must get its own answer."""
    random = Random(seed)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if b"id-" in request.target:
                await peer.send(ok(request.target))
                continue
            await peer.send(mutated(random, random.choice(_ANSWERS)))
            if random.randrange(4) == 0:
                return

    config = {**one_route(0, timeouts={"first_byte": "800ms", "idle": "200ms"}), "limits": _LIMITS}
    async with vendor(script) as upstream:
        config["routes"]["v"]["upstream"] = f"http://127.0.0.1:{upstream.port}"
        async with running(config) as it:
            rest = Rest(it)

            async def one() -> None:
                app = await connect(it.address)
                app.writer.write(get("/v/odd", "Connection: close"))
                try:
                    async with asyncio.timeout(PATIENCE):
                        await app.reader.read(-1)
                except ConnectionError:
                    pass
                mark = f"/id-{random.getrandbits(64):016x}"
                other = await connect(it.address)
                await other.send(get(f"/v{mark}", "Connection: close"))
                got = await other.message()
                assert (got.status, got.body) == (200, mark.encode()), got
                app.close()
                other.close()

            for _ in range(count // _TOGETHER):
                await asyncio.gather(*(one() for _ in range(_TOGETHER)))
            await _alive(it, rest)


async def _alive(it: Running, rest: Rest) -> None:
    """Check that the gateway serves, and that no exchange, connection, task or open file is left over."""
    app = await connect(it.address)
    await app.send(get("/v/id-alive", "Connection: close"))
    assert (await app.message()).body == b"/id-alive"
    app.close()
    for prepared in it.routes:
        prepared.pool.retire()  # closes idle connections: everything that is open after this is left over
    assert await rest.comes(within=30), rest.left_over
    assert '"code":"internal"' not in it.log
    assert "exchange_crashed" not in it.log


async def main() -> None:
    """Run with other seeds until it is stopped or finds a fault; print the seed of the fault."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else Random().getrandbits(32)
    while True:
        sys.stdout.write(f"seed {seed}\n")
        sys.stdout.flush()
        await send_mutated_requests(seed, 2000)
        await send_mutated_answers(seed, 1000)
        await asyncio.to_thread(paths.search, seed, 3000)
        seed += 1


if __name__ == "__main__":
    asyncio.run(main())
