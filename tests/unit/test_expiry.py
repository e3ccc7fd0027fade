"""Every odd form in which a life is written gives a usable one: never for ever, never none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gateway.model import Expires
from gateway.tokens.expiry import MAX_LIFE, http_date, life_of, skew_of

WALL = 1_800_000_000.0
IN = Expires("in", "expires_in")
AT = Expires("at", "expires_at")


def jwt(**claims: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


def life(expires: Expires, answer: dict[str, Any], token: str = "opaque", fallback: float = 300.0) -> tuple[float, str]:
    return life_of(expires, answer, token, fallback=fallback, wall=WALL)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600.0), ("3600", 3600.0), (" 3600 ", 3600.0), (3600.0, 3600.0), ("3600.0", 3600.0), ("3.6e3", 3600.0),
        (1, 1.0), (0.5, 0.5), (864_000, MAX_LIFE), (1e12, MAX_LIFE), ("1" * 30, MAX_LIFE),
    ],
)  # fmt: skip
def test_a_number_or_a_numeric_string_is_a_life_up_to_a_day(value: object, seconds: float) -> None:
    assert life(IN, {"expires_in": value}) == (seconds, "in")


UNUSABLE = [0, -1, "0", "-3600", None, True, False, "", "soon", "1h", "٣٦٠٠", [3600], {"s": 3600}, float("inf"), "nan"]


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_an_unusable_life_falls_back(value: object) -> None:
    assert life(IN, {"expires_in": value}) == (300.0, "fallback")


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_the_tokens_own_exp_comes_before_the_fallback(value: object) -> None:
    assert life(IN, {"expires_in": value}, jwt(exp=WALL + 900)) == (900.0, "jwt")


def test_a_missing_life_falls_back() -> None:
    assert life(IN, {}) == (300.0, "fallback")


def test_the_fallback_is_capped_too() -> None:
    assert life(IN, {}, fallback=1e9) == (MAX_LIFE, "fallback")


def test_milliseconds_are_milliseconds() -> None:
    assert life(Expires("in_ms", "ttl"), {"ttl": 3_600_000}) == (3600.0, "in_ms")


def test_a_fixed_life_needs_no_field() -> None:
    assert life(Expires("after", seconds=120.0), {}) == (120.0, "after")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(WALL + 600, id="epoch seconds"),
        pytest.param(str(int(WALL + 600)), id="epoch seconds as a string"),
        pytest.param((WALL + 600) * 1000, id="epoch milliseconds"),
        pytest.param("2027-01-15T08:10:00Z", id="ISO 8601 with Z"),
        pytest.param("2027-01-15T10:10:00+02:00", id="ISO 8601 with an offset"),
        pytest.param("2027-01-15T08:10:00.000Z", id="ISO 8601 with a fraction"),
        pytest.param("2027-01-15 08:10:00", id="ISO 8601 without a zone is UTC"),
    ],
)
def test_an_instant_is_read_in_each_form(value: object) -> None:
    seconds, how = life(AT, {"expires_at": value})
    assert seconds == pytest.approx(600.0)
    assert how == "at"


@pytest.mark.parametrize("value", [WALL - 1, "2020-01-01T00:00:00Z", "tomorrow", None, "9999-99-99"], ids=repr)
def test_an_instant_that_has_passed_or_is_none_falls_back(value: object) -> None:
    assert life(AT, {"expires_at": value}) == (300.0, "fallback")


def test_a_life_may_stand_only_in_the_token() -> None:
    assert life(Expires("jwt"), {"expires_in": 5}, jwt(exp=WALL + 900)) == (900.0, "jwt")


@pytest.mark.parametrize(
    ("off", "seconds"), [(300.0, 600.0), (-300.0, 300.0), (-700.0, 600.0)], ids=["ahead", "behind", "behind by more"]
)
def test_a_jwt_of_a_vendor_whose_clock_is_off_never_lives_longer_than_it_was_given(off: float, seconds: float) -> None:
    """`exp - iat` is free of every clock; what is left by our clock may only shorten it."""
    token = jwt(iat=WALL + off, exp=WALL + off + 600)
    assert life(Expires("jwt"), {}, token) == (seconds, "jwt")


@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b.c", "..", jwt(), jwt(exp="soon"), jwt(exp=True), jwt(exp=WALL - 5), "é.é.é"],
    ids=["opaque", "three parts", "dots", "no exp", "exp a word", "exp true", "exp passed", "not ASCII"],
)
def test_a_token_that_is_no_jwt_with_a_life_falls_back(token: str) -> None:
    assert life(Expires("jwt"), {}, token) == (300.0, "fallback")


def test_a_dotted_path_ends_where_there_is_no_object() -> None:
    assert life(Expires("in", "a.b.c"), {"a": {"b": 3600}}) == (300.0, "fallback")


# ------------------------------------------------------------------------------------------------------------- skew


@pytest.mark.parametrize(
    ("date", "round_trip", "skew"),
    [
        pytest.param("Fri, 15 Jan 2027 08:00:00 GMT", 0.2, 0.0, id="in step"),
        pytest.param("Fri, 15 Jan 2027 08:00:03 GMT", 4.0, 0.0, id="within a slow round trip"),
        pytest.param("Fri, 15 Jan 2027 08:05:00 GMT", 1.0, 300.0, id="five minutes ahead"),
        pytest.param("Fri, 15 Jan 2027 07:55:00 GMT", 1.0, -300.0, id="five minutes behind"),
        pytest.param("Friday, whenever", 1.0, None, id="no date"),
        pytest.param(None, 1.0, None, id="missing"),
    ],
)
def test_skew_is_what_lies_beyond_the_round_trip(date: str | None, round_trip: float, skew: float | None) -> None:
    assert skew_of(date, wall_sent=WALL, round_trip=round_trip) == skew


def test_the_three_date_forms_of_http_are_read() -> None:
    """RFC 9110 §5.6.7: a recipient must accept all three."""
    forms = ["Fri, 15 Jan 2027 08:00:00 GMT", "Friday, 15-Jan-27 08:00:00 GMT", "Fri Jan 15 08:00:00 2027"]
    assert [http_date(form) for form in forms] == [WALL] * 3
