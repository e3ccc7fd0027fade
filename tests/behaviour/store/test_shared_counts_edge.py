"""Calls at the edge of a budget that instances share: they wait for the store's answer, but not for ever."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from gateway.access import hash_key
from gateway.access.shared import SharedCounters
from tests.behaviour.test_access_identity import config as with_issuer
from tests.behaviour.test_access_identity import fresh
from tests.kit.budgets import KEY, PATIENT
from tests.kit.gateway import one_route, running
from tests.kit.signing import jwk, jwks
from tests.kit.valkey import block
from tests.kit.wire import Message, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    import pytest

    from tests.kit.gateway import Running
    from tests.kit.valkey import Store

BUDGETS = [{"route": "v", "per": "day", "hard": 3}]
"""So small that the store is asked for each call, and grants one at a time."""


def sharing(port: int, server: Store) -> dict[str, Any]:
    """Return the configuration of an instance with one client."""
    web = {"name": "web", "key_sha256": hash_key(KEY), "budgets": BUDGETS}
    return {**one_route(port), "clients": [web], "store": block(server, **PATIENT)}


async def ask(it: Running, field: str = f"X-Gatepass-Key: {KEY}") -> Message:
    app = await connect(it.address)
    await app.send(get("/v/a", field))
    answer = await app.message()
    app.close()
    return answer


async def test_each_call_waits_for_the_store_until_the_budget_is_spent(server: Store) -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(sharing(upstream.port, server)) as it,
    ):
        assert [(await ask(it)).status for _ in range(4)] == [200, 200, 200, 429]


async def test_calls_that_wait_for_the_same_answer_ask_again_while_others_take_what_it_grants(server: Store) -> None:
    async with (
        vendor(answering(ok())) as upstream,
        running(sharing(upstream.port, server)) as it,
    ):
        answers = await asyncio.gather(*(ask(it) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 429, 429]
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 3


async def test_a_jwt_whose_key_was_fetched_first_waits_for_the_store_too(server: Store) -> None:
    documents = [ok(jwks(jwk("ec-1"))), ok(jwks(jwk("ec-1"), jwk("ec-2")))]
    async with (
        vendor(answering(ok())) as upstream,
        vendor(answering(*documents)) as endpoint,
    ):
        config = with_issuer(upstream.port, endpoint.port)
        config["clients"][0]["budgets"] = BUDGETS
        async with running({**config, "store": block(server, **PATIENT)}) as it:
            for key in ("ec-1", "ec-2"):
                assert (await ask(it, f"Authorization: Bearer {fresh(key)}")).status == 200
            assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 2
        assert endpoint.connections == 2


async def test_a_call_waits_for_64_answers_of_the_store_and_not_for_ever(
    server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large fleet others may take each grant before this call is admitted."""
    asked = 0

    def answered(_: SharedCounters, __: object) -> asyncio.Task[None]:
        nonlocal asked
        asked += 1
        return done

    async def nothing() -> None:
        pass

    done = asyncio.create_task(nothing())
    await done
    monkeypatch.setattr(SharedCounters, "more", lambda *_: False)
    monkeypatch.setattr(SharedCounters, "asked", answered)
    async with (
        vendor(answering(ok())) as upstream,
        running(sharing(upstream.port, server)) as it,
    ):
        answer = await ask(it)
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
        assert answer.one("Retry-After") == b"1"
        assert asked == 1 + 64
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 0
    assert upstream.connections == 0
