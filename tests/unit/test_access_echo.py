"""The echo guard's mask: every form of a token, at every place, however the body is cut into pieces."""

from __future__ import annotations

import base64
import json
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Secret, Token
from gateway.observe import Metrics
from gateway.proxy.echo import GUARDED, BodyGuard, echoes_of, mask
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from collections.abc import Callable

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


ESCAPES = {
    "percent": lambda char: f"%{ord(char):02X}",
    "percent, lower case": lambda char: f"%{ord(char):02x}",
    "percent u": lambda char: f"%u{ord(char):04x}",
    "JSON": lambda char: f"\\u{ord(char):04x}",
    "JSON of .NET": lambda char: f"\\u{ord(char):04X}",
    "JavaScript": lambda char: f"\\x{ord(char):02x}",
    "JavaScript, braces": lambda char: f"\\u{{{ord(char):x}}}",
    "HTML, decimal": lambda char: f"&#{ord(char)};",
    "HTML, hex": lambda char: f"&#x{ord(char):X};",
    "HTML, zeros": lambda char: f"&#{ord(char):06};",
    "JSON in JSON": lambda char: f"\\\\u{ord(char):04x}",
    "HTML in HTML": lambda char: f"&amp;#{ord(char)};",
    "JSON in HTML": lambda char: f"&#92;u{ord(char):04x}",
    "percent twice": lambda char: f"%25{ord(char):02x}",
}
ALIKE = {"+": "&plus;", "=": "&equals;", "/": "&sol;", ".": "&period;", "_": "&lowbar;"}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("which", ["=", "+/=", "./+=~_-", "all", "first", "last"])
@pytest.mark.parametrize("charset", ["ascii", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_token_in_escapes_is_masked_whichever_characters_are_escaped(
    escape: Callable[[str], str], which: str, charset: str
) -> None:
    """Gson escapes `=`, .NET `+`, Go `&`, Django `'`: each its own choice, so any must do."""
    shown = {"all": VALUE, "first": VALUE[0], "last": VALUE[-1]}.get(which, which)
    written = "".join(escape(char) if char in shown else char for char in VALUE)
    body = f'{{"you": "{written}", "more": "{written[:9]}"}}'.encode(charset)
    for pieces in ([body], [bytes([byte]) for byte in body])[: 2 if charset == "ascii" or which == "=" else 1]:
        masked, _ = run(pieces)
        assert len(masked) == len(body)
        text = masked.replace(b"\0", b"")
        assert b'"you": "' + b"*" * len(written) + b'", "more": "' in text
        assert text.endswith(written[:9].encode() + b'"}')


def test_named_references_are_masked() -> None:
    written = "".join(ALIKE.get(char, char) for char in VALUE)
    masked, _ = run([f"<p>{written}</p>".encode()])
    assert masked == b"<p>" + b"*" * len(written) + b"</p>"


def test_a_short_token_is_masked_and_a_very_short_one_is_not() -> None:
    for value, masked in (("k3y!", b"is ****"), ("k3y", b"is k3y")):
        guard = BodyGuard(echoes_of(Token(Secret(value), "key", 0.0, 10.0, "in")), Metrics().route("v"))
        assert guard.feed(b"is " + value.encode(), last=True) == masked


def test_what_only_looks_like_an_escape_passes() -> None:
    body = b'100% of \\users & "R&D" \\u00e9 &copy; &nosuch; %zz &#0; &#99999999; \\ \x00\x00 %'
    assert run([bytes([byte]) for byte in body])[0] == body


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
