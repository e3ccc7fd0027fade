"""Tokens while the store is down, slow, empty, cut off or without messages: none is missing, and few are requested."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import TokenUnavailable
from gateway.model import Secret
from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.faults import FaultProxy
from tests.kit.recipes import config, credential
from tests.kit.served import until
from tests.kit.sharing import COUNT, Instance, all_have, four, sharing, store_config
from tests.kit.valkey import STORE_KEY, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def behind(server: Store, count: int, endpoint: TokenEndpoint, **fields: Any) -> AsyncIterator[Any]:
    """Run instances, each of which reaches the store through a fault proxy of its own; yield both lists."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(server.port)) for _ in range(count)]
        settings = [store_config(proxy.port) for proxy in proxies]
        made = await stack.enter_async_context(sharing(settings, count, config(credential(endpoint.url, **fields))))
        yield made, proxies


async def away(made: list[Instance]) -> None:
    await until(lambda: not any(each.store.is_up for each in made), 10)


async def back(made: list[Instance]) -> None:
    await until(lambda: all(each.store.is_up for each in made), 10)


async def each_knows_all(made: list[Instance]) -> None:
    await until(lambda: all(each.store.members == len(made) for each in made), 10)


async def stored(server: Store, fence: int = 0) -> bytes:
    """Wait until a token is in the store, with this fence or any; return the name of its key."""
    async with asyncio.timeout(5):
        while True:
            for name in await server.command("KEYS", "*:t"):
                if not fence or int(await server.command("HGET", name, "f") or 0) == fence:
                    return bytes(name)
            await asyncio.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------ an outage


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "hang", "refuse"])
async def test_in_an_outage_every_instance_keeps_its_token_and_renews_it_by_itself(
    server: Store, endpoint: TokenEndpoint, fault: str
) -> None:
    endpoint.life = 3.0
    async with behind(server, COUNT, endpoint) as (made, proxies):
        await all_have(made)
        await each_knows_all(made)
        for proxy in proxies:
            if fault == "hang":
                proxy.hang()
            elif fault == "refuse":
                await proxy.refuse()
        if fault == "kill":
            await server.kill()
        gaps, began, asked = 0, time.monotonic(), endpoint.count
        while time.monotonic() - began < 4.0:
            gaps += any(each.tokens.current() is None for each in made)
            await asyncio.sleep(0.005)
        assert gaps == 0
        assert not any(each.store.is_up for each in made)
        assert COUNT <= endpoint.count - asked <= 3 * COUNT  # a token of 3 s is renewed after half of that


@pytest.mark.slow
async def test_in_an_outage_the_instances_take_turns_so_that_min_interval_holds_for_all_together(
    server: Store, endpoint: TokenEndpoint
) -> None:
    asked, interval = endpoint.note_times(), 0.5
    endpoint.life = 1.0
    async with behind(server, COUNT, endpoint, min_interval=interval) as (made, proxies):
        await all_have(made)
        await each_knows_all(made)
        for proxy in proxies:
            await proxy.refuse()
        await away(made)
        asked.clear()
        await asyncio.sleep(5.2)
    assert len(asked) >= COUNT
    for start in asked:
        within = [at for at in asked if start <= at < start + 10 * interval]
        assert len(within) <= 10


