"""What can be done through the admin port, by whoever has an admin key: fetch a token now, check it, tune the log.

A person comes from the status page and goes back to it; a program sends `Authorization: Bearer` and gets JSON. Decides
nothing about tokens: the workbench does.
"""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson
from aiohttp import web

from gateway.admin.guard import COOKIE, LIFETIME, Guard, Refused
from gateway.errors import TokenError
from gateway.model import Logs
from gateway.observe import adjust_logging, current_logging, get_logger, redact_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.admin.guard import Session

    Reload = Callable[[], Awaitable[tuple[str, ...]]]

Act = Literal["fetch", "check"]
LEVELS = ("debug", "info", "warning", "error")
_log = get_logger("gatepass.admin")


class Workbench(Protocol):
    """What the credentials can be asked to do. Both raise KeyError for an unknown name, TokenError when it fails."""

    async def fetch_now(self, name: str) -> None:
        """Fetch a new token; the one in hand serves until it comes."""

    async def check(self, name: str) -> int:
        """Show the token in hand to the vendor's identity endpoint; return the answer's status."""


class Actions:
    """The handlers of everything that is not a GET."""

    def __init__(self, guard: Guard, workbench: Workbench | None, reload: Reload | None = None) -> None:
        self._guard = guard
        self._workbench = workbench
        self._reload = reload

    def routes(self) -> list[web.RouteDef]:
        """Return where they listen."""
        return [
            web.post("/status/enter", self._enter),
            web.post("/status/leave", self._leave),
            web.post("/status/credentials/{name}/{act:fetch|check}", self._guarded(self._credential)),
            web.post("/reload", self._guarded(self._read_again)),
            web.get("/logging", self._logging),
            web.put("/logging", self._guarded(self._adjust_logging)),
        ]

    # ------------------------------------------------------------------------------------------------------- sessions

    async def _enter(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            cookie = self._guard.enter(str(form.get("key", "")), request.remote)
        except Refused as refused:
            return _refusal(refused)
        answer = _back()
        answer.set_cookie(COOKIE, cookie, path=None, max_age=int(LIFETIME), httponly=True, samesite="Strict")  # type: ignore[arg-type]  # None: no Path
        return answer

    async def _leave(self, request: web.Request) -> web.Response:
        self._guard.leave(request.cookies.get(COOKIE))
        answer = _back()
        answer.del_cookie(COOKIE, path=None)  # type: ignore[arg-type]
        return answer

    def _guarded(
        self, act: Callable[[web.Request, Session | None], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            form = await request.post() if request.content_type.endswith("form-urlencoded") else {}
            try:
                cookie, csrf = request.cookies.get(COOKIE), str(form.get("csrf", ""))
                session = self._guard.judge(request.headers, cookie, csrf, request.remote)
            except Refused as refused:
                return _refusal(refused)
            return await act(request, session)

        return handler

    # -------------------------------------------------------------------------------------------------------- actions

    async def _credential(self, request: web.Request, session: Session | None) -> web.Response:
        name, act = request.match_info["name"], request.match_info["act"]
        try:
            good, said = await self._act(name, "fetch" if act == "fetch" else "check")
        except KeyError:
            raise web.HTTPNotFound from None
        _log.info("admin_action", action=act, credential=name, good=good, remote=request.remote)
        if session is not None:
            session.said = f"{name}: {said}"
            return _back("../../../status")
        status = HTTPStatus.OK if good else HTTPStatus.BAD_GATEWAY
        return _json({"credential": name, "action": act, "good": good, "said": said}, status)

    async def _act(self, name: str, act: Act) -> tuple[bool, str]:
        if self._workbench is None:
            raise KeyError(name)
        try:
            if act == "fetch":
                await self._workbench.fetch_now(name)
                return True, "a new token was fetched."
            status = await self._workbench.check(name)
        except TokenError as error:
            return False, redact_text(f"{error.reason or error.detail}.")
        good = status < HTTPStatus.BAD_REQUEST
        return good, f"the vendor {'takes' if good else 'does not take'} the token (its answer was {status})."

    async def _read_again(self, request: web.Request, _session: Session | None) -> web.Response:
        """Read the configuration again; answer when it is in force, or with what is wrong with it."""
        if self._reload is None:
            raise web.HTTPNotFound
        problems = await self._reload()
        _log.info("admin_action", action="reload", good=not problems, remote=request.remote)
        status = HTTPStatus.CONFLICT if problems else HTTPStatus.OK
        return _json({"reloaded": not problems, "problems": [redact_text(problem) for problem in problems]}, status)

    async def _logging(self, _request: web.Request) -> web.Response:
        return _json(_shown(current_logging()))

    async def _adjust_logging(self, request: web.Request, _session: Session | None) -> web.Response:
        """Change levels and sampling until the next reload or restart: `{"level": …, "loggers": {…}, "sample": …}`."""
        try:
            logs = _changed(current_logging() or Logs(), orjson.loads(await request.read()))
        except ValueError as error:
            return _json({"status": 400, "title": redact_text(str(error))}, HTTPStatus.BAD_REQUEST)
        adjust_logging(logs)
        _log.warning("logging_changed", remote=request.remote, **_shown(logs))
        return _json(_shown(logs))


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
    answer = _json({"status": refused.status, "title": refused.title}, refused.status)
    if refused.status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="gatepass admin"'
    return answer


def _back(to: str = "../status") -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": to})


def _json(body: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status, content_type="application/json"
    )
