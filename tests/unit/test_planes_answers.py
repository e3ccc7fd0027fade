"""An answer to a plane has every field or is an error, and a question is read in one way only."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, ExchangeError, RouteNotFound, TokenMalformed
from gateway.model import AskPlane, Injection, Route, Secret, Token, Upstream
from gateway.observe import Metrics
from gateway.planes.answers import Answer
from gateway.planes.question import asked, paths, split_question
from gateway.proxy import Pool
from gateway.proxy.prepared import PreparedRoute
from gateway.proxy.request import RequestHead
from gateway.resolver import Resolver
from gateway.tls import UpstreamContexts

INJECTED = (Injection("Authorization", "a"), Injection("x-b", "b", "{token}"))
ROUTE = Route("v", "/v", Upstream("http", "h", 80), INJECTED)


def prepared() -> PreparedRoute:
    """Return a real `PreparedRoute`, because compiled code accepts no fake; it has neither tokens nor a vendor."""
    metrics = Metrics().route("v")
    pool = Pool(ROUTE, metrics, UpstreamContexts(), Resolver())
    return PreparedRoute(ROUTE, cast("Any", lambda _name: None), pool, metrics, {})


def token(value: str) -> Token:
    return Token(Secret(value), "a", 0.0, 1.0, "in", fingerprint="3f1c9a02", generation=7)


def answer(*values: str) -> Answer:
    return Answer(prepared(), tuple(map(token, values)), 0.0)


def test_an_answer_has_every_field_and_the_generations_of_all_tokens() -> None:
    made = answer("CANARY-1", "CANARY-2")
    lines = made.head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"Authorization: Bearer CANARY-1", b"x-b: CANARY-2", b"Cache-Control: no-store"} <= set(lines)
    assert made.generation == "7-3f1c9a02.7-3f1c9a02"


@pytest.mark.parametrize("value", ["", " ", "a\r\nX: y", "a\nX: y", "a\r"])
def test_with_a_token_that_is_not_a_valid_field_value_building_the_answer_fails(value: str) -> None:
    with pytest.raises(TokenMalformed):
        answer("CANARY", value)


def test_an_answer_is_used_for_its_own_tokens_only() -> None:
    made = answer("CANARY-1", "CANARY-2")
    assert made.has(made.tokens)
    assert not made.has((made.tokens[0], token("CANARY-2")))


TARGETS = {
    "/ask/v": ("v", "", False), "/ask/v?q=1": ("v", "", False), "/ask/v/": ("v", "/", False),
    "/ask/v/v/x?q=1": ("v", "/v/x?q=1", False), "/ask/": ("", "", False), "/report/v": ("v", "", True),
    "/ask//x": ("", "/x", False),
}  # fmt: skip


@pytest.mark.parametrize(("target", "parts"), TARGETS.items(), ids=TARGETS)
def test_a_target_names_the_route_and_what_follows(target: str, parts: tuple[str, str, bool]) -> None:
    assert split_question(target) == parts


@pytest.mark.parametrize("target", ["/", "/ask", "/asks/v", "/v/x", "http://h/ask/v", "*", "/ASK/v"])
def test_any_other_target_is_not_a_question(target: str) -> None:
    with pytest.raises(RouteNotFound):
        split_question(target)


FIELDS = (
    "X-Original-URI",
    "X-Original-Method",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "x_original_uri",
    "X-Original-Url",
)


@given(
    sent=st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(["/v/a", "/v/b", "GET", "POST", ""])), max_size=6),
    way=st.sampled_from(["x-original", "x-forwarded"]),
)
def test_only_the_two_configured_fields_are_read_and_each_must_occur_once(
    sent: list[tuple[str, str]], way: Any
) -> None:
    head = RequestHead("\r\n".join(["GET /ask/v HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]).encode())
    names = {
        "x-original": ("x-original-method", "x-original-uri"),
        "x-forwarded": ("x-forwarded-method", "x-forwarded-uri"),
    }
    given_ = [[value for name, value in sent if name.lower() == wanted] for wanted in names[way]]
    clear = all(len(each) == 1 and each[0] for each in given_) and given_[0][0] in {"GET", "POST"}
    try:
        found = asked(head, "", AskPlane("edge", frozenset({"v"}), way))
    except BadRequest:
        assert not clear
    else:
        assert clear
        assert found == (given_[0][0], given_[1][0])


@given(st.text(alphabet="/va.%2fe;?#\\", max_size=12))
def test_a_path_is_below_the_prefix_or_refused(target: str) -> None:
    for prefix in (True, False):
        plane = AskPlane("edge", frozenset({"v"}), "path", prefix=prefix)
        try:
            path, rest = paths(target, plane, ROUTE)
        except ExchangeError:
            continue
        assert path == "/v" + rest
        assert rest in {"", "/"} or rest.startswith("/")
        assert target.partition("?")[0] == (path if prefix else rest)