@pytest.mark.slow
async def test_with_store_outage_closed_the_token_is_used_to_its_end_and_no_other_is_requested(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.life = 3.0
    async with behind(server, 2, endpoint, store_outage="closed") as (made, proxies):
        await all_have(made)
        for proxy in proxies:
            await proxy.refuse()
        await away(made)
        asked = endpoint.count
        assert any(each.token for each in made)
        await until(lambda: not any(each.token for each in made), 5)
        for each in made:
            with pytest.raises(TokenUnavailable) as caught:
                await each.tokens.get()
            assert "store_outage" in caught.value.reason
            assert each.status.state == "unavailable"
        assert endpoint.count == asked
        for proxy in proxies:
            await proxy.heal()
        await all_have(made)
        assert endpoint.count == asked + 1


@pytest.mark.slow
async def test_with_single_active_token_only_the_last_holder_requests_tokens_until_the_old_one_expires(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.life = 4.0
    async with behind(server, COUNT, endpoint, single_active_token=True) as (made, proxies):
        token = await all_have(made)
        await each_knows_all(made)
        holder = next(each for each in made if each.status.origin == "fetched")
        others = [each for each in made if each is not holder]
        for proxy in proxies:
            await proxy.refuse()
        await until(lambda: holder.token is not None and holder.token is not token and endpoint.count == 2)
        assert all(each.token is not None and each.token.value == token.value for each in others)
        began, at_end = time.monotonic(), token.expires_at - holder.clock.monotonic()
        await until(lambda: all(each.token is not None and each.token.value != token.value for each in others), 12)
        assert time.monotonic() - began >= at_end - 0.5
        assert endpoint.count <= 2 + 2 * len(others)


async def test_a_start_without_the_store_is_quick_and_its_token_is_shared_later(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(server.port))
        await proxy.refuse()
        began = time.monotonic()
        made = await stack.enter_async_context(
            sharing(store_config(proxy.port), COUNT, config(credential(endpoint.url)))
        )
        await until(lambda: all(each.token for each in made))
        assert time.monotonic() - began < 2.0
        assert endpoint.count == COUNT
        await proxy.heal()
        await all_have(made)
        assert endpoint.count == COUNT


async def test_a_start_with_a_hung_store_waits_for_no_more_than_its_time_outs(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with FaultProxy(server.port) as proxy:
        proxy.hang()
        began = time.monotonic()
        async with sharing(store_config(proxy.port), 1, config(credential(endpoint.url, name="acme"))) as made:
            await until(lambda: made[0].token is not None)
            assert time.monotonic() - began < 2.0


# --------------------------------------------------------------------------------------------------- the store is back


@pytest.mark.slow
async def test_what_was_fetched_alone_is_used_by_all_afterwards_without_a_request(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with behind(server, COUNT, endpoint) as (made, proxies):
        await all_have(made)
        await each_knows_all(made)
        for proxy in proxies:
            await proxy.refuse()
        await away(made)
        for each in made:
            await each.set.fetch_now("acme")
        assert len({each.token.value for each in made}) == COUNT
        newest = max((each.token for each in made), key=lambda token: token.generation)
        asked = endpoint.count
        for proxy in proxies:
            await proxy.heal()
        await back(made)
        token = await all_have(made, 5.0)
        assert token.value == newest.value
        assert endpoint.count == asked


@pytest.mark.slow
async def test_an_instance_that_was_cut_off_adopts_the_higher_fence(server: Store, endpoint: TokenEndpoint) -> None:
    async with behind(server, COUNT, endpoint) as (made, proxies):
        old = await all_have(made)
        await each_knows_all(made)
        proxies[0].hang()
        await away(made[:1])
        await made[0].set.fetch_now("acme")
        own = made[0].token
        await made[1].set.fetch_now("acme")
        newer = await all_have(made[1:], but=old)
        assert own is not None
        assert own.value != newer.value
        assert own.generation < newer.generation
        await proxies[0].heal()
        await back(made[:1])
        assert (await all_have(made, 5.0)).value == newer.value


async def test_a_flushed_store_gets_the_token_back_and_nobody_fetches(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        token = await all_have(made)
        await server.command("FLUSHALL")
        await stored(server)
        async with sharing(store_config(server.port), 1, config(credential(endpoint.url))) as later:
            assert (await all_have([*made, *later])).generation == token.generation
        assert endpoint.count == 1


@pytest.mark.slow
async def test_a_restarted_store_is_empty_and_costs_no_request(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        await all_have(made)
        await server.kill()
        await away(made)
        await server.start()
        await back(made)
        async with sharing(store_config(server.port), 1, config(credential(endpoint.url))) as later:
            await asyncio.sleep(1)
            await all_have([*made, *later])
        assert endpoint.count <= 2  # the new instance may start before the token is written back


async def test_an_older_record_of_an_old_master_is_ignored_and_replaced(server: Store, endpoint: TokenEndpoint) -> None:
    async with sharing(store_config(server.port), 2, config(credential(endpoint.url))) as made:
        old = await all_have(made)
        name = await stored(server)
        record = await server.command("HGETALL", name)
        await made[0].set.fetch_now("acme")
        new = await all_have(made, but=old)
        await server.command("HSET", name, *record)
        await made[0].read()
        await stored(server, new.generation)
        assert (await all_have(made)).value == new.value
        assert endpoint.count == 2


# ----------------------------------------------------------------------------------------------------- holders that die


async def test_when_the_holder_dies_in_mid_request_another_fetches_within_a_lease(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.script.append(Answer(fault="hang"))
    async with four(server, endpoint) as made:
        await until(lambda: endpoint.count == 1)
        holder = next(each for each in made if each.holds)
        await holder.die()
        began = time.monotonic()
        await all_have([each for each in made if each is not holder], 10)
        assert time.monotonic() - began <= 3.0 + 1.0
        assert endpoint.count == 2


# ---------------------------------------------------------------------------------------------------------------- news


async def test_without_messages_from_the_channel_a_new_token_is_used_within_four_seconds(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with behind(server, COUNT, endpoint) as (made, proxies):
        old = await all_have(made)
        for proxy in proxies:
            proxy.mute()
        await made[0].set.fetch_now("acme")
        await all_have(made, 4.0, but=old)
        assert endpoint.count == 2


@pytest.mark.slow
async def test_a_slow_store_delays_no_token(server: Store, endpoint: TokenEndpoint) -> None:
    endpoint.life = 3.0
    async with behind(server, 2, endpoint) as (made, proxies):
        await all_have(made)
        for proxy in proxies:
            proxy.delay = 2.0
        began, gaps = time.monotonic(), 0
        while time.monotonic() - began < 4.0:
            gaps += any(each.tokens.current() is None for each in made)
            await asyncio.sleep(0.005)
        assert gaps == 0


# ---------------------------------------------------------------------------------------------------------------- keys


async def test_store_keys_are_replaced_one_instance_after_the_other_without_a_token_request(
    server: Store, endpoint: TokenEndpoint
) -> None:
    old, new = Secret(STORE_KEY), Secret("CANARY-store-key-fedcba9876543210")
    async with four(server, endpoint) as made:
        await all_have(made)
        for keys in ((new, old), (new,)):
            for each in made:
                each.store.use(store_config(server.port, keys=keys))
                await each.set.reload(config(credential(endpoint.url)))
        await made[0].read()
        async with sharing(store_config(server.port, keys=(new,)), 1, config(credential(endpoint.url))) as later:
            await asyncio.sleep(0.5)
            await all_have([*made, *later])
        assert endpoint.count == 1


async def test_an_instance_with_another_store_key_uses_a_token_of_its_own(
    server: Store, endpoint: TokenEndpoint
) -> None:
    wrong = store_config(server.port, keys=(Secret("CANARY-another-key-0123456789abcdef"),))
    settings = [store_config(server.port), store_config(server.port), wrong]
    async with sharing(settings, 3, config(credential(endpoint.url))) as made:
        await until(lambda: all(each.token for each in made))
        await all_have(made[:2])
        assert endpoint.count == 2


@pytest.mark.slow
async def test_an_instance_works_alone_for_a_credential_whose_records_the_store_cannot_read(
    server: Store, endpoint: TokenEndpoint
) -> None:
    """Heartbeats succeed, so the store is up; but every request for a lease fails."""
    async with sharing(store_config(server.port), 1, config(credential(endpoint.url))):
        name = await stored(server)
    await server.command("SET", name, "not a hash")
    async with sharing(store_config(server.port), 2, config(credential(endpoint.url))) as made:
        await until(lambda: all(each.token is not None for each in made), 2 * made[0].store.lease + 5)
        assert all(each.store.is_up for each in made)
