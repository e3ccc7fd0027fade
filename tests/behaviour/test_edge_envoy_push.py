"""Envoy with pushed tokens and the shipped configuration: a refused token is replaced, and no app gets a 401."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from typing import TYPE_CHECKING

import pytest

from gateway.planes import refusals
from tests.kit.edge_cases import BODY
from tests.kit.endpoint import Answer
from tests.kit.pushed_edge import PushedEdge, envoy, pushed
from tests.kit.served import until
from tests.kit.wire import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.edge_cases import Scene


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushedEdge]:
    with envoy(tmp_path_factory.mktemp("envoy")) as it:
        yield it


def in_file(edge: PushedEdge) -> str:
    """The token in Envoy's file; empty if it is withdrawn, or not there yet."""
    try:
        shown = json.loads((edge.sds / "idfy.json").read_bytes())
    except FileNotFoundError:
        return ""
    return str(shown["resources"][0]["generic_secret"]["secret"]["inline_string"])


async def served(it: Scene) -> None:
    """Wait until Envoy uses the token of this gateway."""
    await answered(it, 200)


async def answered(it: Scene, status: int) -> None:
    """Call until the answer has this status: Envoy reads a file some milliseconds after it was written."""
    async with asyncio.timeout(PATIENCE):
        while (await it.call())[0] != status:
            pass
    it.vendor.seen.clear()


async def test_the_vendor_gets_the_token_and_the_request_without_the_app_s_credentials(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        assert (await it.call("/idfy/a%2Fb?q=%20x", headers={"Cookie": "a=b"}))[0] == 200
        (seen,) = it.vendor.seen
        assert seen.target in {"/a%2Fb?q=%20x", "/a/b?q=%20x"}
        assert "Cookie" not in seen.fields


async def test_a_large_post_arrives_whole(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        assert (await it.call(method="POST", data=io.BytesIO(BODY)))[0] == 200
        assert it.vendor.seen[0].digest == hashlib.sha256(BODY).hexdigest()


async def test_events_are_streamed_and_a_websocket_is_opened(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        async with it.session.get(f"http://127.0.0.1:{edge.port}/idfy/events") as answer:
            assert await answer.content.readuntil(b"\n\n") == b"data: one\n\n"
            it.vendor.go_on.set()
            assert await answer.content.readuntil(b"\n\n") == b"data: two\n\n"
        async with it.session.ws_connect(f"http://127.0.0.1:{edge.port}/idfy/socket") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=PATIENCE) == "echo hello"


async def test_tokens_revoked_during_a_stream_of_posts_are_replaced_and_no_app_notices(
    edge: PushedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "PROVEN", 0.0)  # as if each token had been in use for some seconds
    monkeypatch.setattr(refusals, "NEW", 0.2)
    bodies = [f"order {number}".encode() for number in range(300)]
    waiting = list(bodies)
    answers: list[int] = []

    async with pushed(edge, endpoint={"latency": 0.1}) as it:
        await served(it)

        async def app() -> None:
            while waiting:
                answers.append((await it.call(method="POST", data=waiting.pop()))[0])
                if len(answers) in {60, 180}:
                    it.revoke()

        await asyncio.gather(*(app() for _ in range(8)))
        assert answers == [200] * len(bodies)
        assert len(it.endpoint.issued) == 3, "one fetch for each revocation"
        taken = sorted(each.digest for each in it.vendor.seen if each.digest)
        assert taken == sorted(hashlib.sha256(body).hexdigest() for body in bodies), "each order exactly once"


async def test_a_large_post_is_sent_once_more_and_whole(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        await asyncio.sleep(refusals.NEW)
        it.revoke()
        assert (await it.call(method="POST", data=io.BytesIO(BODY)))[0] == 200
        digests = [each.digest for each in it.vendor.seen if each.digest]
        assert digests == [hashlib.sha256(BODY).hexdigest()]


async def test_without_a_token_the_app_gets_503_and_retry_after(edge: PushedEdge) -> None:
    async with pushed(edge, endpoint={"always": Answer(status=500)}) as it:
        await until(lambda: in_file(edge) == "")
        await answered(it, 503)
        status, fields = await it.call(method="POST", data=b"x")
        assert (status, fields["Retry-After"]) == (503, "1")
        assert not it.vendor.seen


async def test_nothing_is_forwarded_after_gatepass_has_stopped_until_it_runs_again(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        await it.gateway.gateway.stop()
        await answered(it, 503)
        assert (await it.call())[0] == 503
        assert not it.vendor.seen
    async with pushed(edge) as it:
        await served(it)


async def test_if_the_vendor_refuses_every_token_the_app_gets_its_401_and_few_tokens_are_fetched(
    edge: PushedEdge,
) -> None:
    async with pushed(edge) as it:
        await served(it)
        it.vendor.good = lambda _: False
        statuses = [(await it.call(method="POST", data=b"x"))[0] for _ in range(10)]
        assert set(statuses) == {401}
        assert len(it.endpoint.issued) <= 3


async def test_a_vendor_cannot_ask_for_a_replay(edge: PushedEdge) -> None:
    """Only our filter may set the field that lets Envoy send a request again, never the vendor."""
    async with pushed(edge) as it:
        await served(it)
        it.vendor.sends["x-gatepass-replay"] = "1"
        status, fields = await it.call(method="POST", data=b"x")
        assert (status, len(it.vendor.seen), "x-gatepass-replay" in fields) == (200, 1, False)


async def test_a_refresh_is_used_by_the_next_request_after_it(edge: PushedEdge) -> None:
    async with pushed(edge) as it:
        await served(it)
        await it.gateway.gateway.tokens.fetch_now("idfy")
        newest = it.endpoint.issued[-1]
        async with asyncio.timeout(PATIENCE):
            while it.vendor.seen[-1:] == [] or it.vendor.seen[-1].fields["Authorization"] != f"Bearer {newest}":
                assert (await it.call())[0] == 200
