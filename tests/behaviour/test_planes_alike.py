"""A question is admitted exactly as the request itself would be on the data port: the same status, the same code."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.gateway import running
from tests.kit.planes import KEY, asked_gateway, client, plane_at, question
from tests.kit.wire import Message, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

PATHS = (
    "/v", "/v/", "/v/x", "/v/X", "/v/x/", "/v/x;a=b", "/v/x%2f", "/v/%78", "/v/x%00", "/v/x%2500", "/v//x", "/v/./x",
    "/v/../x", "/v/%2e%2e/x", "/v/a/x", "/v/a%2fx", "/v/a\\x", "/v/no/x", "/v/NO/x", "/v/n%6f/x", "/v/no%2fx",
    "/v/no;a/x", "/v/x?no", "/v/x#y", "/vv/x", "/other", "/", "/v/\u00e4", "/v/x y", "/v/x%zz", "/V/x",
)  # fmt: skip
METHODS = ("GET", "POST", "HEAD", "TRACE", "CONNECT", "DELETE")
KEYS: dict[str, list[str]] = {
    "the key": [KEY],
    "none": [],
    "a wrong one": ["X-Gatepass-Key: gp_CANARY-wrong"],
    "two": [KEY, KEY],
    "a bearer": [KEY.replace("X-Gatepass-Key:", "Authorization: Bearer")],
    "one where the token goes": [KEY.replace("X-Gatepass-Key:", "Authorization: bearer ")],
}
RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no rules": ({}, {}),
    "what the route denies": ({}, {"deny": ["/no/**"]}),
    "what the route allows": ({}, {"allow": ["/x", "/a/*"]}),
    "methods of the route": ({}, {"methods": ["POST", "DELETE"]}),
    "what the client denies": ({"deny": ["POST /v/x", "* /v/no/**"]}, {}),
    "what the client allows": ({"allow": ["GET,POST /v/x", "GET /v/a/**"]}, {}),
}
SENT_BY_NOBODY = frozenset({"/v/\u00e4", "/v/x y"})
"""Not valid in a request line; a question with it in a field gets no token, either."""


def verdict(answer: Message) -> tuple[int, str]:
    """The status, and the code of a rejection; a HEAD and a question have no body to show it."""
    found = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    return answer.status, str(found.get("code", ""))


@pytest.mark.parametrize(("app", "route"), RULES.values(), ids=RULES)
async def test_every_path_method_and_key_gets_the_same_status_from_a_plane_and_the_data_port(
    app: dict[str, Any], route: dict[str, Any], tmp_path: Path
) -> None:
    compared: dict[int, int] = {}
    config = asked_gateway(tmp_path, client(**app), ask={"request": "x-original"}, **route)
    async with vendor(answering(ok())) as it_vendor:
        config["routes"]["v"]["upstream"] = f"http://127.0.0.1:{it_vendor.port}"
        async with running(config) as it:
            requests = [*zip(PATHS, itertools.cycle(METHODS[:2]), itertools.repeat("the key"), strict=False)]
            requests += [*itertools.product(["/v/x", "/v/no/x"], METHODS, ["the key"])]
            requests += [*itertools.product(["/v/x", "/v/no/x", "/other"], ["GET"], KEYS)]
            for path, method, key in requests:
                told = [f"X-Original-Method: {method}", f"X-Original-URI: {path}"]
                plane = await plane_at(tmp_path)
                await plane.send(question("/ask/v", *told, *KEYS[key]))
                asked = verdict(await plane.message())
                plane.close()
                if path in SENT_BY_NOBODY:
                    assert asked[0] == 400, path
                    continue
                data = await connect(it.address)
                await data.send(get(path, *KEYS[key], method=method))
                called = verdict(await data.message(is_head=method == "HEAD"))
                data.close()
                assert asked[0] == called[0], (path, method, key, asked, called)
                assert "" in {asked[1], called[1]} or asked[1] == called[1], (path, method, key, asked, called)
                compared[asked[0]] = compared.get(asked[0], 0) + 1
    assert compared[200] >= 3, compared
    assert compared.keys() >= {200, 400, 401, 404}, compared
