"""The phases of an app's connection and the events that change them, as a table. Pure.

A connection is in exactly one phase. `after(phase, event)` is the only way from one to the next; an event that a phase
does not allow is a programming error. The idea is h11's (https://h11.readthedocs.io/en/latest/api.html#the-state-machine).

| phase     | bytes that arrive       | end of the app's bytes  | time-out                                      |
|-----------|-------------------------|-------------------------|-----------------------------------------------|
| idle      | begin a head            | close                   | `header_timeout`, later `keepalive_timeout`   |
| head      | continue the head       | close                   | `header_timeout` → 408                        |
| answering | wait for the next head  | abort the exchange      | `body_timeout` without reading the answer     |
| body      | go to the body          | abort the exchange      | `body_timeout`, `body_rate` → 408             |
| broken    | are discarded           | abort the exchange      | as answering                                  |
| tunnel    | go to the vendor        | end this direction      | the route's `idle` time-out                   |
| lingering | are discarded           | close                   | 2 s, or `body_timeout` while bytes still leave |
| closed    |                         |                         |                                               |
"""

from __future__ import annotations

from typing import Final

IDLE: Final = 0
"""No byte of a request has arrived."""
HEAD: Final = 1
"""Bytes of a request head have arrived."""
ANSWERING: Final = 2
"""An exchange runs, and its whole request has arrived; later bytes wait for the next exchange."""
BODY: Final = 3
"""An exchange runs, and its request body is still arriving."""
BROKEN: Final = 4
"""An exchange runs, but its request body was malformed or too slow; later bytes are discarded."""
TUNNEL: Final = 5
"""An exchange runs, and bytes are passed on unparsed after a 101."""
LINGERING: Final = 6
"""The last answer was written; bytes are discarded until the app has closed (RFC 9112 §9.6)."""
CLOSED: Final = 7
"""The transport is closed or aborted."""
PHASES: Final = ("idle", "head", "answering", "body", "broken", "tunnel", "lingering", "closed")


class Event:
    """What can happen to a connection."""

    BYTES: Final = 0
    """Bytes arrived that are not those of a body or a tunnel."""
    BLANK: Final = 1
    """The bytes were only empty lines (RFC 9112 §2.2)."""
    REQUEST: Final = 2
    """A head is complete, and its exchange begins."""
    BODY_BEGINS: Final = 3
    BODY_ENDS: Final = 4
    BODY_FAILS: Final = 5
    """The body is malformed or too slow."""
    SWITCHED: Final = 6
    """The vendor answered 101."""
    ANSWERED: Final = 7
    """The exchange has ended, and the connection stays open."""
    FINISHED: Final = 8
    """The last answer was written."""
    LOST: Final = 9
    """The transport was closed or aborted."""


EVENTS: Final = (
    *("bytes", "blank", "request", "body_begins", "body_ends", "body_fails", "switched", "answered", "finished"),
    "lost",
)
_OPEN: Final = (IDLE, HEAD, ANSWERING, BODY, BROKEN, TUNNEL, LINGERING)
TRANSITIONS: Final[dict[int, dict[int, int]]] = {
    Event.BYTES: {IDLE: HEAD, HEAD: HEAD},
    Event.BLANK: {HEAD: IDLE},
    Event.REQUEST: {HEAD: ANSWERING},
    Event.BODY_BEGINS: {ANSWERING: BODY},
    Event.BODY_ENDS: {BODY: ANSWERING},
    Event.BODY_FAILS: {BODY: BROKEN},
    Event.SWITCHED: {ANSWERING: TUNNEL},
    Event.ANSWERED: {ANSWERING: IDLE},
    Event.FINISHED: {**dict.fromkeys(_OPEN, LINGERING), CLOSED: CLOSED},
    Event.LOST: {**dict.fromkeys(_OPEN, CLOSED), CLOSED: CLOSED},
}
"""Event → phase → next phase."""
_NOT_ALLOWED: Final = 255
_NEXT: Final[bytes] = bytes(
    [TRANSITIONS[event].get(phase, _NOT_ALLOWED) for event in range(len(EVENTS)) for phase in range(len(PHASES))]
)
"""The same table in the form that is quick to read."""


def after(phase: int, event: int) -> int:
    """Return the phase that follows `phase` when `event` happens. Raises RuntimeError if the table has none."""
    following = _NEXT[event * 8 + phase]
    if following == _NOT_ALLOWED:
        raise RuntimeError(f"{EVENTS[event]} in phase {PHASES[phase]}")
    return following


def runs_exchange(phase: int) -> bool:
    """Whether an exchange runs in this phase."""
    return ANSWERING <= phase <= TUNNEL
