"""What to make of a token that an endpoint hands out: a new one, or one that is known already. Pure.

Some endpoints return the same token until it dies, with the life that is left, or with the full life every time. The
first must not be asked again and again; the second must not make a token immortal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gateway.model import Token

Outcome = Literal["ok", "unchanged"]


def classify(fetched: Token, last: Token | None, *, held: bool, generation: int, now: float) -> tuple[Token, Outcome]:
    """Return the token to use from now on, and whether it is new.

    A known token keeps its first end while that lies ahead, or takes an earlier one; after it the endpoint is taken
    at its word. What its answer took is no contradiction: a life counts from before the request, so a slow answer with
    what was left names an end that is too early by as much. A known one that had been refused (`held` is False) counts
    as a new sighting, not yet accepted.

    Args:
        fetched: the token as it was just handed out, without a generation.
        last: the token before it.
        held: whether `last` is still in use.
        generation: of the newest token so far.
        now: monotonic instant.
    """
    if last is None or last.value != fetched.value:
        return replace(fetched, generation=generation + 1), "ok"
    if last.expires_at <= now:
        return replace(fetched, generation=last.generation), "unchanged"
    if held and last.expires_at <= fetched.expires_at + (now - fetched.fetched_at):
        return last, "unchanged"
    end = min(last.expires_at, fetched.expires_at)
    if held:
        return replace(last, expires_at=end), "unchanged"
    return replace(fetched, expires_at=end, generation=generation + 1), "unchanged"


def ran_out(fetched: Token, last: Token | None, now: float) -> bool:
    """Whether the endpoint handed back a token that is dead by all that is known.

    Its end has passed, and the answer names none, or one that passed while it was under way.
    """
    known = last is not None and last.value == fetched.value and last.expires_at <= now
    return known and (fetched.expiry_source == "fallback" or fetched.expires_at <= now)
