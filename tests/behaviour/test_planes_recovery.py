"""A plane reports a refused token: exactly that token is replaced, with the limits of the data port."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.clock import FakeClock
from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.gateway import running
from tests.kit.planes import KEY, ask, asked_gateway, client, fetching, plane_at, question
from tests.kit.served import until

if TYPE_CHECKING:
    from pathlib import Path


def refused(generation: bytes, name: str = "X-Gatepass-Refused") -> str:
    return f"{name}: {generation.decode()}"


async def test_a_refused_token_is_replaced_at_once_by_one_fetch_for_all_who_ask(tmp_path: Path) -> None:
    async with TokenEndpoint(latency=0.05) as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)) as it:
        first = await ask(tmp_path, "/ask/v/v/x", KEY)
        again = [ask(tmp_path, "/ask/v/v/x", KEY, refused(first.one("X-Gatepass-Generation"))) for _ in range(8)]
        answers = await asyncio.gather(*again)
        assert {answer.one("Authorization") for answer in answers} == {f"Bearer {endpoint.issued[1]}".encode()}
        assert len(endpoint.issued) == 2
        assert it.metric("gatepass_plane_refused_tokens_total", plane="edge", route="v") == 8


async def test_a_report_replaces_the_token_but_its_answer_has_none(tmp_path: Path) -> None:
    """For planes that cannot ask again. Some can only send the generation back in the field in which they got it."""
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)) as it:
        for issued, name in ((2, "X-Gatepass-Refused"), (3, "X-Gatepass-Generation")):
            generation = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
            answer = await ask(tmp_path, "/report/v", refused(generation, name))
            assert (answer.status, answer.all("Authorization")) == (204, [])
            assert len(endpoint.issued) == issued
            it.routes[0].accepted(it.routes[0].current_tokens() or ())
        assert it.metric("gatepass_client_billed_calls_total", client="web", route="v") == 2


REPORTS = {
    "nothing": [],
    "two": ["X-Gatepass-Refused: 1-a", "X-Gatepass-Generation: 1-b"],
    "empty": ["X-Gatepass-Refused:"],
}


@pytest.mark.parametrize("fields", REPORTS.values(), ids=REPORTS)
async def test_a_report_names_one_generation(fields: list[str], tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        assert (await ask(tmp_path, "/report/v", *fields)).status == 400


async def test_a_question_names_at_most_one_generation(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        two = ["X-Gatepass-Refused: 1-a", "X-Gatepass-Refused: 1-b"]
        assert (await ask(tmp_path, "/ask/v/v/x", KEY, *two)).status == 400


async def test_only_a_plane_of_the_route_may_report(tmp_path: Path) -> None:
    async with TokenEndpoint() as endpoint:
        config = fetching(asked_gateway(tmp_path, ask={"uid": os.getuid() + 1}), endpoint)
        async with running(config) as it:
            await it.gateway.tokens.warmed.wait()
            told = refused(f"1-{it.gateway.tokens.status()[0].fingerprint}".encode())
            assert (await ask(tmp_path, "/report/v", told)).status == 403
            assert len(endpoint.issued) == 1


async def test_a_late_report_about_an_old_token_fetches_nothing(tmp_path: Path) -> None:
    """Nor does a report with the same number but another fingerprint, which is about another process's token."""
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)):
        old = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
        new = (await ask(tmp_path, "/ask/v/v/x", KEY, refused(old))).one("X-Gatepass-Generation")
        number = new.partition(b"-")[0]
        for told in (old, number + b"-00000000", number, b"", b"x" * 300, new + b"." + new):
            if told != new + b"." + new:
                answer = await ask(tmp_path, "/ask/v/v/x", KEY, refused(told))
                assert answer.one("X-Gatepass-Generation") == new
        assert len(endpoint.issued) == 2


async def test_a_vendor_that_refuses_every_token_costs_few_fetches(tmp_path: Path) -> None:
    """While no forced fetch is allowed, the plane gets the same token again, and the app gets the vendor's answer."""
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)) as it:
        generation = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
        for _ in range(20):
            answer = await ask(tmp_path, "/ask/v/v/x", KEY, refused(generation))
            assert answer.status == 200
            generation = answer.one("X-Gatepass-Generation")
        assert len(endpoint.issued) == 2
        assert it.routes[0].metrics.refused_in_a_row > 0


