"""The lifetime of a token, computed from the token endpoint's answer. Pure: instants are arguments.

Reads every form in which vendors write a lifetime, and takes the shortest that is plausible. A lifetime is never
unlimited, and an unusable one never makes a good token unusable.
RFC 6749 §5.1 (`expires_in` is only recommended), RFC 7519 §4.1.4 (`exp`), RFC 9110 §5.6.7 and §10.2.3 (dates).
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class AnswerTime:
    """When an answer was written: by our clock, and by the vendor's if the answer has a `Date`. Seconds."""

    wall_sent: float
    """Our wall clock when the request was sent."""
    round_trip: float = 0.0
    """From the request to the answer's head; the vendor wrote its `Date` within this time."""
    date: float | None = None
    """The answer's `Date`, since the epoch."""

    @property
    def skew(self) -> float | None:
        """Vendor's clock minus ours; 0.0 if it is too small to measure; None without a `Date`.

        The vendor wrote the `Date` at some moment of the round trip, in whole seconds (RFC 9110 §5.6.7), so only a
        difference larger than both is skew.
        """
        if self.date is None:
            return None
        earliest, latest = self.date - (self.wall_sent + self.round_trip), self.date + 1 - self.wall_sent
        return 0.0 if earliest <= 0 <= latest else (earliest + latest) / 2

    @property
    def vendor_now(self) -> float:
        """The vendor's clock when the request was sent, at the latest; our wall clock if the two agree."""
        if self.date is None or self.skew == 0.0:
            return self.wall_sent
        return self.date + 1

    @property
    def precision(self) -> float:
        """Largest difference in seconds between two lifetimes that only comes from whole seconds and the round trip."""
        return self.round_trip + (1 if self.vendor_now == self.wall_sent else 2)


def life_of(
    expires: Expires, answer: Mapping[str, object], token: str, *, fallback: float, time: AnswerTime
) -> tuple[float, ExpirySource]:
    """Return a token's lifetime in seconds, counted from when its request was sent, and its source.

    If the token is a JWT, its own `exp` wins if it is earlier; a lifetime of 0.0 means that it has already passed.

    Args:
        expires: where the recipe says that the answer has the lifetime.
        answer: the JSON object of the token endpoint.
        token: the token, read as a JWT.
        fallback: seconds when nothing else is usable.
        time: when the answer was written. Instants of the answer are compared with the vendor's clock.
    """
    source: ExpirySource = expires.kind
    life = None if expires.kind == "jwt" else _stated(expires, answer, time.vendor_now)
    if life is not None and life <= 0:
        life = None
    own = jwt_life(token, time)
    if own is not None and own <= 0 and life is None and time.date is None:
        own = None  # only our clock says that the token has expired, and nothing confirms that our clock is right
    if own is not None and (life is None or own < life - time.precision):
        source, life = "jwt", max(0.0, own)
    if life is None:
        source, life = "fallback", fallback
    return min(life, MAX_LIFE), source


def _stated(expires: Expires, answer: Mapping[str, object], now: float) -> float | None:
    if expires.kind == "after":
        return expires.seconds
    value = at_path(answer, expires.path)
    if expires.kind == "at":
        instant = _instant(value)
        return None if instant is None else instant - now
    seconds = number(value)
    return seconds / 1000 if seconds is not None and expires.kind == "in_ms" else seconds


def jwt_life(token: str, time: AnswerTime) -> float | None:
    """Return the seconds left by a JWT's own `exp`, negative if it has passed; None without a usable `exp`.

    The claims are instants of the vendor's clock. `exp - iat` bounds the lifetime without any clock. If the answer has
    no `Date` and `exp` has passed by our clock, our clock may be wrong: the result is `exp - iat` if there is an `iat`.
    """
    claims = _claims(token)
    expires, issued = number(claims.get("exp")), number(claims.get("iat"))
    if expires is None:
        return None
    granted = expires - issued if issued is not None and issued < expires else None
    left = expires - time.vendor_now
    if left <= 0 and time.date is None and granted is not None:
        return granted
    return left if granted is None else min(left, granted)


def _claims(token: str) -> dict[str, object]:
    """Return the claims of a JWT in its compact form (RFC 7519 §3), unverified; empty if it is not one."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 §3.1
        return {}
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = json.loads(text, parse_int=float, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


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


def retry_after(value: str | None, time: AnswerTime) -> float | None:
    """Return the seconds that a `Retry-After` field asks for, between 0 and `MAX_RETRY_AFTER`; None without one.

    A date is compared with the answer's own `Date`, because both are of the vendor's clock (RFC 9110 §10.2.3).
    """
    if not value:
        return None
    text = value.strip()
    seconds = float(text) if text.isascii() and text.isdigit() else None
    if seconds is None:
        until = http_date(text)
        written = time.wall_sent if time.date is None else time.date
        seconds = None if until is None else until - written
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)
