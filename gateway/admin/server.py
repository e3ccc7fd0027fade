"""The admin port: health, readiness, metrics and status over `aiohttp.web`, on its own address.

Gets metrics and statuses from callables and knows nothing of the data plane. Serves no secret; actions need an admin
key (`actions.py`). Every answer is `no-store`, every error is JSON.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.admin import html, pages
from gateway.admin.actions import Actions
from gateway.admin.answers import COMMON_FIELDS, as_json
from gateway.admin.connection import Server
from gateway.admin.guard import COOKIE, Guard, keep_cookie
from gateway.admin.history import STEP
from gateway.admin.input import is_own_host
from gateway.admin.overview import Overview
from gateway.admin.usage import MONTH, has_begun, report, this_month
from gateway.admin.vendor_refusals import with_refusals
from gateway.observe import get_logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.access import Usage
    from gateway.admin.actions import CredentialActions, Reload
    from gateway.model import Address, Config, CredentialStatus, PlaneStatus, Route, StoreStatus
    from gateway.observe import Metrics

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = get_logger("gatepass.admin")
SHUTDOWN_TIMEOUT = 1.0
"""Seconds for running requests when the port closes."""
BODY = 16 * 1024
"""Bytes of the largest request body."""


async def _nothing_to_gather(_month: str) -> bool:
    return True


class AdminServer:
    """The admin port. Call `use()` with the active configuration at the start and after each reload.

    Args:
        address: where to listen; port 0 takes a free one. `address` holds the real one after `start()`.
        metrics: what `/metrics` shows.
        status: returns the status of each credential.
        state: returns `starting`, `ready` or `draining`.
        data_address: returns where the data port listens.
        credentials: fetches and checks tokens; None: these actions do not exist.
        reload: loads the configuration again and returns its problems; None: this action does not exist.
        problems: returns the problems of the latest configuration if it was refused.
        usage: returns the usage of a month, as `2026-11`.
        gather_usage: learns the usage of a month from other instances; returns whether all of it is known.
        store: returns how the gateway stands to the shared store; None without one.
        planes: returns the status of each plane that tokens are pushed to.
    """

    def __init__(
        self,
        address: Address,
        *,
        metrics: Metrics,
        status: Callable[[], Sequence[CredentialStatus]],
        state: Callable[[], str],
        data_address: Callable[[], tuple[str, int] | None] = lambda: None,
        credentials: CredentialActions | None = None,
        reload: Reload | None = None,
        problems: Callable[[], Sequence[str]] = tuple,
        usage: Callable[[str], Sequence[Usage]] = lambda _month: (),
        gather_usage: Callable[[str], Awaitable[bool]] = _nothing_to_gather,
        store: Callable[[], StoreStatus] | None = None,
        planes: Callable[[], Sequence[PlaneStatus]] = tuple,
    ) -> None:
        self._wanted = address
        self._metrics = metrics
        self._routes: tuple[Route, ...] = ()
        self._token_status = status
        self._state = state
        self._data_address = data_address
        self._overview = Overview(
            metrics=metrics,
            status=self._status,
            state=state,
            data_address=data_address,
            problems=problems,
            store=store,
            planes=planes,
        )
        self._usage = usage
        self._gather_usage = gather_usage
        self._guard = Guard()
        self._actions = Actions(self._guard, credentials, reload, self._page_with_refusal)
        self._hosts: frozenset[str] = frozenset()
        self._runner: web.AppRunner | None = None
        self._server: Server | None = None
        self._listening: list[asyncio.Server] = []
        self._ticking: asyncio.TimerHandle | None = None
        self.address: tuple[str, int] = (address.host, address.port)

    def use(self, config: Config) -> None:
        """Show this configuration, and use its admin keys and host names."""
        self._overview.use(config)
        self._routes = config.routes
        self._hosts = frozenset(name.lower().rstrip(".") for name in (self._wanted.host, *config.admin_hosts))
        self._guard.use(config.admin_keys_sha256)

    def _status(self) -> list[CredentialStatus]:
        return with_refusals(self._token_status(), self._routes, self._metrics)

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Open the port, or serve on `sockets` that listen already. Raises OSError if the address is not available."""
        self._runner = runner = web.AppRunner(self._app())
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - set by setup()
        self._server = server = Server(runner.server)
        loop = asyncio.get_running_loop()
        try:
            for sock in sockets:
                self._listening.append(await loop.create_server(server, sock=sock))
            if not sockets:
                self._listening.append(await loop.create_server(server, self._wanted.host, self._wanted.port))
        except OSError:
            await self.stop()
            raise
        self.address = self._listening[0].sockets[0].getsockname()[:2]
        self._tick()

    async def stop(self) -> None:
        """Close the port. Does nothing if it is not open."""
        runner, self._runner = self._runner, None
        server, self._server = self._server, None
        if self._ticking is not None:
            self._ticking.cancel()
        while self._listening:
            self._listening.pop().close()
        if server is not None:
            await asyncio.sleep(0)  # a request that has arrived starts before its connection counts as idle
            server.pre_shutdown()
            await server.shutdown(SHUTDOWN_TIMEOUT)
        if runner is not None:
            await runner.cleanup()

    def _tick(self) -> None:
        self._overview.tick()
        self._ticking = asyncio.get_running_loop().call_later(STEP, self._tick)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_errors_as_json, self._own_host_only], client_max_size=BODY)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/status", self._status_page)
        app.router.add_get("/status.json", self._status_json)
        app.router.add_get("/usage.json", self._usage_json)
        app.router.add_get("/", self._to_status)
        app.add_routes(self._actions.routes())
        app.on_response_prepare.append(_common_fields)
        return app

    @web.middleware
    async def _own_host_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a name that is not ours with 421 (RFC 9110 §15.5.20): a browser may have been led here by it."""
        if not is_own_host(request.headers.getall("Host", []), self._hosts):
            _log.warning("admin_host_refused", remote=request.remote)
            raise web.HTTPMisdirectedRequest(
                reason="Use the address of the admin port as Host, or list this name under admin_hosts"
            )
        return await handler(request)

    async def _healthz(self, _request: web.Request) -> web.Response:
        return as_json({"state": pages.shown_state(self._state(), self._status()), "data": self._data_address()})

    async def _readyz(self, _request: web.Request) -> web.Response:
        credentials = self._status()
        state = pages.shown_state(self._state(), credentials)
        body = {"state": state, "data": self._data_address(), "credentials": [*map(pages.credential, credentials)]}
        return as_json(body, HTTPStatus.OK if state == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        parts, content_type = self._metrics.exposition(request.headers.get("Accept"))
        body = bytearray()
        for part in parts:
            body += part
            await asyncio.sleep(0)  # serve requests of the data port between two parts
        return web.Response(body=bytes(body), headers={"Content-Type": content_type})

    async def _status_json(self, _request: web.Request) -> web.Response:
        return as_json(self._overview.data())

    async def _usage_json(self, request: web.Request) -> web.Response:
        month = request.query.get("month", this_month())
        if not MONTH.fullmatch(month):
            raise web.HTTPBadRequest(reason="month: a year and a month, as 2026-11")
        if not has_begun(month):
            raise web.HTTPBadRequest(reason=f"month: {month} has not begun")
        complete = await self._gather_usage(month)
        return as_json({**self._used(month), "complete": complete})

    def _used(self, month: str) -> dict[str, Any]:
        return report(month, self._usage(month), {route.name: route.price for route in self._routes})

    async def _status_page(self, request: web.Request) -> web.Response:
        by_itself = "X-Refresh" in request.headers or "refresh" in request.query
        cookie = request.cookies.get(COOKIE)
        session = self._guard.session(cookie, use=not by_itself)
        message = ""
        if session is not None and not by_itself:
            message, session.message = session.message, ""
        await self._gather_usage(this_month())
        text = html.page(self._page_data(), session=session, locked=self._guard.has_no_keys, message=message)
        answer = _html(text)
        if session is not None and cookie is not None and not by_itself:
            keep_cookie(answer, cookie)
        return answer

    def _page_data(self) -> dict[str, Any]:
        return {**self._overview.data(), "usage": self._used(this_month())["totals"]}

    def _page_with_refusal(self, message: str, status: int) -> web.Response:
        text = html.page(self._page_data(), session=None, locked=self._guard.has_no_keys, message=message, refusal=True)
        return _html(text, status)

    async def _to_status(self, _request: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.FOUND, headers={"Location": "status"})


def _html(text: str, status: int = HTTPStatus.OK) -> web.Response:
    fields = {"Content-Security-Policy": html.policy(), "Referrer-Policy": "same-origin"}
    return web.Response(text=text, status=status, content_type="text/html", headers=fields)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in JSON; a 405 keeps its `Allow` field (RFC 9110 §15.5.6)."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        answer = as_json({"status": refusal.status, "title": refusal.reason}, refusal.status)
        if "Allow" in refusal.headers:
            answer.headers["Allow"] = refusal.headers["Allow"]
        return answer


async def _common_fields(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_FIELDS)
    response.headers.pop("Server", None)
