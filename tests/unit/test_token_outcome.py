"""A token that an endpoint hands out again is recognised, and lives no longer for it."""

from __future__ import annotations

import pytest

from gateway.model import Secret, Token
from gateway.tokens.outcome import classify, is_expired_repeat

NOW = 1000.0


def token(value: str = "CANARY-a", end: float = NOW + 100, generation: int = 0, source: str = "in") -> Token:
    return Token(Secret(value), "acme", NOW, end, source, "f", generation)  # type: ignore[arg-type]


LAST = token(generation=7)


def test_the_first_token_is_new() -> None:
    kept, outcome = classify(token(), None, held=False, generation=0, now=NOW)
    assert (kept.generation, outcome) == (1, "ok")


def test_another_token_is_new() -> None:
    kept, outcome = classify(token("CANARY-b"), LAST, held=True, generation=7, now=NOW)
    assert (kept.generation, outcome) == (8, "ok")


@pytest.mark.parametrize("end", [NOW + 100, NOW + 3600], ids=["what is left", "the full life again"])
def test_the_same_token_is_kept_as_it_is(end: float) -> None:
    """Even as an object: a late refusal of it must still be recognised."""
    assert classify(token(end=end), LAST, held=True, generation=7, now=NOW) == (LAST, "unchanged")


@pytest.mark.parametrize(("taken", "end"), [(5.0, NOW + 100), (4.9, NOW + 95)], ids=["slow answer", "shortened"])
def test_what_the_answer_took_makes_no_token_shorter(taken: float, end: float) -> None:
    kept, outcome = classify(token(end=NOW + 95), LAST, held=True, generation=7, now=NOW + taken)
    assert (kept.expires_at, outcome) == (end, "unchanged")


def test_the_same_token_with_an_earlier_end_takes_that() -> None:
    kept, outcome = classify(token(end=NOW + 10), LAST, held=True, generation=7, now=NOW)
    assert (kept.expires_at, kept.generation, outcome) == (NOW + 10, 7, "unchanged")


def test_after_its_end_the_endpoint_is_taken_at_its_word() -> None:
    past = token(end=NOW - 1, generation=7)
    kept, outcome = classify(token(end=NOW + 50), past, held=True, generation=7, now=NOW)
    assert (kept.expires_at, kept.generation, outcome) == (NOW + 50, 7, "unchanged")


def test_a_refused_token_that_comes_back_is_a_new_sighting_without_a_longer_life() -> None:
    kept, outcome = classify(token(end=NOW + 3600), LAST, held=False, generation=7, now=NOW)
    assert (kept.generation, kept.expires_at, outcome) == (8, NOW + 100, "unchanged")


@pytest.mark.parametrize(
    ("fetched", "last", "dead"),
    [
        pytest.param(token(source="fallback"), token(end=NOW - 1), True, id="ended, and no life is named"),
        pytest.param(token(source="in"), token(end=NOW - 1), False, id="ended, but the endpoint names a life"),
        pytest.param(token(source="fallback"), token(end=NOW + 1), False, id="not yet ended"),
        pytest.param(token("CANARY-b", source="fallback"), token(end=NOW - 1), False, id="another token"),
        pytest.param(token(source="fallback"), None, False, id="the first token"),
    ],
)
def test_a_token_that_has_run_out_is_not_revived_by_the_fallback(
    fetched: Token, last: Token | None, dead: bool
) -> None:
    assert is_expired_repeat(fetched, last, NOW) is dead
