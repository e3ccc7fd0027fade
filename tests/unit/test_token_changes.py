"""When a listener learns that another token is in use, or none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.errors import TokenUnavailable
from gateway.model import Credential, Secret
from gateway.observe import Metrics
from gateway.tokens import TokenSet
from tests.kit.clock import FakeClock
from tests.kit.endpoint import TokenEndpoint
from tests.kit.recipes import config, credential
from tests.kit.source import HandSource, cache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.model import Token
    from gateway.tokens import TokenCache


class Seen:
    """What a listener found in use each time it was called."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.source = HandSource(self.clock)
        self.tokens: list[Token | None] = []
        self.cache: TokenCache = cache(self.clock, self.source, changed=self._look)

    def _look(self) -> None:
        self.tokens.append(self.cache.peek())

    async def fetch(self, value: str) -> Token:
        self.cache.begin("startup")
        await self.clock.settle()
        await self.source.settle(self.source.token(value=value))
        token = self.cache.peek()
        assert token is not None
        return token


async def test_a_listener_finds_each_token_when_it_is_called() -> None:
    seen = Seen()
    first = await seen.fetch("CANARY-1")
    await seen.clock.advance(3590)
    await seen.source.settle(seen.source.token(value="CANARY-2"))
    assert [token is not None and token.value.reveal() for token in seen.tokens] == ["CANARY-1", "CANARY-2"]
    assert seen.tokens[0] is first


async def test_a_refused_token_is_gone_when_the_listener_is_called() -> None:
    seen = Seen()
    token = await seen.fetch("CANARY-1")
    seen.cache.accepted(token)
    seen.cache.discard(token)
    assert seen.tokens == [token, None]


async def test_a_token_from_before_a_reload_is_told() -> None:
    seen = Seen()
    token = replace(seen.source.token(), fetched_at=1000.0, expires_at=4000.0)
    seen.cache.adopt(token)
    assert seen.tokens == [token]


async def test_a_failed_fetch_is_no_change() -> None:
    seen = Seen()
    token = await seen.fetch("CANARY-1")
    await seen.clock.advance(3590)
    await seen.source.settle(TokenUnavailable(reason="down"))
    assert seen.tokens == [token]


async def test_looking_at_the_token_is_no_use() -> None:
    """A token that only a listener looks at is not kept warm by `keep_warm: used`."""
    seen = Seen()
    seen.cache = cache(seen.clock, seen.source, keep_warm="used")
    waiting = asyncio.ensure_future(seen.cache.fetch_now())
    await seen.clock.settle()
    await seen.source.settle(seen.source.token())
    await waiting
    assert seen.cache.peek() is not None
    await seen.clock.advance(3590)
    assert seen.source.count == 1


# ------------------------------------------------------------------------------------------------------ all credentials


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


def static(value: str) -> Credential:
    return Credential(name="fixed", static=Secret(value))


async def test_a_reload_tells_of_another_static_key() -> None:
    tokens = TokenSet(config(static("CANARY-a")), clock=FakeClock(), metrics=Metrics())
    seen = []
    tokens.changed = lambda: seen.append(tokens.held("fixed"))
    await tokens.reload(config(static("CANARY-b")))
    assert [token is not None and token.value.reveal() for token in seen] == ["CANARY-b"]
    await tokens.stop()


async def test_a_set_tells_of_the_tokens_of_all_its_credentials(endpoint: TokenEndpoint) -> None:
    tokens = TokenSet(
        config(*(credential(endpoint.url, n, request={"form": ((n, n),)}) for n in "ab")),
        clock=FakeClock(),
        metrics=Metrics(),
    )
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1

    tokens.changed = tell
    assert tokens.held("a") is None
    await tokens.start()
    await asyncio.wait_for(tokens.warmed.wait(), 30)
    assert told == len("ab")
    assert all(tokens.held(name) is not None for name in "ab")
    assert tokens.held("nobody") is None
    await tokens.stop()
