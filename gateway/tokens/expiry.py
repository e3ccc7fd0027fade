"""How long a token lives, by what its answer says: pure arithmetic on values that were already read.

Knows every odd form in which vendors write a life and takes the most cautious reading; a life is never "for ever" and
an unusable one never makes a good token unusable. Knows no socket, no clock and no cache: instants are handed in.
RFC 6749 §5.1 (`expires_in` is only recommended), RFC 7519 §4.1.4 (`exp`), RFC 9110 §5.6.7 and §10.2.3 (dates).
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model import Expires, ExpirySource

MAX_LIFE = 86_400.0
"""Seconds. No token is trusted longer, whatever its answer says: a day's worth of staleness is the worst case."""
MAX_RETRY_AFTER = 300.0
"""Seconds. The longest `Retry-After` of a token endpoint that is obeyed to the letter."""

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_MILLISECONDS_FROM = 1e11
"""An epoch value above this is in milliseconds: as seconds it would lie beyond the year 5000."""


def life_of(
    expires: Expires, answer: Mapping[str, object], token: str, *, fallback: float, wall: float
) -> tuple[float, ExpirySource]:
    """Return the seconds that a token lives, counted from when its request left, and where that was written.

    Args:
        expires: where the recipe says that the life is written.
        answer: the JSON object of the token endpoint.
        token: the token itself, read as a JWT when the answer gives no usable life.
        fallback: seconds when nothing else is usable.
        wall: our wall clock when the request left, seconds since the epoch.
    """
    source: ExpirySource = expires.kind
    life = None if expires.kind == "jwt" else _stated(expires, answer, wall)
    if life is None or life <= 0:
        source, life = "jwt", jwt_life(token, wall)
    if life is None or life <= 0:
        source, life = "fallback", fallback
    return min(life, MAX_LIFE), source


def _stated(expires: Expires, answer: Mapping[str, object], wall: float) -> float | None:
    if expires.kind == "after":
        return expires.seconds
    value = at_path(answer, expires.path)
    if expires.kind == "at":
        instant = _instant(value)
        return None if instant is None else instant - wall
    seconds = number(value)
    return seconds / 1000 if seconds is not None and expires.kind == "in_ms" else seconds


def jwt_life(token: str, wall: float) -> float | None:
    """Return the seconds left by a JWT's own `exp` claim; None when it is no JWT or names none.

    The claims are the vendor's clock. Where `iat` is there too, `exp - iat` bounds the life without any clock of ours:
    a vendor whose clock runs ahead does not make its tokens live longer here, nor one that lags make them dead.
    """
    import jwt  # noqa: PLC0415 - a fifth of a second of start-up that few credentials need

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    expires, issued = number(claims.get("exp")), number(claims.get("iat"))
    if expires is None:
        return None
    left = expires - wall
    if issued is None or expires <= issued:
        return left
    return min(left, expires - issued) if left > 0 else expires - issued


def at_path(document: object, path: str) -> object:
    """Return the value at a dotted path of JSON objects; None where the path leads nowhere."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def number(value: object) -> float | None:
    """Return a JSON number, or a string that holds one, as a finite float; else None. `true` is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else None
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _instant(value: object) -> float | None:
    seconds = number(value)
    if seconds is not None:
        return seconds / 1000 if seconds > _MILLISECONDS_FROM else seconds
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def http_date(value: str | None) -> float | None:
    """Return an HTTP-date as seconds since the epoch; None when it is not one."""
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(value: str | None, wall: float) -> float | None:
    """Return the seconds that a `Retry-After` field asks for, between 0 and `MAX_RETRY_AFTER`; None without one."""
    if not value:
        return None
    text = value.strip()
    seconds = float(text) if text.isascii() and text.isdigit() else None
    if seconds is None:
        until = http_date(text)
        seconds = None if until is None else until - wall
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def skew_of(date: str | None, *, wall_sent: float, round_trip: float) -> float | None:
    """Return the vendor's clock minus ours in seconds, from a `Date` field; 0.0 within what the method can tell.

    The answer was dated somewhere inside the round trip, and a `Date` has no fraction of a second (RFC 9110 §5.6.7),
    so only a distance beyond both is skew.
    """
    dated = http_date(date)
    if dated is None:
        return None
    earliest, latest = dated - (wall_sent + round_trip), dated + 1 - wall_sent
    return 0.0 if earliest <= 0 <= latest else (earliest + latest) / 2
