"""The ops port: health, readiness, metrics and status over `aiohttp.web`, on an address of its own.

Knows metrics and statuses by the callables that it is given, nothing of the data plane. Serves no secret; what changes
something wants an admin key (`actions.py`). Everything it says is `no-store`, every refusal is JSON.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.admin import html, pages
from gateway.admin.actions import Actions
from gateway.admin.guard import COOKIE, Guard
from gateway.admin.history import STEP
from gateway.admin.overview import Overview
from gateway.admin.quiet import Runner

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.admin.actions import Reload, Workbench
    from gateway.model import Address, Config, CredentialStatus
    from gateway.observe import Metrics

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a request under way may take when the port closes."""
BODY = 16 * 1024
"""Largest body that is read."""


class AdminServer:
    """The admin port. `state` is `starting`, `ready` or `draining`; `data_address` is where the data port listens.

    `workbench` can fetch and check a credential; without one nobody can. `reload` reads the configuration again and
    returns what is wrong with it; `problems` is what was wrong with the latest one, if it is not in force. `address` is
    where the port listens, known after `start()`: with port 0 a free one was taken. `use()` the configuration in force,
    at the start and after each reload.
    """

    def __init__(
        self,
        address: Address,
        *,
        metrics: Metrics,
        status: Callable[[], Sequence[CredentialStatus]],
        state: Callable[[], str],
        data_address: Callable[[], tuple[str, int] | None] = lambda: None,
        workbench: Workbench | None = None,
        reload: Reload | None = None,
        problems: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._wanted = address
        self._metrics = metrics
        self._status = status
        self._state = state
        self._data_address = data_address
        self._overview = Overview(
            metrics=metrics, status=status, state=state, data_address=data_address, problems=problems
        )
        self._guard = Guard()
        self._actions = Actions(self._guard, workbench, reload)
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self.address: tuple[str, int] = (address.host, address.port)

    def use(self, config: Config) -> None:
        """Show this configuration and obey its admin keys."""
        self._overview.use(config)
        self._guard.use(config.admin_keys_sha256)

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Open the port, or serve on `sockets` that listen already. Raises OSError when the address cannot be had."""
        runner = Runner(self._app(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        sites: list[web.BaseSite] = [web.SockSite(runner, sock) for sock in sockets]
        try:
            for site in sites or [web.TCPSite(runner, self._wanted.host, self._wanted.port)]:
                await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.address = runner.addresses[0][:2]
        self._tick()

    async def stop(self) -> None:
        """Close the port; harmless when it is not open."""
        runner, self._runner = self._runner, None
        if self._ticking is not None:
            self._ticking.cancel()
        if runner is not None:
            await runner.cleanup()

    def _tick(self) -> None:
        self._overview.tick()
        self._ticking = asyncio.get_running_loop().call_later(STEP, self._tick)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_refusals_as_json], client_max_size=BODY)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/status", self._status_page)
        app.router.add_get("/status.json", self._status_json)
        app.router.add_get("/", self._to_status)
        app.add_routes(self._actions.routes())
        app.on_response_prepare.append(_common_fields)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _json({"state": pages.shown_state(self._state(), self._status()), "data": self._data_address()})

    async def _readyz(self, _request: web.Request) -> web.Response:
        credentials = self._status()
        state = pages.shown_state(self._state(), credentials)
        body = {"state": state, "data": self._data_address(), "credentials": [*map(pages.credential, credentials)]}
        return _json(body, HTTPStatus.OK if state == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        parts, content_type = self._metrics.exposition_in_parts(request.headers.get("Accept"))
        body = bytearray()
        for part in parts:
            body += part
            await asyncio.sleep(0)  # the data port's exchanges go on between two families
        return web.Response(body=bytes(body), headers={"Content-Type": content_type})

    async def _status_json(self, _request: web.Request) -> web.Response:
        return _json(self._overview.data())

    async def _status_page(self, request: web.Request) -> web.Response:
        session = self._guard.session(request.cookies.get(COOKIE))
        said = ""
        if session is not None and "X-Refresh" not in request.headers:
            said, session.said = session.said, ""
        text = html.page(self._overview.data(), session=session, locked=self._guard.open_to_nobody, said=said)
        fields = {"Content-Security-Policy": html.policy(), "Referrer-Policy": "same-origin"}
        return web.Response(text=text, content_type="text/html", headers=fields)

    async def _to_status(self, _request: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.FOUND, headers={"Location": "status"})


def _json(body: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status, content_type="application/json"
    )


@web.middleware
async def _refusals_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """404 and 405 in JSON, with the `Allow` field that the latter owes (RFC 9110 §15.5.6)."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        answer = _json({"status": refusal.status, "title": refusal.reason}, refusal.status)
        if "Allow" in refusal.headers:
            answer.headers["Allow"] = refusal.headers["Allow"]
        return answer


async def _common_fields(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.pop("Server", None)
