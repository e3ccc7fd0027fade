"""When the store is trusted: pure rules, instants are given."""

from __future__ import annotations

from gateway.store.health import FAILURES, SILENCE, Health


def up() -> Health:
    it = Health()
    it.answered(0.0)
    assert it.is_up
    return it


def test_nothing_is_trusted_before_the_first_attempt_has_ended() -> None:
    it = Health()
    assert not it.is_up
    assert not it.tried


def test_the_first_answer_is_enough_at_the_start() -> None:
    assert up().tried


def test_a_failed_start_needs_two_good_answers() -> None:
    it = Health()
    it.failed(0.0, 0.3)
    assert it.tried
    it.answered(1.0)
    assert not it.is_up
    it.answered(2.0)
    assert it.is_up


def test_three_failures_in_a_row_are_an_outage_however_quick() -> None:
    it = up()
    for number in range(FAILURES):
        assert it.is_up
        it.failed(1.0 + number / 100, 1.0 + number / 100)
    assert not it.is_up


def test_an_answer_in_between_begins_the_count_anew() -> None:
    it = up()
    for number in range(10):
        it.failed(float(number), number + 0.1, beat=False)
        it.answered(number + 0.2, beat=False)
    assert it.is_up


def test_a_second_of_silence_is_an_outage_with_fewer_failures() -> None:
    it = up()
    it.failed(5.0, 5.0 + SILENCE)
    assert not it.is_up


def test_answers_to_reads_do_not_hide_that_heartbeats_fail() -> None:
    """A full or read-only server still answers reads."""
    it = up()
    for number in range(FAILURES):
        it.failed(number / 10, number / 10, beat=True)
        it.answered(number / 10, beat=False)
    assert not it.is_up


def test_an_outage_ends_after_two_heartbeats_in_a_row() -> None:
    it = up()
    for _ in range(FAILURES):
        it.failed(1.0, 1.0)
    it.answered(2.0)
    it.failed(3.0, 3.0)
    it.answered(4.0)
    assert not it.is_up
    it.answered(5.0)
    assert it.is_up
