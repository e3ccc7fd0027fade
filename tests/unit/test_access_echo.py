"""The echo guard's mask: every form of a token, at every place, however the body is cut into pieces."""

from __future__ import annotations

import base64
import json
from functools import partial
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Secret, Token
from gateway.observe import Metrics
from gateway.proxy.echo import GUARDED, BodyGuard, echoes_of, mask
from tests.kit.metrics import sample

VALUE = "eyJCANARY.a/b+c==.sig~nature_-99"
ECHOES = echoes_of(Token(Secret(VALUE), "key", 0.0, 10.0, "in"))
FORMS = {
    "plain": VALUE,
    "percent-encoded": quote(VALUE, safe=""),
    "percent-encoded, lower case": quote(VALUE, safe="")
    .replace("%2F", "%2f")
    .replace("%2B", "%2b")
    .replace("%3D", "%3d"),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 behind Bearer": base64.b64encode(f"Bearer {VALUE}".encode()).decode(),
    "base64 behind id:": base64.b64encode(f"id:{VALUE}:x".encode()).decode(),
    "base64url": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "hex": VALUE.encode().hex(),
    "JSON with escaped slashes": json.dumps(VALUE).replace("/", "\\/"),
}


def guard() -> tuple[BodyGuard, Metrics]:
    metrics = Metrics()
    return BodyGuard(ECHOES, metrics.route("v")), metrics


def run(pieces: list[bytes]) -> tuple[bytes, Metrics]:
    it, metrics = guard()
    return b"".join([*(it.feed(piece) for piece in pieces), it.feed(b"", last=True)]), metrics


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_the_token_is_masked_and_nothing_else(form: str) -> None:
    body = f'{{"you sent": "{form}", "and": "Basic Q0FOQVJZ"}}'.encode()
    masked, metrics = run([body])
    assert len(masked) == len(body)
    assert masked.startswith(b'{"you sent": "')
    assert masked.endswith(b'", "and": "Basic Q0FOQVJZ"}')
    assert b"*" * 24 in masked
    assert "CANARY" not in masked.decode()
    value = partial(sample, metrics)
    assert value("gatepass_echoed_tokens_total", {"route": "v", "place": "body"}) == 1


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(0, 200), max_size=6))
def test_however_the_body_is_cut_the_mask_is_the_same(before: bytes, behind: bytes, cuts: list[int]) -> None:
    body = before + VALUE.encode() + behind
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(places)]
    masked, _ = run(pieces)
    assert masked == mask(body, ECHOES)
    assert VALUE.encode() not in masked
    assert len(masked) == len(body)


def test_only_what_may_be_the_beginning_of_a_token_waits_for_the_next_piece() -> None:
    it, _ = guard()
    assert it.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert it.feed(b"data: eyJCAN") == b"data: "
    assert it.feed(b"DLE\n\n") == b"eyJCANDLE\n\n"
    assert it.feed(b"data: eyJCANARY.a/b") == b"data: "
    assert it.feed(b"+c==.sig~nature_-99\n\n") == b"*" * len(VALUE) + b"\n\n"


def test_behind_the_first_64_kib_nothing_is_looked_at_or_held_back() -> None:
    it, _ = guard()
    first = b"x" * GUARDED
    assert it.feed(first) == first
    assert it.feed(VALUE.encode()[:10]) == VALUE.encode()[:10]


def test_an_answer_without_a_token_is_not_counted() -> None:
    masked, metrics = run([b"nothing", b" here"])
    assert masked == b"nothing here"
    assert not sample(metrics, "gatepass_echoed_tokens_total", {"route": "v", "place": "body"})
