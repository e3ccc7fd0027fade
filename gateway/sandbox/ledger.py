"""A vendor's record of its tokens: which it issued, which are live, and when they were requested.

Knows no HTTP. Tokens are wrapped in `Secret` and shown as fingerprints only.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gateway.model import Clock, Secret

State = Literal["live", "expired", "revoked"]


class Time:
    """The sandbox's clock: `monotonic` for lives, `wall` for dates. Delays of answers are always in real time."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.monotonic = clock.monotonic if clock else time.monotonic
        self.wall = clock.wall if clock else time.time


@dataclass(slots=True, eq=False)
class Issued:
    """A token that this vendor issued."""

    value: Secret
    issued_at: float
    expires_at: float
    scopes: frozenset[str]
    service: str = ""
    refresh: Secret | None = None
    revoked: bool = False
    uses: int = 0

    @property
    def fingerprint(self) -> str:
        """First 8 hex digits of the token's SHA-256."""
        return self.value.fingerprint


class Ledger:
    """Issued tokens, newest last."""

    def __init__(self, clock: Time) -> None:
        self._clock = clock
        self._tokens: dict[Secret, Issued] = {}

    def add(self, issued: Issued) -> None:
        """Record a new token."""
        self._tokens[issued.value] = issued

    def find(self, value: Secret) -> Issued | None:
        """Return the token with this value, whether live, expired or revoked."""
        return self._tokens.get(value)

    def refreshed_by(self, value: Secret) -> Issued | None:
        """Return the live or expired token that this refresh token belongs to."""
        return next((issued for issued in self._tokens.values() if issued.refresh == value), None)

    def state(self, issued: Issued) -> State:
        """Return the present state of a token."""
        if issued.revoked:
            return "revoked"
        return "live" if self._clock.monotonic() < issued.expires_at else "expired"

    def live(self) -> list[Issued]:
        """Return all live tokens, newest last."""
        return [issued for issued in self._tokens.values() if self.state(issued) == "live"]

    def all(self) -> list[Issued]:
        """Return all issued tokens, newest last."""
        return list(self._tokens.values())

    def revoke(self, which: Literal["all", "newest"]) -> list[str]:
        """Revoke live tokens at once; return their fingerprints."""
        doomed = self.live() if which == "all" else self.live()[-1:]
        for issued in doomed:
            issued.revoked = True
        return [issued.fingerprint for issued in doomed]


@dataclass(slots=True)
class Counters:
    """What a vendor received since its start or the last reset."""

    token_requests: int = 0
    tokens_issued: int = 0
    api_requests: int = 0
    api_401s: int = 0
    redirects_followed: int = 0
    bytes_received: int = 0
    token_request_times: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    """Instants of the sandbox's monotonic clock."""

    def as_json(self, since: float) -> dict[str, object]:
        """Return all counters; instants as seconds after `since`."""
        return {
            "token_requests": self.token_requests,
            "tokens_issued": self.tokens_issued,
            "api_requests": self.api_requests,
            "api_401s": self.api_401s,
            "redirects_followed": self.redirects_followed,
            "bytes_received": self.bytes_received,
            "token_request_times": [round(instant - since, 6) for instant in self.token_request_times],
        }
