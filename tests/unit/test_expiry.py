"""Every odd form in which a life is written gives a usable one: never for ever, never none."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from gateway.model import Expires
from gateway.tokens.expiry import MAX_LIFE, MAX_RETRY_AFTER, AnswerTime, http_date, life_of, retry_after

WALL = 1_800_000_000.0
IN = Expires("in", "expires_in")
AT = Expires("at", "expires_at")


def jwt(**claims: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


def life(
    expires: Expires, answer: dict[str, Any], token: str = "opaque", fallback: float = 300.0, off: float | None = None
) -> tuple[float, str]:
    """Read an answer; `off`: it has a Date, of a clock that is so many seconds ahead of ours."""
    time = AnswerTime(WALL, 0.0, None if off is None else WALL + off)
    return life_of(expires, answer, token, fallback=fallback, time=time)


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


CLOCKS = pytest.mark.parametrize("off", [0.0, 600.0, -600.0, 3600.0, -3600.0, 86_400.0], ids=lambda off: f"{off:+g} s")
"""The vendor's clock minus ours; or ours was changed by as much."""


@CLOCKS
@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
def test_an_instant_is_compared_with_the_clock_that_wrote_it(off: float, unit: int) -> None:
    seconds, source = life(AT, {"expires_at": (WALL + off + 600) * unit}, off=off)
    assert 599 <= seconds <= 600
    assert source == "at"


@CLOCKS
def test_a_jwt_is_compared_with_the_clock_that_wrote_it(off: float) -> None:
    seconds, source = life(Expires("jwt"), {}, jwt(exp=WALL + off + 600), off=off)
    assert 599 <= seconds <= 600
    assert source == "jwt"


STATED = [
    pytest.param(IN, {"expires_in": 3600}, id="in"),
    pytest.param(Expires("in_ms", "ttl"), {"ttl": 3_600_000}, id="in_ms"),
    pytest.param(Expires("after", seconds=3600.0), {}, id="after"),
]


@CLOCKS
@pytest.mark.parametrize(("expires", "answer"), STATED)
def test_a_jwt_that_is_shorter_than_what_is_stated_wins(expires: Expires, answer: dict[str, Any], off: float) -> None:
    seconds, source = life(expires, answer, jwt(exp=WALL + off + 120, iat=WALL + off), off=off)
    assert 119 <= seconds <= 120
    assert source == "jwt"


@CLOCKS
@pytest.mark.parametrize(("expires", "answer"), STATED)
def test_a_jwt_that_has_expired_by_its_vendors_clock_is_dead(
    expires: Expires, answer: dict[str, Any], off: float
) -> None:
    for claims in ({"exp": WALL + off - 10}, {"exp": WALL + off - 10, "iat": WALL + off - 3610}):
        assert life(expires, answer, jwt(**claims), off=off) == (0.0, "jwt")


def test_without_a_date_a_dead_jwt_wins_unless_our_clock_may_be_wrong() -> None:
    assert life(IN, {"expires_in": 3600}, jwt(exp=WALL - 10)) == (0.0, "jwt")
    assert life(IN, {"expires_in": 3600}, jwt(exp=WALL - 10, iat=WALL - 910)) == (900.0, "jwt")


def test_a_jwt_that_outlives_what_is_stated_changes_nothing() -> None:
    assert life(IN, {"expires_in": 3600}, jwt(exp=WALL + 7200, iat=WALL), off=0.0) == (3600.0, "in")


@CLOCKS
def test_a_jwt_that_differs_by_the_rounding_of_seconds_is_not_shorter(off: float) -> None:
    """`exp` is `iat` in whole seconds plus the life: a second less than `expires_in` says nothing."""
    token = jwt(iat=WALL + off - 0.9, exp=WALL + off + 2.1)
    assert life(IN, {"expires_in": 3}, token, off=off) == (3.0, "in")
    assert life(IN, {"expires_in": 0.2}, jwt(exp=WALL + off - 0.7), off=off) == (0.2, "in")


@pytest.mark.parametrize("token", ["a.b", "a.b.c.d.e", f"x.{'A' * 99999}.y", "..", "x.bm90IGpzb24.y", "x.W10.y"])
def test_what_only_looks_like_a_jwt_changes_no_stated_life(token: str) -> None:
    assert life(IN, {"expires_in": 3600}, token, off=0.0) == (3600.0, "in")


@CLOCKS
def test_a_date_to_retry_after_is_compared_with_the_answers_own_date(off: float) -> None:
    date = format_datetime(datetime.fromtimestamp(WALL + off + 20, UTC), usegmt=True)
    assert retry_after(date, AnswerTime(WALL, 0.3, WALL + off)) == 20.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("120", 120.0), ("86400", MAX_RETRY_AFTER), ("-1", None), ("1.5", None), ("", None), (None, None)],
)
def test_seconds_to_retry_after_need_no_clock(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, AnswerTime(WALL, 0.0, WALL + 600)) == seconds


def test_a_date_to_retry_after_that_has_passed_is_no_wait() -> None:
    assert retry_after("Fri, 15 Jan 2027 07:00:00 GMT", AnswerTime(WALL, 0.0, WALL)) == 0.0


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
    assert AnswerTime(WALL, round_trip, http_date(date)).skew == skew


def test_the_three_date_forms_of_http_are_read() -> None:
    """RFC 9110 §5.6.7: a recipient must accept all three."""
    forms = ["Fri, 15 Jan 2027 08:00:00 GMT", "Friday, 15-Jan-27 08:00:00 GMT", "Fri Jan 15 08:00:00 2027"]
    assert [http_date(form) for form in forms] == [WALL] * 3