async def test_a_token_that_was_used_for_a_while_counts_as_accepted(tmp_path: Path) -> None:
    """So that each of several revocations is repaired at once: planes do not report that a token was accepted."""
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)) as it:
        for turn in range(1, 4):
            generation = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
            answers = it.gateway._planes._listener._asker._answers["v"]  # type: ignore[union-attr]
            assert answers._last is not None
            answers._last.since -= 60
            await ask(tmp_path, "/ask/v/v/x", KEY)
            await ask(tmp_path, "/ask/v/v/x", KEY, refused(generation))
            assert len(endpoint.issued) == turn + 1


async def test_a_call_whose_token_was_refused_counts_once(tmp_path: Path) -> None:
    app = client(budgets=[{"route": "v", "per": "day", "hard": 2}])
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path, app), endpoint)) as it:
        old = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
        assert (await ask(tmp_path, "/ask/v/v/x", KEY, refused(old))).status == 200
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 1
        # A question about a refusal that follows no counted one is counted, so that no call is free.
        assert (await ask(tmp_path, "/ask/v/v/x", KEY, refused(old))).status == 200
        assert (await ask(tmp_path, "/ask/v/v/x", KEY, refused(old))).status == 429


async def test_a_question_about_a_refused_static_key_gets_the_same_key(tmp_path: Path) -> None:
    async with running(asked_gateway(tmp_path)):
        generation = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
        answer = await ask(tmp_path, "/ask/v/v/x", KEY, refused(generation))
        assert (answer.status, answer.one("X-Gatepass-Generation")) == (200, generation)


# ------------------------------------------------------------------------------------------------------------ no token


async def test_without_a_token_a_question_gets_503_with_retry_after_and_is_not_counted(tmp_path: Path) -> None:
    app = client(budgets=[{"route": "v", "per": "day", "hard": 1}])
    async with TokenEndpoint() as endpoint:
        endpoint.always = Answer(status=500)
        async with running(fetching(asked_gateway(tmp_path, app), endpoint)) as it:
            answer = await ask(tmp_path, "/ask/v/v/x", KEY)
            assert (answer.status, answer.all("Authorization")) == (503, [])
            assert int(answer.one("Retry-After")) >= 1
            assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 0


async def test_a_question_about_a_refused_token_gets_503_if_no_other_can_be_fetched(tmp_path: Path) -> None:
    async with TokenEndpoint() as endpoint, running(fetching(asked_gateway(tmp_path), endpoint)):
        generation = (await ask(tmp_path, "/ask/v/v/x", KEY)).one("X-Gatepass-Generation")
        endpoint.always = Answer(status=500)
        for fields in ([refused(generation)], []):
            answer = await ask(tmp_path, "/ask/v/v/x", KEY, *fields)
            assert (answer.status, answer.all("Authorization")) == (503, [])


async def test_a_question_waits_for_a_token_that_is_being_fetched(tmp_path: Path) -> None:
    async with (
        TokenEndpoint(latency=0.2) as endpoint,
        running(fetching(asked_gateway(tmp_path), endpoint, keep_warm="never")),
    ):
        answers = await asyncio.gather(*[ask(tmp_path, "/ask/v/v/x", KEY) for _ in range(5)])
        assert {answer.status for answer in answers} == {200}
        assert len(endpoint.issued) == 1


async def test_an_expired_token_is_never_handed_out(tmp_path: Path) -> None:
    clock = FakeClock()
    async with TokenEndpoint(life=100) as endpoint:
        config = fetching(asked_gateway(tmp_path), endpoint, keep_warm="never")
        async with running(config, clock=clock):
            first = await ask(tmp_path, "/ask/v/v/x", KEY)
            await clock.advance(101)
            second = await ask(tmp_path, "/ask/v/v/x", KEY)
            assert second.status == 200
            assert second.one("Authorization") != first.one("Authorization")


async def test_a_plane_that_goes_away_while_it_waits_is_not_counted(tmp_path: Path) -> None:
    app = client(budgets=[{"route": "v", "per": "day", "hard": 1}])
    async with (
        TokenEndpoint(latency=0.3) as endpoint,
        running(fetching(asked_gateway(tmp_path, app), endpoint, keep_warm="never")) as it,
    ):
        plane = await plane_at(tmp_path)
        await plane.send(question("/ask/v/v/x", KEY))
        await until(lambda: bool(endpoint.requests))
        plane.close()
        await until(lambda: it.metric("gatepass_client_requests_in_flight", client="web", route="v") == 0)
        assert (await ask(tmp_path, "/ask/v/v/x", KEY)).status == 200
        assert it.metric("gatepass_client_budget_used", client="web", route="v", per="day") == 1
