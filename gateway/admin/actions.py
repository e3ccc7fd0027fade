"""The actions of the admin port, which need an admin key: fetch a token, check it, reload, change the log settings.

A person uses forms of the status page and is redirected back to it; a program sends `Authorization: Bearer` and gets
JSON. What an action does is decided by `CredentialActions` and by the callables given.
"""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson
from aiohttp import web

from gateway.admin.answers import as_json
from gateway.admin.guard import COOKIE, Guard, Refused, keep_cookie
from gateway.admin.input import read_body, read_form
from gateway.errors import TokenError
from gateway.model import LEVELS, Logs
from gateway.model.http import FORM
from gateway.observe import adjust_logging, current_logging, get_logger, redact_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.admin.guard import Session

    Reload = Callable[[], Awaitable[tuple[str, ...]]]

Act = Literal["fetch", "check"]
_log = get_logger("gatepass.admin")


class CredentialActions(Protocol):
    """Actions on credentials. Both raise KeyError for an unknown name and TokenError on failure."""

    async def fetch_now(self, name: str) -> None:
        """Fetch a new token. The current one stays in use until the new one arrives."""

    async def check(self, name: str) -> int:
        """Send the current token to the vendor's identity endpoint; return the status of the answer."""


class Actions:
    """The handlers of all actions, of the log settings, and of the login form."""

    def __init__(
        self,
        guard: Guard,
        credentials: CredentialActions | None,
        reload: Reload | None,
        show_page: Callable[[str, int], web.Response],
    ) -> None:
        self._guard = guard
        self._credentials = credentials
        self._reload = reload
        self._show_page = show_page

    def routes(self) -> list[web.RouteDef]:
        """Return their routes."""
        return [
            web.post("/status/enter", self._enter),
            web.post("/status/leave", self._leave),
            web.post("/status/logging", self._guarded(self._set_level)),
            web.post("/status/credentials/{name}/{act:fetch|check}", self._guarded(self._credential)),
            web.post("/reload", self._guarded(self._reload_now)),
            web.get("/logging", self._logging),
            web.put("/logging", self._guarded(self._adjust_logging)),
        ]

    # ------------------------------------------------------------------------------------------------------- sessions

    async def _enter(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        try:
            cookie = self._guard.enter(form.get("key", ""), request.remote)
        except Refused as refused:
            return self._refused_entry(request, refused)
        answer = _back()
        keep_cookie(answer, cookie)
        return answer

    def _refused_entry(self, request: web.Request, refused: Refused) -> web.Response:
        """Show a person the page again with the reason; a program gets JSON."""
        if "text/html" not in request.headers.get("Accept", ""):
            return _refusal(refused)
        return self._show_page(f"{refused.title}. Try again, or ask whoever runs the gateway.", refused.status)

    async def _leave(self, request: web.Request) -> web.Response:
        self._guard.leave(request.cookies.get(COOKIE))
        answer = _back()
        answer.del_cookie(COOKIE, path=None)  # type: ignore[arg-type]
        return answer

    def _guarded(
        self, act: Callable[[web.Request, Session | None], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            form = await read_form(request) if request.content_type == FORM else {}
            try:
                cookie, csrf = request.cookies.get(COOKIE), form.get("csrf", "")
                session = self._guard.judge(request.headers, cookie, csrf, request.remote)
            except Refused as refused:
                return _refusal(refused)
            return await act(request, session)

        return handler

    # -------------------------------------------------------------------------------------------------------- actions

    async def _credential(self, request: web.Request, session: Session | None) -> web.Response:
        name, act = request.match_info["name"], request.match_info["act"]
        try:
            ok, message = await self._act(name, "fetch" if act == "fetch" else "check")
        except KeyError:
            raise web.HTTPNotFound from None
        _log.info("admin_action", action=act, credential=name, ok=ok, remote=request.remote)
        if session is not None:
            session.message = f"{name}: {message}"
            return _back("../../../status")
        status = HTTPStatus.OK if ok else HTTPStatus.BAD_GATEWAY
        return as_json({"credential": name, "action": act, "ok": ok, "message": message}, status)

    async def _act(self, name: str, act: Act) -> tuple[bool, str]:
        if self._credentials is None:
            raise KeyError(name)
        try:
            if act == "fetch":
                await self._credentials.fetch_now(name)
                return True, "a new token was fetched."
            status = await self._credentials.check(name)
        except TokenError as error:
            return False, redact_text(f"{error.reason or error.detail}.")
        ok = status < HTTPStatus.BAD_REQUEST
        return ok, f"the vendor {'accepts' if ok else 'refuses'} the token (it answered {status})."

    async def _reload_now(self, request: web.Request, _session: Session | None) -> web.Response:
        """Reload the configuration; answer when it is active, or with its problems."""
        if self._reload is None:
            raise web.HTTPNotFound
        problems = await self._reload()
        _log.info("admin_action", action="reload", ok=not problems, remote=request.remote)
        status = HTTPStatus.CONFLICT if problems else HTTPStatus.OK
        return as_json({"reloaded": not problems, "problems": [redact_text(problem) for problem in problems]}, status)

    async def _logging(self, _request: web.Request) -> web.Response:
        return as_json(_shown(current_logging()))

    async def _adjust_logging(self, request: web.Request, _session: Session | None) -> web.Response:
        """Change levels and sampling until the next reload or restart: `{"level": …, "loggers": {…}, "sample": …}`."""
        try:
            logs = _changed(current_logging() or Logs(), orjson.loads(await read_body(request)))
        except ValueError as error:
            return as_json({"status": 400, "title": redact_text(str(error))}, HTTPStatus.BAD_REQUEST)
        _adjust(request, logs)
        return as_json(_shown(logs))

    async def _set_level(self, request: web.Request, session: Session | None) -> web.Response:
        """Change the level from the form of the status page."""
        try:
            logs = _changed(current_logging() or Logs(), {"level": (await read_form(request)).get("level")})
        except ValueError as error:
            raise web.HTTPBadRequest from error
        _adjust(request, logs)
        if session is not None:
            session.message = f"The log level is {logs.level} until the next reload or restart."
        return _back()


def _adjust(request: web.Request, logs: Logs) -> None:
    before = current_logging() or Logs()
    if LEVELS.index(logs.level) < LEVELS.index(before.level):
        adjust_logging(logs, temporary=True)
        _log_change(request, logs)
    else:  # while the event is still written
        _log_change(request, logs)
        adjust_logging(logs, temporary=True)


def _log_change(request: web.Request, logs: Logs) -> None:
    _log.warning("logging_changed", remote=request.remote, settings=_shown(logs))


def _changed(logs: Logs, wanted: Any) -> Logs:
    if not isinstance(wanted, dict) or not wanted.keys() <= {"level", "loggers", "sample", "access"}:
        raise ValueError("send a JSON object with level, loggers, sample or access")
    loggers = wanted.get("loggers", dict(logs.loggers))
    if not isinstance(loggers, dict) or any(level not in LEVELS for level in loggers.values()):
        raise ValueError(f"loggers: levels by name, of {', '.join(LEVELS)}")
    level, sample, access = (wanted.get(key, getattr(logs, key)) for key in ("level", "sample", "access"))
    if level not in LEVELS:
        raise ValueError(f"level: one of {', '.join(LEVELS)}")
    if isinstance(sample, bool) or not isinstance(sample, int | float) or not 0 <= sample <= 1:
        raise ValueError("sample: a share from 0 to 1")
    if not isinstance(access, bool):
        raise ValueError("access: true or false")  # noqa: TRY004  one kind of answer for every mistake
    pairs = tuple(sorted((str(name), str(each)) for name, each in loggers.items()))
    return dataclasses.replace(logs, level=level, sample=float(sample), access=access, loggers=pairs)


def _shown(logs: Logs | None) -> dict[str, Any]:
    if logs is None:
        return {}
    return {"level": logs.level, "loggers": dict(logs.loggers), "sample": logs.sample, "access": logs.access}


def _refusal(refused: Refused) -> web.Response:
    answer = as_json({"status": refused.status, "title": refused.title}, refused.status)
    if refused.status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="gatepass admin"'
    return answer


def _back(to: str = "../status") -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": to})
