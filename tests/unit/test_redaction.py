"""No secret gets past `redact`, in whatever shape it comes."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Basic, Secret
from gateway.observe import OwnWords, redact, redact_text, register, register_all
from gateway.observe.redaction.matcher import SecretMatcher
from gateway.observe.redaction.redact import LONGEST, MASK, redact_often

SECRET = "CANARY+/%& =:~\"'\\ü-7f3a9c51"
register_all(Secret(SECRET))  # kept for good: files that run before this one register many tokens


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS = {
    "itself": SECRET,
    "inside a word": f"xx{SECRET}yy",
    "percent": quote(SECRET, safe=""),
    "percent, path": quote(SECRET),
    "percent, lower case": quote(SECRET, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%C3", "%c3"),
    "form": quote_plus(SECRET),
    "json": json.dumps({"k": SECRET}),
    "json, utf-8": json.dumps({"k": SECRET}, ensure_ascii=False),
    "repr": repr([SECRET]),
    "ascii": ascii([SECRET]),
    "bytes repr": repr(SECRET.encode()),
    "html": html.escape(SECRET),
    "hex": SECRET.encode().hex(),
    "base64": b64(SECRET),
    "base64, url-safe": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "basic, id of 1": b64(f"i:{SECRET}"),
    "basic, id of 2": b64(f"id:{SECRET}"),
    "basic, id of 3": b64(f"idx:{SECRET}"),
    "basic, form-encoded": b64(f"id:{quote_plus(SECRET)}"),
}


@pytest.mark.parametrize("text", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_a_registered_secret_is_found_in_every_encoding(text: str) -> None:
    shown = redact_text(f"before {text} after")
    assert MASK in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    for encoded in ENCODINGS.values():
        core = encoded.strip("x=")[8:-8]
        assert core not in shown


@pytest.mark.parametrize("length", [12, 15, 20])
def test_a_secret_that_is_cut_short_is_found(length: int) -> None:
    assert redact_text(f"got {SECRET[:length]}") == f"got {MASK}"


PATTERNS = {
    "bearer": "Authorization: Bearer CANARY.opaque-1",
    "bearer alone": "sent Bearer CANARY",
    "bearer, lower case": "bearer CANARY",
    "basic": "Basic Q0FOQVJZ:CANARY",
    "jwt": "token eyJhbGciOiJSUzI1NiJ9.eyJDQU5BUlkiOjF9.CANARY",
    "jwt without signature": "eyJhbGciOiJub25lIn0.CANARY",
    "form body": "grant_type=x&client_secret=CANARY&scope=y",
    "query": "GET https://vendor.example/a?q=CANARY&code=CANARY HTTP/1.1",
    "user info": "https://me:CANARY@vendor.example/",
    "json member": '{"access_token": "CANARY", "refresh_token":"CANARY"}',
    "python dict": "{'client_secret': 'CANARY'}",
    "python bytes": "{b'X-Api-Secret-Key': b'CANARY'}",
    "escaped json": r'"{\"password\": \"CANARY\"}"',
    "header with a key": "x-api-key: CANARY",
    "cookie": "Cookie: a=CANARY; b=CANARY",
    "set-cookie tuple": "('Set-Cookie', 'sid=CANARY; Path=/')",
    "header tuple": "(b'Authorization', b'CANARY CANARY')",
    "our own key": "gp_CANARY0123456789abcdefABCDEF",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----",
    "cut private key": "-----BEGIN PRIVATE KEY-----\nCANARY",
    "value that looks masked": "client_secret=<CANARY>",
}


@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS.keys())
def test_what_looks_like_a_credential_is_masked_though_never_registered(text: str) -> None:
    shown = redact_text(text)
    assert "CANARY" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "message",
    [
        "config.yaml:7: credentials.acme.client_secret: variable NOPE_SECRET is not set",
        "config.yaml:9: clients[0].key_sha256: must be 64 hex digits",
        "credentials.acme.grant.request.headers.Authorization: names a file that is missing",
        "credentials.acme.grant.request.form.password: is empty",
        "routes.v.format: Bearer needs {token} once",
    ],
)
def test_our_own_message_about_a_key_keeps_its_words_but_no_registered_secret(message: str) -> None:
    assert redact_text(OwnWords(message)) == message
    assert redact({"problems": [OwnWords(message)]}) == {"problems": [message]}
    assert redact_text(OwnWords(f"{message} {SECRET}")) == f"{message} {MASK}"


HARMLESS = [
    "token_fetched",
    "the token endpoint answers 503 after 2.0 s",
    "credential idfy: refused: invalid_client",
    "connect to api.idfy.com:443 failed: [Errno 111] Connection refused",
    "<secret 0a1b2c3d>",
    "token_type: bearer",
    "2026-11-22T01:28:16.123456Z",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_no_secret_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


@dataclass
class Holder:
    inner: object


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError(SECRET)


SHAPES = {
    "value": {"a": SECRET},
    "key": {SECRET: 1},
    "bytes": {"a": SECRET.encode()},
    "bytearray": {"a": bytearray(SECRET.encode())},
    "memoryview": {"a": memoryview(SECRET.encode())},
    "nested": {"a": [{"b": (SECRET, {SECRET})}]},
    "frozenset": {"a": frozenset({SECRET})},
    "exception": {"a": ValueError(SECRET)},
    "object": {"a": Holder(Holder(SECRET))},
    "bytes key": {SECRET.encode(): SECRET.encode()},
    "repr that raises": {"a": Unprintable()},
    "deeper than we look": {"a": [[[[[[[[[[SECRET]]]]]]]]]]},
    "beyond the items we look at": {"a": ["x"] * 1000 + [SECRET]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_no_shape_hides_a_secret(shape: object) -> None:
    assert "7f3a9c51" not in json.dumps(redact(shape), ensure_ascii=False)
    assert "CANARY" not in json.dumps(redact(shape))


def test_a_structure_that_contains_itself_ends() -> None:
    loop: list[object] = [SECRET]
    loop.append(loop)
    assert "CANARY" not in json.dumps(redact(loop))


@pytest.mark.parametrize("name", ["Authorization", "client_secret", "X-Api-Secret-Key", "password", "token", "cookie"])
def test_under_a_telling_name_everything_is_masked(name: str) -> None:
    assert redact({name: "anything"}) == {name: MASK}
    assert redact({name: ["any", {"thing": 1}]}) == {name: MASK}
    assert redact({name: 123456}) == {name: MASK}


def test_a_wrapped_secret_shows_its_fingerprint() -> None:
    secret = Secret("CANARY-never-registered")
    assert redact({"client_secret": secret}) == {"client_secret": repr(secret)}


def test_which_secret_worked_may_be_said() -> None:
    assert redact({"secret": "current", "credential": "idfy"}) == {"secret": "current", "credential": "idfy"}


def test_a_number_that_is_a_secret_is_masked_and_others_stay_numbers() -> None:
    register(Secret("90817263544"))
    assert redact({"a": 90817263544, "b": 12, "c": 1 << 70, "d": True, "e": None, "f": 0.5}) == {
        "a": MASK,
        "b": 12,
        "c": str(1 << 70),
        "d": True,
        "e": None,
        "f": 0.5,
    }


def test_every_secret_in_a_tree_of_configuration_is_registered() -> None:
    register_all({"a": [Basic(username=Secret("CANARY-user"), password=Secret("CANARY-pass"))]})
    assert redact_text("CANARY-user CANARY-pass") == f"{MASK} {MASK}"


def test_a_short_secret_does_not_blank_every_line() -> None:
    register(Secret("a"))
    register(Secret(""))
    assert redact_text("a banana") == "a banana"


def test_what_the_configuration_holds_is_remembered_however_many_tokens_come() -> None:
    needles = SecretMatcher(remembered=16)
    needles.add("CANARY-configured", kept=True)
    for number in range(100):
        needles.add(f"CANARY-token-{number}-{number}")
    assert "CANARY-configured" not in needles.mask("with CANARY-configured inside", "*")
    assert len(needles) <= 17


def test_only_the_youngest_secrets_are_remembered() -> None:
    needles = SecretMatcher(remembered=16)
    for number in range(100):
        needles.add(f"CANARY-{number:03d}-secret")
        needles.add("CANARY-first-in-and-used-again")
    assert len(needles) <= 16
    assert needles.mask("CANARY-099-secret CANARY-first-in-and-used-again", "#") == "# #"
    assert needles.mask("see 000-secret", "#") == "see 000-secret"


@given(st.text(), st.text(alphabet="abc", min_size=6), st.text())
def test_whatever_stands_around_it_a_secret_is_gone(before: str, secret: str, after: str) -> None:
    needles = SecretMatcher()
    needles.add(secret)
    assert secret not in needles.mask(before + secret + after, "#")


@given(st.text(), st.binary())
def test_the_result_is_always_utf_8(text: str, data: bytes) -> None:
    json.dumps(redact({"a": text + "\ud800", "b": data}), ensure_ascii=False).encode()


def test_a_long_hostile_text_costs_little() -> None:
    for text in ("secret" * 20_000, "a" * 200_000, "authorization " + " " * 200_000, "eyJ" * 60_000, "?" * 100_000):
        assert len(redact_text(text)) <= 2 * LONGEST


def test_what_was_found_harmless_is_looked_at_again_when_a_secret_comes() -> None:
    text = "the endpoint said CANARY-late-secret-91ab"
    assert redact_often(text) == redact_often(text) == text
    register(Secret("CANARY-late-secret-91ab"))
    assert redact_often(text) == "the endpoint said <redacted>"
