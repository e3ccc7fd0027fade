"""Tokens that are pushed into a plane's folder by a whole gateway, and the plane's reports over its socket."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.clock import FakeClock
from tests.kit.configuration import loaded
from tests.kit.endpoint import TokenEndpoint
from tests.kit.gateway import CANARY, running
from tests.kit.planes import ask, asked_gateway, fetching, plane_at, question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.kit.gateway import Running
    from tests.kit.wire import Message


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


def pushed_gateway(folder: Path, **plane: Any) -> dict[str, Any]:
    """Return a configuration whose token is pushed to a plane `edge` that may report refusals."""
    config = asked_gateway(folder)
    push = {"kind": "envoy-sds", "directory": str(folder / "sds"), "credentials": ["key"], "uid": os.getuid(), **plane}
    config["planes"] = {"listen": f"unix:{folder}/planes.sock", "push": {"edge": push}}
    return config


def value(folder: Path, credential: str = "key") -> str | None:
    """The token in a file: empty if it was withdrawn, None if there is no file."""
    try:
        shown = json.loads((folder / "sds" / f"{credential}.json").read_bytes())
    except FileNotFoundError:
        return None
    return str(shown["resources"][0]["generic_secret"]["secret"]["inline_string"])


async def becomes(condition: Callable[[], object]) -> None:
    await FakeClock().until(condition)


async def report(folder: Path, sent: str, *, credential: str = "key", method: str = "POST") -> Message:
    return await ask(folder, f"/replace/{credential}", f"X-Gatepass-Sent: {sent}", "Content-Length: 0", method=method)


def code(answer: Message) -> str:
    return str(json.loads(answer.body)["code"])


async def test_a_static_key_is_pushed_at_the_start_and_withdrawn_at_the_end(tmp_path: Path) -> None:
    async with running(pushed_gateway(tmp_path)) as it:
        await becomes(lambda: it.metric("gatepass_plane_token_pushed", plane="edge", credential="key") == 1)
        assert value(tmp_path) == CANARY
    assert value(tmp_path) == ""


async def test_a_reload_withdraws_the_tokens_of_planes_and_credentials_that_left_the_configuration(
    tmp_path: Path,
) -> None:
    config = pushed_gateway(tmp_path)
    config["credentials"]["other"] = {"static": {"token": "CANARY-other"}}
    config["planes"]["push"]["edge"]["credentials"] = ["key", "other"]
    async with running(config) as it:
        await becomes(lambda: (value(tmp_path), value(tmp_path, "other")) == (CANARY, "CANARY-other"))
        config["planes"]["push"]["edge"]["credentials"] = ["other"]
        await reloaded(it, tmp_path, config)
        await becomes(lambda: (value(tmp_path), value(tmp_path, "other")) == ("", "CANARY-other"))
        del config["planes"]
        await reloaded(it, tmp_path, config)
        await becomes(lambda: value(tmp_path, "other") == "")
        await becomes(lambda: it.metric("gatepass_plane_token_pushed", plane="edge", credential="other") == 0)


async def reloaded(it: Running, folder: Path, config: dict[str, Any]) -> None:
    await it.gateway.reload(
        loaded(folder, json.dumps({"listen": "127.0.0.1:0", "admin": None, **config}), CANARY=CANARY)
    )


async def test_a_reload_to_another_folder_leaves_no_token_in_the_old_one(tmp_path: Path) -> None:
    config = pushed_gateway(tmp_path)
    async with running(config) as it:
        await becomes(lambda: value(tmp_path) == CANARY)
        config["planes"]["push"]["edge"]["directory"] = str(tmp_path / "new" / "sds")
        (tmp_path / "new").mkdir()
        await reloaded(it, tmp_path, config)
        await becomes(lambda: (value(tmp_path), value(tmp_path / "new")) == ("", CANARY))


# -------------------------------------------------------------------------------------------------------------- reports


async def test_a_report_replaces_the_token_before_it_is_answered(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    async with running(fetching(pushed_gateway(tmp_path), endpoint)) as it:
        await becomes(lambda: value(tmp_path))
        before = value(tmp_path)
        answer = await report(tmp_path, f"Bearer {before}")
        assert (answer.status, answer.body) == (204, b"")
        assert value(tmp_path) not in {before, ""}
        assert endpoint.count == 2
        assert it.metric("gatepass_plane_reports_total", plane="edge", outcome="replaced") == 1


async def test_a_hundred_reports_about_one_token_cost_one_fetch(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    endpoint.latency = 0.05
    async with running(fetching(pushed_gateway(tmp_path), endpoint)):
        await becomes(lambda: value(tmp_path))
        sent = f"Bearer {value(tmp_path)}"
        answers = await asyncio.gather(*(report(tmp_path, sent) for _ in range(100)))
        assert {answer.status for answer in answers} == {204}
        assert endpoint.count == 2


async def test_a_connection_takes_many_reports(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    async with running(fetching(pushed_gateway(tmp_path), endpoint)):
        await becomes(lambda: value(tmp_path))
        plane = await plane_at(tmp_path)
        one = question("/replace/key", f"X-Gatepass-Sent: {value(tmp_path)}", "Content-Length: 0", method="POST")
        await plane.send(one * 3)
        assert [(await plane.message()).status for _ in range(3)] == [204] * 3


async def test_a_report_gets_503_if_there_is_no_other_token(tmp_path: Path, endpoint: TokenEndpoint) -> None:
    async with running(fetching(pushed_gateway(tmp_path), endpoint)):
        await becomes(lambda: value(tmp_path))
        sent = value(tmp_path)
        await endpoint.shut()
        answer = await report(tmp_path, f"Bearer {sent}")
        assert (answer.status, code(answer)) == (503, "token_unavailable")
        assert answer.one("Retry-After") == b"1"
        await becomes(lambda: value(tmp_path) == "")


async def test_a_refused_static_key_stays_and_is_not_sent_again(tmp_path: Path) -> None:
    async with running(pushed_gateway(tmp_path)):
        await becomes(lambda: value(tmp_path))
        assert (await report(tmp_path, CANARY)).status == 503
        assert value(tmp_path) == CANARY


BAD: dict[str, tuple[str, dict[str, Any], dict[str, str], int]] = {
    "another credential": (CANARY, {}, {"credential": "other"}, 403),
    "no credential": (CANARY, {}, {"credential": ""}, 403),
    "another user": (CANARY, {"uid": 12345}, {}, 403),
    "the app's own field": ("Basic CANARY-app", {}, {}, 400),
    "another method": (CANARY, {}, {"method": "PUT"}, 405),
}


@pytest.mark.parametrize(("sent", "plane", "how", "status"), BAD.values(), ids=BAD)
async def test_a_bad_report_is_refused(
    sent: str, plane: dict[str, Any], how: dict[str, Any], status: int, tmp_path: Path
) -> None:
    async with running(pushed_gateway(tmp_path, **plane)) as it:
        await becomes(lambda: value(tmp_path))
        assert (await report(tmp_path, sent, **how)).status == status
        assert value(tmp_path) == CANARY
        assert "report_refused" in it.log


async def test_a_plane_that_tokens_are_pushed_to_may_not_ask(tmp_path: Path) -> None:
    async with running(pushed_gateway(tmp_path)):
        answer = await ask(tmp_path, "/ask/v/v/x")
        assert (answer.status, CANARY.encode() in answer.body) == (403, False)
