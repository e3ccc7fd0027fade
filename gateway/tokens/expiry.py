"""The lifetime of a token, computed from the token endpoint's answer. Pure: instants are arguments.

Reads every form in which vendors write a lifetime, and takes the shortest that is plausible. A lifetime is never
unlimited, and an unusable one never makes a good token unusable.
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
"""Seconds. No token is used longer, whatever the answer says."""
MAX_RETRY_AFTER = 300.0
"""Seconds. The longest `Retry-After` of a token endpoint that is obeyed in full."""

_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_MILLISECONDS_FROM = 1e11
"""An epoch value above this is in milliseconds: in seconds it would be after the year 5000."""


def life_of(
    expires: Expires, answer: Mapping[str, object], token: str, *, fallback: float, wall: float
) -> tuple[float, ExpirySource]:
    """Return a token's lifetime in seconds, counted from when its request was sent, and its source.

    Args:
        expires: where the recipe says that the answer has the lifetime.
        answer: the JSON object of the token endpoint.
        token: the token, read as a JWT if the answer has no usable lifetime.
        fallback: seconds when nothing else is usable.
        wall: our wall clock when the request was sent, seconds since the epoch.
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
    """Return the seconds left by a JWT's own `exp` claim; None if `token` is not a JWT with an `exp`.

    The claims are instants of the vendor's clock. If there is an `iat`, `exp - iat` bounds the lifetime without our
    clock, so a vendor whose clock runs ahead does not lengthen it, and one whose clock is late does not end it.
    """
    import jwt  # noqa: PLC0415 - importing it takes a fifth of a second, and few credentials need it

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
    """Return the value at a dotted path of JSON objects; None if there is none."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def number(value: object) -> float | None:
    """Return a JSON number, or a string that contains one, as a finite float; else None. `true` is not a number."""
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
    """Return the vendor's clock minus ours in seconds, from a `Date` field; 0.0 if it is too small to measure.

    The vendor wrote the `Date` at some moment of the round trip, in whole seconds (RFC 9110 §5.6.7), so only a
    difference larger than both is skew.
    """
    dated = http_date(date)
    if dated is None:
        return None
    earliest, latest = dated - (wall_sent + round_trip), dated + 1 - wall_sent
    return 0.0 if earliest <= 0 <= latest else (earliest + latest) / 2
