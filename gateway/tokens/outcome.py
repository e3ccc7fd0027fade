"""Whether a fetched token is new or a repeat of the last one, and when it expires. Pure.

Some endpoints return the same token until it expires, some with its remaining lifetime, some with the full lifetime
every time. The first must not be asked again and again; the second must not extend a token for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gateway.model import Token

Outcome = Literal["ok", "unchanged"]


def classify(fetched: Token, last: Token | None, *, held: bool, generation: int, now: float) -> tuple[Token, Outcome]:
    """Return the token to use, and whether it is new.

    A repeated token keeps its first expiry until that has passed, or gets an earlier one. After its first expiry, the
    endpoint's answer is trusted. A lifetime counts from before the request, so a slow answer with the remaining
    lifetime gives an expiry that is too early by the duration of the answer; that is not an earlier expiry. A repeated
    token that the vendor had rejected (`held` is False) gets a new generation, which is not yet accepted.

    Args:
        fetched: the token just fetched; its generation is 0, or its fence (`shared.py`), which is kept.
        last: the token before it.
        held: whether `last` is still in use.
        generation: of the newest token so far.
        now: monotonic instant.
    """
    if last is None or last.value != fetched.value:
        return replace(fetched, generation=fetched.generation or generation + 1), "ok"
    if last.expires_at <= now:
        return replace(fetched, generation=fetched.generation or last.generation), "unchanged"
    if held and last.expires_at <= fetched.expires_at + (now - fetched.fetched_at):
        return last, "unchanged"
    end = min(last.expires_at, fetched.expires_at)
    if held:
        return replace(last, expires_at=end, generation=fetched.generation or last.generation), "unchanged"
    return replace(fetched, expires_at=end, generation=fetched.generation or generation + 1), "unchanged"


def is_expired_repeat(fetched: Token, last: Token | None, now: float) -> bool:
    """Whether the endpoint returned the last token although it has expired.

    Its expiry has passed, and the answer has no lifetime, or one that ended before the answer arrived.
    """
    known = last is not None and last.value == fetched.value and last.expires_at <= now
    return known and (fetched.expiry_source == "fallback" or fetched.expires_at <= now)


def is_same(held: Token, token: Token) -> bool:
    """Compare generation and value: two caches may use the same generation numbers."""
    return held is token or (held.generation == token.generation and held.value == token.value)
