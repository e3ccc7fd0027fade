"""A connection's phases: what the table promises, on every path through it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy import phase
from gateway.proxy.phase import CLOSED, EVENTS, HEAD, IDLE, LINGERING, PHASES, TRANSITIONS, Event, after, runs_exchange

ALL_PHASES, ALL_EVENTS = range(len(PHASES)), range(len(EVENTS))


@pytest.mark.parametrize("event", ALL_EVENTS, ids=EVENTS)
@pytest.mark.parametrize("before", ALL_PHASES, ids=PHASES)
def test_an_event_leads_where_the_table_says_and_is_an_error_elsewhere(before: int, event: int) -> None:
    if before in TRANSITIONS[event]:
        assert after(before, event) == TRANSITIONS[event][before]
    else:
        with pytest.raises(RuntimeError, match=f"{EVENTS[event]} in phase {PHASES[before]}"):
            after(before, event)


def test_phases_and_events_are_named_as_their_constants() -> None:
    for names, where in ((PHASES, phase), (EVENTS, Event)):
        assert [getattr(where, name.upper()) for name in names] == list(range(len(names)))


@given(st.lists(st.sampled_from(ALL_EVENTS), max_size=40))
def test_on_every_path_a_connection_that_has_finished_begins_nothing_again(events: list[int]) -> None:
    at, finished = IDLE, False
    for event in events:
        if at not in TRANSITIONS[event]:
            continue
        following = after(at, event)
        assert not finished or following >= LINGERING
        assert at != CLOSED or following == CLOSED
        assert runs_exchange(following) <= (runs_exchange(at) or (at, event) == (HEAD, Event.REQUEST))
        at, finished = following, finished or event in {Event.FINISHED, Event.LOST}


def test_a_connection_can_finish_and_be_lost_at_any_time() -> None:
    assert {after(each, Event.LOST) for each in ALL_PHASES} == {CLOSED}
    assert {after(each, Event.FINISHED) for each in ALL_PHASES} == {LINGERING, CLOSED}


def test_every_phase_can_be_reached() -> None:
    reached, waiting = {IDLE}, [IDLE]
    while waiting:
        at = waiting.pop()
        following = {TRANSITIONS[event][at] for event in ALL_EVENTS if at in TRANSITIONS[event]} - reached
        reached |= following
        waiting += following
    assert reached == set(ALL_PHASES)
