"""Who may change something through the admin port: whoever shows an admin key.

A program shows it with every request (`Authorization: Bearer`); a person types it once and gets a session. A browser
sends a session's cookie along whoever made it send the request, so a form counts only with the session's own token and
from a page of ours (Origin, Sec-Fetch-Site), and the cookie is `SameSite=Strict`: three answers to one forgery.
Knows hashes of keys, never a key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

COOKIE = "gatepass_admin"
LIFETIME = 1800.0
"""Seconds that a session lives after its last use."""
SESSIONS = 32
"""Sessions at a time; the oldest goes first."""
_log = get_logger("gatepass.admin")


@dataclass(slots=True)
class Session:
    """A person who has shown the key. `said` is what the next page tells about the last action."""

    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    said: str = ""


class Refused(Exception):
    """No, and why: `status` 401 or 403."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


class Guard:
    """Keys and sessions. `keys_sha256` changes with the configuration; sessions end when it does."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._keys: frozenset[str] = frozenset()
        self._sessions: dict[str, Session] = {}

    @property
    def open_to_nobody(self) -> bool:
        """Whether there is no admin key at all."""
        return not self._keys

    def use(self, keys_sha256: Collection[str]) -> None:
        """Take over the keys of a configuration."""
        keys = frozenset(key.lower() for key in keys_sha256)
        if keys != self._keys:
            self._keys, self._sessions = keys, {}

    def knows(self, key: str) -> bool:
        """Tell whether `key` is an admin key."""
        shown = hashlib.sha256(key.strip().encode()).hexdigest()
        return any([hmac.compare_digest(shown, known) for known in self._keys])  # noqa: C419  all of them, always

    def enter(self, key: str, remote: str | None) -> str:
        """Begin a session; return the value of its cookie. Raises Refused."""
        self._require_key(key, remote)
        self._sweep()
        while len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(32)
        self._sessions[_hashed(name)] = Session(self._now() + LIFETIME)
        _log.info("admin_session_begun", remote=remote)
        return name

    def leave(self, cookie: str | None) -> None:
        """End a session."""
        if cookie is not None:
            self._sessions.pop(_hashed(cookie), None)

    def session(self, cookie: str | None) -> Session | None:
        """Return the session that a cookie stands for, and prolong it."""
        self._sweep()
        found = self._sessions.get(_hashed(cookie)) if cookie else None
        if found is not None:
            found.ends = self._now() + LIFETIME
        return found

    def judge(self, headers: Mapping[str, str], cookie: str | None, csrf: str, remote: str | None) -> Session | None:
        """See whether a request may change something; return its session, None for a program's. Raises Refused."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self._require_key(key, remote)
            return None
        if self.open_to_nobody:
            raise Refused(403, "No admin key is configured: set admin_keys_sha256")
        session = self.session(cookie)
        if session is None:
            raise Refused(401, "An admin key is needed")
        if not same_origin(headers) or not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
            _log.warning("admin_forgery_refused", remote=remote)
            raise Refused(403, "The request does not come from the status page")
        return session

    def _require_key(self, key: str, remote: str | None) -> None:
        if self.open_to_nobody:
            raise Refused(403, "No admin key is configured: set admin_keys_sha256")
        if not self.knows(key):
            _log.warning("admin_key_refused", remote=remote)
            raise Refused(401, "This is not an admin key")

    def _sweep(self) -> None:
        now = self._now()
        self._sessions = {name: each for name, each in self._sessions.items() if each.ends > now}


def same_origin(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser says that a page of ours sent this; one that says nothing about it is not believed."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return origin.partition("://")[2].lower() == headers.get("Host", "").lower()
    return site is not None


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
