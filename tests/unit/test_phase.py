"""A connection's phases: what the table promises, on every path through it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy import phase as on
from gateway.proxy.phase import CLOSED, EVENTS, IDLE, LINGERING, PHASES, runs_exchange

ALL_PHASES = range(len(PHASES))
EVENT = st.sampled_from(range(len(EVENTS)))


def test_phases_are_named_as_their_constants() -> None:
    assert [getattr(on, name.upper()) for name in PHASES] == list(ALL_PHASES)


def test_every_event_is_between_phases_that_exist() -> None:
    assert {each for event in EVENTS for pair in event.items() for each in pair} <= set(ALL_PHASES)


@given(st.lists(EVENT, max_size=40))
def test_on_every_path_a_connection_that_has_finished_begins_nothing_again(events: list[int]) -> None:
    at, finished = IDLE, False
    for number in events:
        event = EVENTS[number]
        if at not in event:
            continue
        following = event[at]
        assert not finished or following >= LINGERING
        assert at != CLOSED or following == CLOSED
        assert runs_exchange(following) <= (runs_exchange(at) or event is on.REQUEST)
        at, finished = following, finished or event is on.FINISHED or event is on.LOST


def test_a_connection_can_finish_and_be_lost_at_any_time() -> None:
    assert dict.fromkeys(ALL_PHASES, CLOSED) == on.LOST
    assert {**dict.fromkeys(ALL_PHASES, LINGERING), CLOSED: CLOSED} == on.FINISHED


def test_an_exchange_begins_and_ends_in_one_phase_each_and_only_one_event_reaches_a_tunnel() -> None:
    assert on.REQUEST == {on.HEAD: on.ANSWERING}
    assert on.ANSWERED == {on.ANSWERING: IDLE}
    assert [event for event in EVENTS if on.TUNNEL in event.values()] == [on.SWITCHED]


def test_every_phase_can_be_reached() -> None:
    reached, waiting = {IDLE}, [IDLE]
    while waiting:
        at = waiting.pop()
        following = {event[at] for event in EVENTS if at in event} - reached
        reached |= following
        waiting += following
    assert reached == set(ALL_PHASES)
