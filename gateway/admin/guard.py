"""Authentication of the admin port's actions by admin keys.

A program sends its key with every request (`Authorization: Bearer`); a person types it once and gets a session. A
browser sends the session's cookie whichever site caused the request, so three defences stop cross-site request forgery:
a form contains a token of its session, `Origin` and `Sec-Fetch-Site` must name our own page, and the cookie is
`SameSite=Strict`. Keeps hashes of keys, never a key.
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

    from aiohttp import web

COOKIE = "gatepass_admin"
LIFETIME = 1800.0
"""Seconds after its last use until a session ends."""
SESSIONS = 32
"""Sessions at a time; one more ends the oldest."""
_log = get_logger("gatepass.admin")


@dataclass(slots=True)
class Session:
    """A person who has entered the key. `message` is the result of the last action, shown once on the next page."""

    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    message: str = ""


class Refused(Exception):
    """The request is refused with `status` 401 or 403; `title` says why."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


class Guard:
    """Admin keys and sessions. All sessions end when the keys change."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._keys: frozenset[str] = frozenset()
        self._sessions: dict[str, Session] = {}

    @property
    def has_no_keys(self) -> bool:
        """Whether no admin key is configured."""
        return not self._keys

    def use(self, keys_sha256: Collection[str]) -> None:
        """Accept these keys from now on."""
        keys = frozenset(key.lower() for key in keys_sha256)
        if keys != self._keys:
            self._keys, self._sessions = keys, {}

    def is_key(self, key: str) -> bool:
        """Return whether `key` is an admin key."""
        if not key.strip():
            return False
        digest = _hashed(key.strip())
        return any([hmac.compare_digest(digest, each) for each in self._keys])  # noqa: C419  constant time: all of them

    def enter(self, key: str, remote: str | None) -> str:
        """Start a session; return the value of its cookie. Raises Refused."""
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

    def session(self, cookie: str | None, *, use: bool = True) -> Session | None:
        """Return the session of a cookie; with `use`, extend it."""
        self._sweep()
        session = self._sessions.get(_hashed(cookie)) if cookie else None
        if session is not None and use:
            session.ends = self._now() + LIFETIME
        return session

    def judge(self, headers: Mapping[str, str], cookie: str | None, csrf: str, remote: str | None) -> Session | None:
        """Check whether a request may change something; return its session, None for a program. Raises Refused."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self._require_key(key, remote)
            return None
        if self.has_no_keys:
            raise Refused(403, "No admin key is configured: set admin_keys_sha256")
        session = self.session(cookie)
        if session is None:
            raise Refused(401, "An admin key is needed")
        if not same_origin(headers) or not hmac.compare_digest(_encoded(csrf), _encoded(session.csrf)):
            _log.warning("admin_forgery_refused", remote=remote)
            raise Refused(403, "The request does not come from the status page")
        return session

    def _require_key(self, key: str, remote: str | None) -> None:
        if self.has_no_keys:
            raise Refused(403, "No admin key is configured: set admin_keys_sha256")
        if not self.is_key(key):
            _log.warning("admin_key_refused", remote=remote)
            raise Refused(401, "This is not an admin key")

    def _sweep(self) -> None:
        now = self._now()
        self._sessions = {name: each for name, each in self._sessions.items() if each.ends > now}


def keep_cookie(answer: web.Response, cookie: str) -> None:
    """Let the browser keep a session's cookie for `LIFETIME` from now on."""
    answer.set_cookie(COOKIE, cookie, path=None, max_age=int(LIFETIME), httponly=True, samesite="Strict")  # type: ignore[arg-type]  # None: no Path


def same_origin(headers: Mapping[str, str]) -> bool:
    """Return whether the browser says that our own page sent the request. Without such a field the answer is no."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return origin.partition("://")[2].lower() == headers.get("Host", "").lower()
    return site is not None


def _hashed(text: str) -> str:
    return hashlib.sha256(_encoded(text)).hexdigest()


def _encoded(text: str) -> bytes:
    """Return the bytes of a text that may contain undecodable bytes of a header, as aiohttp represents them."""
    return text.encode("utf-8", "surrogateescape")
