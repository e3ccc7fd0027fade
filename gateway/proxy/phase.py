"""The phases of an app's connection and the events that change them, as a table. Pure.

A connection is in exactly one phase. Each event is a mapping from the phases that allow it to the phase that follows:
`phase = REQUEST[phase]`. An event in any other phase is a programming error (KeyError). The idea is h11's
(https://h11.readthedocs.io/en/latest/api.html#the-state-machine).

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
"""An exchange runs, and the connection closes after it; bytes are discarded."""
TUNNEL: Final = 5
"""An exchange runs, and bytes are passed on unparsed after a 101."""
LINGERING: Final = 6
"""The last answer was written; bytes are discarded until the app has closed (RFC 9112 §9.6)."""
CLOSED: Final = 7
"""The transport is closed or aborted."""
PHASES: Final = ("idle", "head", "answering", "body", "broken", "tunnel", "lingering", "closed")

_OPEN: Final = (IDLE, HEAD, ANSWERING, BODY, BROKEN, TUNNEL, LINGERING)

BYTES: Final[dict[int, int]] = {IDLE: HEAD, HEAD: HEAD}
"""Bytes arrived that are not those of a body or a tunnel."""
BLANK: Final[dict[int, int]] = {HEAD: IDLE}
"""The bytes were only empty lines (RFC 9112 §2.2)."""
REQUEST: Final[dict[int, int]] = {HEAD: ANSWERING}
"""A head is complete, and its exchange begins."""
BODY_BEGINS: Final[dict[int, int]] = {ANSWERING: BODY}
BODY_ENDS: Final[dict[int, int]] = {BODY: ANSWERING}
SPOILED: Final[dict[int, int]] = {BODY: BROKEN, ANSWERING: BROKEN}
"""The body is malformed or too slow, or unparsed requests were given up."""
SWITCHED: Final[dict[int, int]] = {ANSWERING: TUNNEL}
"""The vendor answered 101."""
ANSWERED: Final[dict[int, int]] = {ANSWERING: IDLE}
"""The exchange has ended, and the connection stays open."""
FINISHED: Final[dict[int, int]] = {**dict.fromkeys(_OPEN, LINGERING), CLOSED: CLOSED}
"""The last answer was written."""
LOST: Final[dict[int, int]] = {**dict.fromkeys(_OPEN, CLOSED), CLOSED: CLOSED}
"""The transport was closed or aborted."""
EVENTS: Final[tuple[dict[int, int], ...]] = (
    *(BYTES, BLANK, REQUEST, BODY_BEGINS, BODY_ENDS, SPOILED, SWITCHED, ANSWERED, FINISHED, LOST),
)


def runs_exchange(phase: int) -> bool:
    """Whether an exchange runs in this phase."""
    return ANSWERING <= phase <= TUNNEL
