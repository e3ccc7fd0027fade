"""A token's life with four instances and a real store: how many token requests reach the endpoint, and when."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import CredentialRefused, TokenMalformed, TokenUnavailable
from gateway.model import GrantRequest
from tests.kit.endpoint import Answer, Request, TokenEndpoint, json_answer
from tests.kit.recipes import config, credential
from tests.kit.served import until
from tests.kit.sharing import COUNT, Instance, all_have, four, sharing, store_config

if TYPE_CHECKING:
    from tests.kit.valkey import Store

SPAN = 4.5
"""Seconds for which tokens with a lifetime of 3 s are watched."""


async def refuse(instances: list[Instance], *, accepted: bool = True) -> list[Any]:
    """Report to each instance, all at once, that the vendor refused its token; return the tokens to replay with."""
    held = [(each, each.token) for each in instances]
    for each, token in held:
        if accepted and token is not None:
            each.tokens.accepted(token)
    await asyncio.sleep(0.05)  # until the other instances know that it was accepted
    return list(await asyncio.gather(*(each.tokens.refused(token) for each, token in held if token is not None)))


# ---------------------------------------------------------------------------------------------------- one for everybody


async def test_four_instances_that_start_together_request_one_token(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        token = await all_have(made)
        assert endpoint.count == 1
        assert sorted(each.status.origin or "" for each in made) == ["adopted"] * 3 + ["fetched"]
        assert {each.status.instance for each in made} == {token.by}
        assert sum(each.metric("gatepass_token_adopted_total") for each in made) == COUNT - 1
        assert sum(each.metric("gatepass_token_fetches_total", outcome="ok", cause="startup")
                   for each in made) == 1  # fmt: skip
        leases = sum(each.metric("gatepass_store_leases_total", outcome="committed")
                     for each in made)  # fmt: skip
        assert leases == 1


async def test_an_instance_that_starts_later_requests_nothing(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        token = await all_have(made)
        async with four(server, endpoint) as later:
            assert (await all_have(later)).value == token.value
            assert endpoint.count == 1
            assert all(each.status.last_success is not None for each in later)


@pytest.mark.parametrize("keep_warm", ["used", "never"])
async def test_a_credential_that_is_not_kept_warm_is_fetched_once_when_an_app_first_needs_it(
    server: Store, endpoint: TokenEndpoint, keep_warm: str
) -> None:
    async with four(server, endpoint, keep_warm=keep_warm) as made:
        await until(lambda: made[0].store.is_up)
        assert endpoint.count == 0
        got = await made[0].tokens.get()
        assert (await all_have(made)).value == got.value
        assert endpoint.count == 1


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True], ids=["plain", "single_active_token"])
async def test_each_lifetime_of_a_token_costs_one_request(server: Store, endpoint: TokenEndpoint, single: bool) -> None:
    endpoint.life = 3.0
    async with four(server, endpoint, single_active_token=single) as made:
        await all_have(made)
        began, gaps = time.monotonic(), 0
        while time.monotonic() - began < SPAN:
            gaps += any(each.token is None for each in made)
            await asyncio.sleep(0.01)
        lives = SPAN / (3.0 - 3.0 / 2.2 * 1.1)
        assert 2 <= endpoint.count <= lives + 2
        assert gaps == 0
        await all_have(made)


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False], ids=["full life again", "what is left"])
async def test_an_endpoint_that_returns_the_same_token_gets_hardly_more_requests_than_from_one_instance(
    server: Store, full: bool
) -> None:
    life, born = 3.0, time.monotonic()

    def answer(_: Request) -> Answer:
        age = time.monotonic() - born
        left = life - age % life
        return json_answer(
            {"access_token": f"CANARY-{age // life}", "token_type": "bearer", "expires_in": life if full else left}
        )

    async def count(instances: int) -> int:
        settings = store_config(server.port, namespace=f"of-{instances}")
        async with (
            TokenEndpoint(always=answer) as endpoint,
            sharing(settings, instances, config(credential(endpoint.url))) as made,
        ):
            await asyncio.sleep(4.5)
            await all_have(made)
            return endpoint.count

    alone, shared = await asyncio.gather(count(1), count(COUNT))
    assert shared <= alone + 3


async def test_an_operators_fetch_gives_all_a_new_token(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        first = await all_have(made)
        await asyncio.gather(*(each.set.fetch_now("acme") for each in made))
        await all_have(made, but=first)
        assert endpoint.count <= 1 + COUNT


# ------------------------------------------------------------------------------------------------------ rejected tokens


async def test_if_every_instance_gets_a_401_at_once_one_token_is_requested(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with four(server, endpoint) as made:
        old = await all_have(made)
        replayed = await refuse(made)
        assert len({token.value for token in replayed}) == 1
        assert endpoint.count == 2
        new = await all_have(made, but=old)
        assert new.generation > old.generation


async def test_a_401_on_one_instance_replaces_the_token_of_all(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        old = await all_have(made)
        with capture_logs() as logs:
            (token,) = await refuse(made[:1])
            await all_have(made, 5.0, but=old)
        assert token is not None
        assert endpoint.count == 2
        causes = [log["cause"] for log in logs if log["event"] == "token_invalidated"]
        assert causes.count("unauthorized") == 1
        assert set(causes) <= {"unauthorized", "elsewhere"}


async def test_a_late_401_for_an_old_token_requests_nothing(server: Store, endpoint: TokenEndpoint) -> None:
    async with four(server, endpoint) as made:
        old = await all_have(made)
        await refuse(made[:1])
        new = await all_have(made, but=old)
        again = await made[3].tokens.refused(old)
        assert again is not None
        assert again.value == new.value
        assert endpoint.count == 2


async def test_endless_401s_cause_no_more_fetches_than_one_bucket_for_all_instances_allows(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with four(server, endpoint) as made:
        await all_have(made)
        kept = 0
        for turn in range(12):
            (token,) = await refuse(made[turn % COUNT : turn % COUNT + 1])
            kept += token is None
            await all_have(made)
        assert kept >= 12 - 5
        assert endpoint.count <= 1 + 5


async def test_a_token_that_was_never_accepted_is_not_replaced_again_and_again(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with four(server, endpoint) as made:
        await all_have(made)
        for turn in range(8):
            await refuse(made[turn % COUNT : turn % COUNT + 1], accepted=False)
            await all_have(made)
        assert endpoint.count == 2


async def test_an_exchange_that_cannot_be_sent_again_fetches_in_the_background(
    server: Store, endpoint: TokenEndpoint
) -> None:
    async with four(server, endpoint) as made:
        old = await all_have(made)
        made[2].tokens.accepted(old)
        token = made[2].token
        assert token is not None
        made[2].tokens.discard(token)
        assert made[2].tokens.current() is None
        await all_have(made, but=old)
        assert endpoint.count == 2


# ------------------------------------------------------------------------------------------------------ failed requests


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (json_answer({"error": "invalid_client"}, 401), CredentialRefused),
        (Answer(503), TokenUnavailable),
        (json_answer({"token": "elsewhere"}), TokenMalformed),
    ],
    ids=["refused", "unavailable", "malformed"],
)
async def test_a_failed_token_request_is_known_to_all_instances_and_only_one_retries_it(
    server: Store, endpoint: TokenEndpoint, answer: Answer, error: type[Exception]
) -> None:
    endpoint.always = answer
    async with four(server, endpoint) as made:
        await until(lambda: all(each.status.reason for each in made))
        for each in made:
            with pytest.raises(error):
                await each.tokens.get()
        await asyncio.sleep(1.5)
        assert endpoint.count <= (1 if error is CredentialRefused else 4)
        endpoint.always = None
        if error is not CredentialRefused:  # after which the endpoint is tried once a minute
            await all_have(made)


async def test_retry_after_holds_for_all_instances(server: Store, endpoint: TokenEndpoint) -> None:
    endpoint.script.append(Answer(429, headers=(("Retry-After", "2"),)))
    async with four(server, endpoint) as made:
        began = time.monotonic()
        await all_have(made)
        assert time.monotonic() - began >= 2.0
        assert endpoint.count == 2


async def test_min_interval_holds_over_all_instances(server: Store, endpoint: TokenEndpoint) -> None:
    asked = endpoint.note_times()
    async with four(server, endpoint, min_interval=1.0) as made:
        old = await all_have(made)
        for turn in range(3):
            await refuse(made[turn : turn + 1])
            old = await all_have(made, but=old)
    assert len(asked) == 4
    assert all(later - earlier >= 0.9 for earlier, later in pairwise(asked))  # counted from leases, seen at arrivals


async def test_one_instance_asks_a_slow_endpoint_and_all_wait_for_its_answer(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.latency = 3.5  # longer than a lease
    async with four(server, endpoint) as made:
        await until(lambda: made[0].store.is_up)
        got = await asyncio.gather(*(each.tokens.get() for each in made))
        assert len({token.value for token in got}) == 1
        assert endpoint.count == 1


# ------------------------------------------------------------------------------------------------------------- rotation


def secret_is(good: str) -> Any:
    def answer(request: Request) -> Answer:
        if request.form["client_secret"] != good:
            return json_answer({"error": "invalid_client"}, 401)
        return json_answer({"access_token": f"CANARY-by-{good}", "token_type": "bearer", "expires_in": 3600})

    return answer


async def test_next_secret_is_tried_once_for_all_instances(server: Store, endpoint: TokenEndpoint) -> None:
    endpoint.always = secret_is("CANARY-next")
    async with four(server, endpoint, next_secret="CANARY-next") as made:
        await all_have(made)
        assert endpoint.count == 2  # the current secret once, the next one once
        assert {each.status.secret for each in made} == {"next"}
        later = sharing(store_config(server.port), 2, config(credential(endpoint.url, next_secret="CANARY-next")))
        async with later as more:
            await all_have([*made, *more])
            assert endpoint.count == 2


async def test_a_secret_that_is_replaced_on_one_instance_after_the_other_costs_one_request(
    server: Store, endpoint: TokenEndpoint
) -> None:
    """Each instance uses the old token until it knows the new one."""
    async with four(server, endpoint) as made:
        old = await all_have(made)
        for each in made:
            await each.set.reload(config(credential(endpoint.url, secret="CANARY-rotated")))
            assert each.token is not None
            await all_have(made[:1], but=old)
        await all_have(made, but=old)
        assert endpoint.count == 2


async def test_instances_share_a_token_if_the_secret_of_one_is_the_next_secret_of_another(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.always = secret_is("CANARY-b")
    both = config(credential(endpoint.url, secret="CANARY-a", next_secret="CANARY-b"))
    only = config(credential(endpoint.url, secret="CANARY-b"))
    settings = store_config(server.port)
    async with sharing(settings, 2, both) as some, sharing(settings, 2, only) as others:
        await all_have([*some, *others])
        assert endpoint.count <= 3  # the refused secret at most twice: both may try it before either knows the answer
        assert len({request.form["client_secret"] for request in endpoint.requests}) <= 2


# ---------------------------------------------------------------------------------------------------------- going down


async def test_only_the_last_instance_revokes(server: Store, endpoint: TokenEndpoint) -> None:
    async with TokenEndpoint(path="/revoke") as revocations:
        revoke = GrantRequest(url=revocations.url, form=(("token", "{token}"),))
        async with four(server, endpoint, revoke=revoke) as made:
            token = await all_have(made)
            for each in made[:-1]:
                await each.stop()
                assert made[-1].token is not None
            assert revocations.count == 0
            await made[-1].stop()
            assert [request.form["token"] for request in revocations.requests] == [token.value.reveal()]
        async with four(server, endpoint, revoke=revoke) as made:
            assert (await all_have(made)).value != token.value


async def test_of_instances_that_stop_together_exactly_one_revokes(server: Store, endpoint: TokenEndpoint) -> None:
    async with TokenEndpoint(path="/revoke") as revocations:
        revoke = GrantRequest(url=revocations.url, form=(("token", "{token}"),))
        async with four(server, endpoint, revoke=revoke) as made:
            await all_have(made)
            await asyncio.gather(*(each.stop() for each in made))
        assert revocations.count == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_while_the_store_is_away_only_an_instance_that_was_alone_revokes(
    server: Store, endpoint: TokenEndpoint, count: int
) -> None:
    """Of several, the others may still use the token."""
    async with TokenEndpoint(path="/revoke") as revocations:
        revoke = GrantRequest(url=revocations.url, form=(("token", "{token}"),))
        async with sharing(store_config(server.port), count, config(credential(endpoint.url, revoke=revoke))) as made:
            await all_have(made)
            await until(lambda: all(each.store.members == count for each in made), 10)
            await server.kill()
            await until(lambda: not any(each.store.is_up for each in made), 10)
            await asyncio.gather(*(each.stop() for each in made))
        assert revocations.count == (1 if count == 1 else 0)


async def test_a_hand_over_never_revokes(server: Store, endpoint: TokenEndpoint) -> None:
    async with TokenEndpoint(path="/revoke") as revocations:
        revoke = GrantRequest(url=revocations.url, form=(("token", "{token}"),))
        async with sharing(store_config(server.port), 1, config(credential(endpoint.url, revoke=revoke))) as made:
            await all_have(made)
            await made[0].stop(hand_over=True)
        assert revocations.count == 0


async def test_an_instance_that_stops_in_mid_request_frees_the_lease_at_once(
    server: Store, endpoint: TokenEndpoint
) -> None:
    endpoint.script.append(Answer(fault="hang"))
    async with four(server, endpoint) as made:
        await until(lambda: endpoint.count == 1)
        holder = next(each for each in made if each.holds)
        began = time.monotonic()
        await holder.stop()
        await all_have([each for each in made if each is not holder])
        assert time.monotonic() - began < 1.5
        assert endpoint.count == 2
